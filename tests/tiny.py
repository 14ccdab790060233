"""Tiny data sets written on the spot: folders of coloured shapes, damaged files, shards, CIFAR trees and caches."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import pytest

SHAPES = ("circle", "square", "stripes")


def shape(kind: str, *, seed: int, size: int | tuple[int, int] = 40) -> Image.Image:
    """One coloured shape on a coloured, noisy ground; the same for the same arguments."""
    width, height = (size, size) if isinstance(size, int) else size
    random = np.random.default_rng([seed, SHAPES.index(kind)])
    ground = random.integers(0, 256, 3) + random.integers(-20, 20, (height, width, 3))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    colour = tuple(int(level) for level in random.integers(0, 256, 3))
    left, top = int(width * random.uniform(0, 0.4)), int(height * random.uniform(0, 0.4))
    box = (left, top, left + max(1, width // 2), top + max(1, height // 2))
    pen = ImageDraw.Draw(image)
    if kind == "circle":
        pen.ellipse(box, fill=colour)
    elif kind == "square":
        pen.rectangle(box, fill=colour)
    else:
        for row in range(0, height, 8):
            pen.rectangle((0, row, width, row + 3), fill=colour)
    return image


def pixels(count: int, *, size: int = 32, seed: int = 0) -> np.ndarray:
    """`count` shapes, count x size x size x 3 uint8; kinds take turns, so labels are `np.arange(count) % 3`."""
    images = [shape(SHAPES[index % 3], seed=seed * 100_000 + index, size=size) for index in range(count)]
    return np.stack([np.asarray(image) for image in images])


def folder(root: Path, *, classes: int = 2, images: int = 4, size: int | tuple[int, int] = 40) -> Path:
    """A labelled folder: root/SHAPE/000.jpg and so on, `images` of each class (at most three classes)."""
    for kind in SHAPES[:classes]:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            shape(kind, seed=index, size=size).save(root / kind / f"{index:03d}.jpg", quality=92)
    return root


def flat_folder(root: Path, *, images: int = 8, size: int | tuple[int, int] = 40) -> Path:
    """An unlabelled folder of PNG files."""
    root.mkdir(parents=True, exist_ok=True)
    for index in range(images):
        shape(SHAPES[index % 3], seed=index, size=size).save(root / f"photo {index:03d}.png")
    return root


def jpeg(image: Image.Image, **options: object) -> bytes:
    """The image as the bytes of a JPEG file."""
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content.getvalue()


def damaged(root: Path) -> list[Path]:
    """One damaged file of every sort, each with an image's suffix; none can be read."""
    root.mkdir(parents=True, exist_ok=True)
    whole_jpeg = jpeg(shape("circle", seed=1, size=200))
    png = io.BytesIO()
    shape("square", seed=2, size=200).save(png, "PNG")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"this is no image at all\n" * 20,
        "truncated.jpg": whole_jpeg[: len(whole_jpeg) // 2],
        "header only.jpg": whole_jpeg[:20],
        "truncated.png": png.getvalue()[: len(png.getvalue()) // 2],
        "flipped.png": png.getvalue()[:60] + b"\0" * 40 + png.getvalue()[100:],
        "truncated.gif": b"GIF89a\x10\x00\x10\x00\xf0\x00\x00",
        "page.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "bomb.png": bomb.getvalue(),
    }
    paths = []
    for name, content in contents.items():
        paths.append(root / name)
        paths[-1].write_bytes(content)
    return paths


def shards(root: Path, *, count: int = 3, samples: int = 5, labels: bool = True, size: int = 40) -> Path:
    """`count` WebDataset shards root/train-000000.tar ... of `samples` images each; sample k has class k % 3."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        with tarfile.open(root / f"train-{number:06d}.tar", "w") as tar:
            for index in range(samples):
                key = number * samples + index
                image = jpeg(shape(SHAPES[key % 3], seed=key, size=size))
                add(tar, f"{key:06d}.jpg", image)
                if labels:
                    add(tar, f"{key:06d}.cls", str(key % 3).encode())
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add one member to an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@dataclass(frozen=True, kw_only=True)
class FakeCifar:
    """A CIFAR-10 tree with few images a batch, and the checksums to expect of it."""

    root: Path
    md5: dict[str, str]
    pixels: dict[str, np.ndarray]  # by split, N x 32 x 32 x 3
    labels: dict[str, np.ndarray]

    def believed(self, patch: pytest.MonkeyPatch) -> None:
        """Have torchvision take these files for the published ones."""
        from torchvision.datasets import CIFAR10

        patch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", self.md5[f"data_batch_{n}"]] for n in range(1, 6)])
        patch.setattr(CIFAR10, "test_list", [["test_batch", self.md5["test_batch"]]])
        patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": self.md5["batches.meta"]})


def cifar_tree(root: Path, *, layout: str = "python", rows: int = 20) -> FakeCifar:
    """The official layout, `rows` images a batch: "python" (cifar-10-batches-py) or "binary" (cifar-10-batches-bin)."""
    folder = root / ("cifar-10-batches-py" if layout == "python" else "cifar-10-batches-bin")
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    md5, parts = {}, {}
    for number, name in enumerate(names):
        images = pixels(rows, seed=number)
        labels = np.arange(rows) % 10
        planes = images.transpose(0, 3, 1, 2).reshape(rows, 3072)
        if layout == "python":
            file = folder / name
            raw = {"batch_label": name, "labels": labels.tolist(), "data": planes, "filenames": []}
            file.write_bytes(pickle.dumps(raw, protocol=2))
        else:
            file = folder / f"{name}.bin"
            file.write_bytes(np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes())
        md5[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
        parts[name] = (images, labels)
    if layout == "python":
        from simsiam.data.classification.torchvision_sets import CIFAR10_CLASSES

        meta = pickle.dumps({"label_names": list(CIFAR10_CLASSES)}, protocol=2)
        (folder / "batches.meta").write_bytes(meta)
        md5["batches.meta"] = hashlib.md5(meta).hexdigest()
    train = names[:5]
    return FakeCifar(
        root=root,
        md5=md5,
        pixels={"train": np.concatenate([parts[n][0] for n in train]), "test": parts["test_batch"][0]},
        labels={"train": np.concatenate([parts[n][1] for n in train]), "test": parts["test_batch"][1]},
    )


def cifar_cache(cache: Path, *, train: int = 120, test: int = 60, learnable: bool = True) -> Path:
    """A valid decoded CIFAR-10 cache of few images, so that kinds cifar10 and demo need no network.

    The class shows in the picture if `learnable` (a tint by class), else labels are arbitrary.
    """
    arrays = {}
    for split, count, seed in (("train", train, 0), ("test", test, 1)):
        labels = np.arange(count, dtype=np.int64) % 10
        images = pixels(count, seed=seed)
        if learnable:
            tint = np.random.default_rng(5).integers(0, 256, (10, 3))
            images = (images * 0.5 + tint[labels][:, None, None] * 0.5).astype(np.uint8)
        arrays |= {f"{split}_pixels": images, f"{split}_labels": labels}
    return _cached(cache, arrays)


def _cached(cache: Path, arrays: dict[str, np.ndarray]) -> Path:
    (cache / "cifar10").mkdir(parents=True, exist_ok=True)
    np.savez(cache / "cifar10" / "npm.npz", allow_pickle=False, **arrays)
    return cache


def symlink_loop(root: Path) -> None:
    """A link inside the folder that leads back to it."""
    os.symlink(root, root / "loop", target_is_directory=True)


def photo_cache(cache: Path, *, train: int = 960, test: int = 200) -> Path:
    """The same kind of cache filled with real pictures: patches of the two photographs that scikit-learn carries."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        patches, labels = [], np.arange(count, dtype=np.int64) % 2
        for label in labels:
            photograph, side = photographs[label], int(rng.integers(48, 96))
            x, y = (int(rng.integers(0, extent - side)) for extent in photograph.size)
            patches.append(np.asarray(photograph.crop((x, y, x + side, y + side)).resize((32, 32))))
        arrays |= {f"{split}_pixels": np.stack(patches), f"{split}_labels": labels}
    return _cached(cache, arrays)
