"""Large photos decoded once: kept below the cache folder as JPEGs of the size that the views need.

What the pixels are depends on the file and on `side` alone. A photo is decoded, brought to a short side of `side`,
written as a JPEG in memory and read from that, the first time and every other, whether its bytes could be kept or not:
so a run that was killed, or whose disk was full, ends as the unbroken one.

Every process appends to a pack of its own: first the photo, then, in the `.index` beside it, a record with its
checksum. None waits for another, and a kill at any moment leaves bytes that nothing points to. What does not match its
checksum is decoded anew. The store of features (features/store.py) has one writer, rows in order and a known length;
here many processes write in any order. Packs are read by offset, as shards are, and not mapped into memory: a mapped
file that is cut short kills its reader.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import struct
import tempfile
import time
import uuid
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from simsiam.config import cache_folder
from simsiam.data import content
from simsiam.data.images import UnreadableImage, header, read_image
from simsiam.wording import counted

SIDES = (96, 192, 320, 640, 1280)  # few, so that views and measurements of one size share a photo
MARGIN = 1.1  # of the kept side over the side that suffices
MUCH_LARGER = 2  # how many times the kept side photos must have to be worth keeping
SHARE = 0.25  # of the free disk that all kept photos may take
LAYOUT = 1  # of what is kept: a new one never reads an old one's
SAMPLED = 32  # files whose headers tell how large the photos of a set are
_WEIGHED = 4  # of them, that are decoded to tell how much disk they will take
_QUALITY, _HALF_COLOUR = 95, 2  # of JPEG; colours at half the resolution, as cameras store them
_RECORD = struct.Struct("<16sQI16s")  # key, place and bytes in the pack, checksum over key and photo


class KeptPhotos:
    """The photos kept at one short side, for a source's `read`; the same object serves every process of a run."""

    def __init__(self, folder: Path, side: int, *, writes: bool = True) -> None:
        self.folder, self.side = folder, side
        self.note: str | None = None  # why nothing more is kept, for the main process to say
        self._writes = writes
        self._found: dict[bytes, tuple[str, int, int, bytes]] = {}  # by key: pack, place, bytes, checksum
        self._indexed: dict[str, int] = {}  # bytes of each index that were taken in
        self._taken = 0  # bytes of all packs
        self._pack = (0, "")  # this process's number and its pack

    def read(self, file: Path, *, name: str) -> Image.Image:
        """A file as 8-bit RGB: one of a short side of `side` or more at just that side, a smaller one as it is.

        Raises UnreadableImage as `read_image` does.
        """
        stamp = _stamp(file)
        key = content.digest(f"{LAYOUT} {PIL.__version__} {self.side} {stamp}".encode("utf-8", "surrogateescape"))
        photo = self._kept(key)
        if photo is None:
            image = read_image(file, name=name, short_side=self.side)
            if min(image.size) < self.side:
                return image
            photo = reduced(image, self.side)
            if self._writes and stamp is not None and stamp == _stamp(file):
                self._keep(key, photo)
        return read_image(photo, name=name)

    def _kept(self, key: bytes) -> bytes | None:
        """The bytes under a key, if there are any and they are whole."""
        if key not in self._found:
            self._look()
        if key not in self._found:
            return None
        pack, place, length, checksum = self._found[key]
        with suppress(OSError), open(self.folder / pack, "rb") as opened:
            if place + length <= os.fstat(opened.fileno()).st_size:
                opened.seek(place)
                photo = opened.read(length)
                if content.digest(key + photo) == checksum:
                    return photo
        del self._found[key]
        return None

    def _look(self) -> None:
        """Take in what this and other processes have kept meanwhile; of two photos under one key, the later."""
        try:
            files = [(each.stat(), each.name) for each in os.scandir(self.folder)]
        except OSError:
            return
        self._taken = sum(status.st_size for status, _ in files)
        for status, name in sorted(files, key=lambda each: each[0].st_mtime_ns):
            start = self._indexed.get(name, 0)
            if not name.endswith(".index") or status.st_size < start + _RECORD.size:
                continue
            with suppress(OSError), open(self.folder / name, "rb") as opened:
                opened.seek(start)
                records = opened.read()
                whole = len(records) // _RECORD.size * _RECORD.size  # the last may be on its way
                self._indexed[name] = start + whole
                for key, *where in _RECORD.iter_unpack(records[:whole]):
                    self._found[key] = (f"{name[: -len('.index')]}.pack", *where)

    def _keep(self, key: bytes, photo: bytes) -> None:
        """Append a photo and then its record; where that fails, keep no more and note why."""
        try:
            free = shutil.disk_usage(self.folder).free
            if self._taken + len(photo) > SHARE * (free + self._taken):
                self._stop(f"they may take {SHARE:.0%} of the free disk, and have it")
                return
            if self._pack[0] != os.getpid():  # in the first photo of a process, which may be a fork of one that wrote
                self._pack = os.getpid(), uuid.uuid4().hex
            pack = self.folder / self._pack[1]
            with open(f"{pack}.pack", "ab") as opened:
                place = opened.seek(0, os.SEEK_END)
                opened.write(photo)
            with open(f"{pack}.index", "ab") as opened:
                opened.write(_RECORD.pack(key, place, len(photo), content.digest(key + photo)))
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _stop(self, why: str) -> None:
        self._writes = False
        self.note = f"note: no more decoded photos are kept in {self.folder}: {why}; each of the others is decoded anew"


def reduced(image: Image.Image, side: int) -> bytes:
    """An image as JPEG at a short side of `side` pixels."""
    scale = side / min(image.size)
    width, height = (max(side, round(each * scale)) for each in image.size)
    photo = io.BytesIO()
    smaller = image.resize((width, height), Image.Resampling.BICUBIC)
    smaller.save(photo, "JPEG", quality=_QUALITY, subsampling=_HALF_COLOUR)
    return photo.getvalue()


def kept_side(needed: int) -> int | None:
    """The short side in pixels to keep photos at where `needed` suffice; None where no side of ours is enough."""
    return next((side for side in SIDES if side >= MARGIN * needed), None)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whether the photos of a set are kept, and what is to be said of it."""

    photos: KeptPhotos | None
    notes: tuple[str, ...] = ()


def choose(files: Sequence[str], *, needed: int, cache: Path | None) -> Choice:
    """Keep the photos of a set where those of a sample are much larger than what `needed` pixels call for.

    Args:
        files: of all photos; none for a set that does not lie in files of its own.
        needed: pixels of the short side that suffice.
        cache: the cache folder; None: the usual one.
    """
    side = kept_side(needed)
    if side is None or not files:
        return Choice(photos=None)
    sample = [Path(files[at]) for at in np.unique(np.linspace(0, len(files) - 1, SAMPLED).astype(int)).tolist()]
    sides = [each for each in map(_short_side, sample) if each]
    typical = int(np.median(sides)) if sides else 0
    if typical < MUCH_LARGER * side:
        return Choice(photos=None)
    photos, why = opened(side, cache=cache)
    text = f"photos of {typical:,} px (the short side) where {needed:,} suffice: decoded once, at {side:,} px"
    if why is not None:
        return Choice(photos=photos, notes=(f"{text}, in every epoch: they cannot be kept in {photos.folder} ({why})",))
    return Choice(photos=photos, notes=(f"{text}, and kept {_place(photos, sample, len(files))}",))


def opened(side: int, *, cache: Path | None) -> tuple[KeptPhotos, str | None]:
    """The photos kept at a side, and why none can be added, or None."""
    folder = cache_folder(cache) / "decoded-photos"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return KeptPhotos(folder, side), None
    except OSError as error:
        return KeptPhotos(folder, side, writes=False), error.strerror or str(error)


def _place(photos: KeptPhotos, sample: Sequence[Path], total: int) -> str:
    """Where they are kept and what that takes, with the limit where it counts."""
    weights = []
    for file in sample:
        with suppress(UnreadableImage):
            image = read_image(file, name=str(file), short_side=photos.side)
            weights += [len(reduced(image, photos.side))] if min(image.size) >= photos.side else []
        if len(weights) == _WEIGHED:
            break
    each = sum(weights) / len(weights) if weights else photos.side**2
    photos._look()
    room = max(0.0, SHARE * (shutil.disk_usage(photos.folder).free + photos._taken) - photos._taken)
    fit = math.floor(room / each)
    limit = f", of which {fit:,} still fit into a quarter of the free disk" if fit < total else ""
    size = math.ceil(total * each / 1e6)
    return (
        f"in {photos.folder}, about {size:,} MB for {counted(total, 'photo')}{limit}; filled in the first epoch "
        "(--photo-cache off: each is decoded anew every time)"
    )


def _short_side(file: Path) -> int:
    """Pixels of a file's short side by its header; 0 where it has none."""
    with warnings.catch_warnings(), suppress(Exception):  # a file that cannot be read is reported when its turn comes
        warnings.simplefilter("ignore")
        return min(header(file).stored)
    return 0


def _stamp(file: Path) -> str | None:
    """Path, size and time of change; None for a file so young that it may change again unnoticed."""
    with suppress(OSError):
        status = file.stat()
        if abs(time.time() - status.st_mtime_ns / 1e9) > content.SETTLED:  # a camera's clock may be ahead
            return f"{os.path.abspath(file)}\0{status.st_size}\0{status.st_mtime_ns}"
    return None
