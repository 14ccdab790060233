"""Training on large photos with and without the photos kept (data/photos.py), beside small photos, all in one run.

    python benchmarks/photo_cache.py                 # images/s of the first epoch and of later ones, and the ratios
    python benchmarks/photo_cache.py --size 224 --only-views
    python benchmarks/photo_cache.py --knn cifar10   # what short runs learn with and without, over three seeds

The photos are pieces of scikit-learn's two photographs, enlarged to 12 megapixels, and the same at 500 x 375. The
sides take turns, an epoch each, with the network and batch of the recipe folder-cpu, in one process without workers;
"views" are the epochs without the training steps. Every epoch is timed in processor time, so that other programs
disturb it less.

With --knn, training images of CIFAR-10 are enlarged to 512 pixels; each run is that of `simsiam pretrain` with few
epochs, and 1,000 test images as they are, each left out of its own neighbours, give the kNN accuracy of its result.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from simsiam import model
from simsiam.config import Machine, Pretraining
from simsiam.data.photos import choose
from simsiam.data.sources import FolderSource, Source, open_source
from simsiam.data.two_views.draws import decoded_side
from simsiam.data.two_views.loader import ViewLoader
from simsiam.pretraining.inputs import start_network
from simsiam.pretraining.pace import processor
from simsiam.pretraining.run import pretrain
from simsiam.pretraining.step import train_step
from simsiam.recipes.pretrain import folder_cpu

CPU = torch.device("cpu")
PIECE = (400, 300)  # of the photographs' 640 x 427
LARGE, SMALL = (4000, 3000), (500, 375)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="pixels of a view")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only-views", action="store_true", help="without training steps")
    parser.add_argument("--knn", metavar="DATA", help="compare what is learnt, on cifar10 or a folder of it")
    options = parser.parse_args()
    print(f"{processor()}, load average {os.getloadavg()[0]:.1f}, torch with {torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as place:
        if options.knn:
            learnt(Path(place), options.knn)
        else:
            kinds = ("views",) if options.only_views else ("views and training steps", "views")
            pace(Path(place), kinds, size=options.size, images=options.images, epochs=options.epochs)


def pace(place: Path, kinds: tuple[str, ...], *, size: int, images: int, epochs: int) -> None:
    """Images a second of each side, by epoch."""
    recipe = folder_cpu()
    recipe = dataclasses.replace(recipe, views=dataclasses.replace(recipe.views, size=size))
    large, small = (FolderSource(pieces(place / name, images, to)) for name, to in (("12", LARGE), ("small", SMALL)))
    choice = choose(large.files(), needed=decoded_side(recipe.views), cache=place / "cache")
    print(*choice.notes, sep="\n")
    sides: dict[str, Source] = {
        "12 MP, kept": large.kept_in(choice.photos),
        "12 MP, not kept": large,
        "500 x 375": small,
    }
    epoch_of = {name: both(source, recipe) for name, source in sides.items()}
    for kind in kinds:
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for epoch in range(epochs):
            for name, run in epoch_of.items():
                started = time.process_time()
                run(epoch, kind != "views")
                seconds[name].append(time.process_time() - started)
        print(f"\n{kind}, {images} images an epoch, {size} px: images/s\n{'':<18}{'first epoch':>12}{'later':>8}")
        later = {name: images / statistics.median(values[1:]) for name, values in seconds.items()}
        for name, values in seconds.items():
            first = (
                f"{images / values[0]:>12.1f}" if kind == kinds[0] else f"{'':>12}"
            )  # else the photos are kept by then
            print(f"{name:<18}{first}{later[name]:>8.1f}  x{later[name] / later['500 x 375']:.2f} of the small ones")
    packed = sum(file.stat().st_size for file in (place / "cache" / "decoded-photos").glob("*.pack"))
    print(f"\nkept: {packed / images / 1000:.1f} kB a photo")


def both(source: Source, recipe: Pretraining) -> Callable[[int, bool], None]:
    """One epoch of a source, with or without the training steps."""
    batch = min(recipe.batch_size, len(source))
    loader = ViewLoader(source, recipe.views, engine="opencv", batch_size=batch, seed=0, device=CPU)
    network = start_network(recipe, None).network
    loss = partial(model.loss, similarity=recipe.similarity, symmetric=True)

    def run(epoch: int, trained: bool) -> None:
        for views in loader.epoch(epoch):
            if trained:
                train_step(network, views.x1, views.x2, update=lambda loss: loss.backward(), loss=loss, targets=None)

    return run


def pieces(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Pieces of the two photographs at a size, as JPEG files with times of yesterday."""
    folder.mkdir()
    random = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        photo = photographs[number % len(photographs)]
        left, top = (int(random.integers(0, whole - part)) for whole, part in zip(photo.size, PIECE, strict=True))
        piece = photo.crop((left, top, left + PIECE[0], top + PIECE[1])).resize(size)
        save(piece, folder / f"{number:04d}.jpg")
    return folder


def save(image: Image.Image, file: Path) -> None:
    """As JPEG, with a time of yesterday: a file of this moment is not kept."""
    image.save(file, quality=90)
    os.utime(file, (time.time() - 86_400,) * 2)


def learnt(place: Path, data: str, *, images: int = 800, queries: int = 1000, side: int = 512) -> None:
    """kNN accuracy and view retrieval of short runs with and without, seed by seed."""
    train, test = (open_source(data, kind="cifar10", split=split) for split in ("train", "test"))
    photos, labelled = place / "photos", place / "labelled"
    photos.mkdir()
    for index in range(images):
        save(train.read(index).resize((side, side)), photos / f"{index:05d}.jpg")
    assert test.labels is not None
    for index in range(queries):
        folder = labelled / str(test.class_name(int(test.labels[index])))
        folder.mkdir(parents=True, exist_ok=True)
        test.read(index).save(folder / f"{index:05d}.png")
    recipe = folder_cpu()
    views = dataclasses.replace(recipe.views, size=32)
    network = dataclasses.replace(recipe.model, backbone="resnet8", width=16)
    recipe = dataclasses.replace(recipe, model=network, views=views, epochs=6, batch_size=32, monitor_every=6)
    found: dict[str, list[dict[str, float]]] = {"auto": [], "off": []}
    for seed in range(3):
        for how, figures in found.items():
            machine = Machine(
                out=place / f"{how}{seed}", device="cpu", workers=0, cache=place / "cache", photo_cache=how
            )
            run = pretrain(dataclasses.replace(recipe, seed=seed), data=photos, machine=machine, labels=labelled)
            figures.append(run.metrics)
            print(f"--photo-cache {how}, seed {seed}: {run.metrics}", flush=True)
    for measure in ("knn", "view_recall"):
        rows = {how: [each[measure] for each in figures] for how, figures in found.items()}
        by_seed = [kept - without for kept, without in zip(rows["auto"], rows["off"], strict=True)]
        print(f"\n{measure}, %: mean and deviation over {len(by_seed)} seeds")
        for how, values in rows.items():
            print(f"  --photo-cache {how:<5} {statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}")
        print(f"  difference         {statistics.mean(by_seed):+.1f} +- {statistics.stdev(by_seed):.1f}")


if __name__ == "__main__":
    main()
