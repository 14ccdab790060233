"""Archives laid out as files in the cache: once, whole or not at all, and nowhere else on the disk."""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from simsiam import locks
from simsiam.data import content
from simsiam.data.find_images import visible
from simsiam.data.shard_index import has_end_mark
from simsiam.errors import UserError
from simsiam.sniff import sniff

SHARE = 0.5  # of the free disk, which one archive may fill
BLOCK = 4096  # bytes that the smallest file takes
_KINDS = ("zip", "tar", "gzip", "bzip2", "xz")
_NOTES = ".unpacked.json"
_PIECE = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


class Room:
    """The part of a disk's free space that may be filled; it protects against archives that grow without end."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder
        self._free = shutil.disk_usage(folder).free
        self._taken = 0

    def take(self, size: int) -> None:
        """Set a file's bytes aside; raises UserError where the share is used up."""
        self._taken += max(size, BLOCK)
        if self._taken > SHARE * self._free:
            raise UserError(
                f"{self._source}: unpacked it is larger than {SHARE:.0%} of the free disk at {self._folder} "
                f"({self._free / 1e9:.1f} GB free). Free some, name another --cache, or unpack it yourself."
            )


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A place as it was named, or the folder that its archive was unpacked into."""

    place: Path
    notes: tuple[str, ...] = ()


def opened(place: Path, *, cache: Path) -> Opened:
    """The folder that a zip or tar archive holds, unpacked into the cache by the first call; any other place itself.

    Links, devices and names that lead out of the folder are left out. Raises UserError for a damaged, encrypted or
    oversized archive, and where the cache cannot be written.
    """
    kind = sniff(place) if place.is_file() else None
    if kind is None or kind.name not in _KINDS:
        return Opened(place=place)
    folder = once(place.name.split(".")[0], [place], cache=cache, fill=lambda into, room: _unpack(place, into, room))
    notes = tuple(json.loads((folder / _NOTES).read_text(encoding="utf-8")))
    while len(inside := visible(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return Opened(place=folder, notes=(f"{place.name} was unpacked into {folder}", *notes))


def once(name: str, files: Sequence[Path], *, cache: Path, fill: Callable[[Path, Room], None]) -> Path:
    """A folder of the cache that `fill` makes of these very files (by name, size and time), if it is not there yet."""
    stamp = content.stamp([str(file) for file in files], [file.name for file in files])
    folder = cache / "unpacked" / f"{name}-{stamp[:12]}"
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(folder.with_name(f".{folder.name}.lock")):
            if folder.is_dir():  # another process made it meanwhile
                return folder
            shutil.rmtree(part, ignore_errors=True)  # what a killed process left
            part.mkdir()
            print(f"simsiam: unpacking {files[0]} into {folder}", file=sys.stderr, flush=True)
            try:
                room = Room(files[0], folder.parent)
                fill(part, room)
                os.rename(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        where = f"{folder.parent} ({error.strerror or error})"
        raise UserError(f"{files[0]}: cannot be unpacked into {where}. Name another folder by --cache.") from error
    return folder


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    size: int
    wrong: str  # why it is left out, or ""
    read: Callable[[], IO[bytes] | None]


def _unpack(archive: Path, folder: Path, room: Room) -> None:
    left_out: Counter[str] = Counter()
    kind = sniff(archive)
    members = _zip if kind is not None and kind.name == "zip" else _tar
    try:
        for member in members(archive):
            parts = [part for part in member.name.replace("\\", "/").split("/") if part not in ("", ".")]
            if not parts or any(part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in parts):
                continue
            outside = ".." in parts or member.name.startswith(("/", "\\")) or ":" in parts[0]
            if wrong := member.wrong or ("a name that leads out of the folder" if outside else ""):
                left_out[wrong] += 1
                continue
            room.take(member.size)
            if not _write(member, folder.joinpath(*parts)):
                left_out["a name that is there twice, or that no file can have"] += 1
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those of gzip and bzip2 have none
            raise
        what, why = str(kind).split(" (")[0], " ".join(str(error).split())[:200]
        raise UserError(f"{archive}: {what}, damaged or cut short ({why}). Fetch it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's words for encryption and unknown compression
        raise UserError(f"{archive}: {error}. Unpack it yourself and name the folder.") from error
    notes = [f"{count:,} of its members left out ({why})" for why, count in sorted(left_out.items())]
    (folder / _NOTES).write_text(json.dumps(notes), encoding="utf-8")


def _write(member: _Member, target: Path) -> bool:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=False)
    except ValueError:
        return False
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        return False
    content = member.read()
    if content is not None:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file, _PIECE)
    return True


def _zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for each in packed.infolist():
            kind = stat.S_IFMT(each.external_attr >> 16)
            if not each.is_dir():
                wrong = "links and devices" if kind not in (0, stat.S_IFREG) else ""
                yield _Member(name=each.filename, size=each.file_size, wrong=wrong, read=partial(packed.open, each))


def _tar(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as tar:
        for each in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
            if not each.isdir():
                wrong = "" if each.isreg() else "links and devices"
                yield _Member(name=each.name, size=each.size, wrong=wrong, read=partial(tar.extractfile, each))
        kind = sniff(archive)
        if kind is not None and kind.name == "tar" and not has_end_mark(archive, tar.offset):
            raise tarfile.ReadError("its end mark is missing")
