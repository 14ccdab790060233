"""What files hold: a digest of each, computed once and kept for as long as a cheap stamp of the files stays the same.

Two questions, kept apart. "Has a file changed since I looked?" is answered by the stamp: path, size and modification
time in nanoseconds; a run starts by it, and reads the content beside its first epoch. "Is this the same data as on
another machine?" is answered by the digests of the content, which do not depend on where the files lie or what they are
called.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from simsiam.config import cache_folder
from simsiam.data.images import watched
from simsiam.results import file_digest, write_atomic

DIGEST = 16  # bytes of an image's digest: a SHA-256 cut short, which no two different images share by chance
SETTLED = 0.1  # seconds: a file younger than this may change again within one tick of the file system's clock
_THREADS = 8
_known: dict[str, np.ndarray] = {}  # by stamp, of this process


def file_digests(files: Sequence[str]) -> np.ndarray:
    """A digest of every file's bytes, N x 16 uint8; of a file that cannot be read, a digest of its name."""

    def compute() -> np.ndarray:
        if (
            threading.current_thread().daemon
        ):  # in the background: without a pool, which the program's end would wait for
            return as_array(map(_file_digest, files))
        with ThreadPoolExecutor(_THREADS) as pool:
            found = watched(pool.map(_file_digest, files, chunksize=32), len(files), "reading the files once")
            return as_array(found)

    return kept(files, compute)


def kept(files: Sequence[str], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What `compute` made of these very files before, in this process or another, or makes now (N x 16 uint8)."""
    key, newest = _stamp(files)
    if key in _known:
        return _known[key]
    place = cache_folder(None) / "content" / f"{key[:32]}.npy"
    found = _read(place)
    if found is None:
        found = compute()
        if time.time() - newest > SETTLED:
            content = io.BytesIO()
            np.save(content, found)
            with suppress(OSError):  # a cache that cannot be written costs another reading, no more
                write_atomic(place, _sealed(content.getvalue()))
    if time.time() - newest > SETTLED:
        _known[key] = found
    return found


def stamp(files: Sequence[str], names: Sequence[str]) -> str:
    """A cheap word for what files hold: sha256 over their names in the set, their sizes and their times."""
    return _stamp(files, names)[0]


def digest(content: bytes) -> bytes:
    """The digest of an image's bytes."""
    return hashlib.sha256(content).digest()[:DIGEST]


def as_array(digests: Iterable[bytes]) -> np.ndarray:
    """Digests as one array, N x 16 uint8."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)


def repeated(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """N bool: which digests (N x 16) occur among others (M x 16)."""
    whole = np.dtype((np.void, DIGEST))
    one, other = (np.ascontiguousarray(each).view(whole).ravel() for each in (digests, among))
    return np.isin(one, other)


def _stamp(files: Sequence[str], names: Sequence[str] | None = None) -> tuple[str, float]:
    """sha256 over path (or name), size and modification time of every file, and the time of the newest in seconds."""
    whole, newest = hashlib.sha256(), 0
    for file, name in zip(files, names or map(os.path.abspath, files), strict=True):
        try:
            status = os.stat(file)
            size, changed = status.st_size, status.st_mtime_ns
        except OSError:
            size, changed = -1, 0
        newest = max(newest, changed)
        whole.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest(), newest / 1e9


def _file_digest(file: str) -> bytes:
    try:
        return bytes.fromhex(file_digest(file))[:DIGEST]
    except OSError:
        return digest(b"unreadable " + os.fsencode(os.path.basename(file)))


def _sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def _read(place: os.PathLike[str]) -> np.ndarray | None:
    """The digests of a file whose seal is whole, else None."""
    try:
        with open(place, "rb") as opened:
            raw = opened.read()
    except OSError:
        return None
    content = raw[:-32]
    if _sealed(content) != raw:
        return None
    found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return found
