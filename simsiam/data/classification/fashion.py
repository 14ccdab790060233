"""Fashion-MNIST (Xiao et al. 2017), or any set in MNIST's four files: 28 x 28 grey images, given as RGB."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from simsiam.data.source import ArraySource
from simsiam.errors import UserError
from simsiam.wording import counted

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts the files
PREFIXES = {"train": "train", "test": "t10k"}


def is_fashion(folder: Path) -> bool:
    """Whether the four files, packed or not, lie in a folder."""
    return _find(folder, "train-images-idx3-ubyte") is not None


def fashion_mnist(root: Path | None, *, cache: Path, split: str) -> ArraySource:
    """The training (60,000) or test (10,000) images.

    Without `root` they are looked for in `cache/fashion-mnist` and where Debian's package puts them. Raises UserError
    if a file is missing or is no MNIST file.
    """
    places = [root] if root is not None else [cache / "fashion-mnist", DEBIAN]
    folder = next((place for place in places if is_fashion(place)), None)
    if folder is None:
        raise UserError(
            f"Fashion-MNIST is not in {' or '.join(map(str, places))}. Install Debian's package dataset-fashion-mnist, "
            f"or put its four files (train-images-idx3-ubyte.gz and so on) into {places[0]}."
        )
    images = _read(folder, f"{PREFIXES[split]}-images-idx3-ubyte", dimensions=3)
    labels = _read(folder, f"{PREFIXES[split]}-labels-idx1-ubyte", dimensions=1).astype(np.int64)
    if len(images) != len(labels) or not len(labels):
        raise UserError(
            f"{folder}: {counted(len(images), f'{split} image')} but {counted(len(labels), 'label')}. Copy the files "
            "again."
        )
    names = CLASSES if labels.max() < len(CLASSES) else tuple(str(n) for n in range(int(labels.max()) + 1))
    colour = np.repeat(images[:, :, :, None], 3, axis=3)  # N x 28 x 28 x 3
    return ArraySource(colour, labels, name=f"fashion-mnist-{split}", classes=names)


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _read(folder: Path, name: str, *, dimensions: int) -> np.ndarray:
    """The array in an IDX file of unsigned bytes."""
    file = _find(folder, name)
    if file is None:
        raise UserError(f"{folder / name}: no such file, packed (.gz) or not. The set has four; copy them all.")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        zeros, kind, count, *shape = struct.unpack(f">HBB{dimensions}I", content[: 4 + 4 * dimensions])
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{file}: damaged ({error}). Copy it again.") from error
    if (zeros, kind, count) != (0, 8, dimensions) or values.size != int(np.prod(shape)):
        raise UserError(
            f"{file}: not an MNIST file of {counted(dimensions, 'dimension')}, or cut short. Copy it again."
        )
    return values.reshape(shape)
