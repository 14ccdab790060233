"""Sets too large for a folder: tar shards in the WebDataset layout (samples are members that share a basename)."""

from __future__ import annotations

import copy
import glob
import os
import re
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.class_names import numbered_ids
from simsiam.data.images import UnreadableImage, is_image, read_image, watched
from simsiam.data.inventory import Inventory, LeftOut, other_files
from simsiam.data.shard_index import ShardIndex, load_or_build
from simsiam.data.source import Source
from simsiam.errors import UserError
from simsiam.wording import counted, plural

WINDOW = 16_384  # samples shuffled together: some two ImageNet shards, so a pass reads each shard about once
_OPEN_FILES = 8


class ShardSource(Source):
    """Images in tar shards, read by offset and decoded one by one; nothing is unpacked.

    `data` is a folder of tars, one tar, a glob, or a brace pattern such as train-{000000..000146}.tar. The offsets
    come from an index made by one pass over the headers and kept beside the shards (in `cache` where the folder is
    read-only). `shards` are the files where they are known.
    Raises UserError for a missing, compressed or truncated shard.
    """

    def __init__(
        self,
        data: str | Path,
        *,
        shards: list[Path] | None = None,
        cache: Path | None = None,
        window: int = WINDOW,
    ) -> None:
        self.shards = find_shards(str(data)) if shards is None else shards
        self.name = _set_name(str(data))
        self.window = window
        self._index: ShardIndex = load_or_build(self.shards, cache=cache)
        if len(self) == 0:
            raise UserError(
                f"{data}: {counted(len(self.shards), 'shard')}, but no image in "
                f"{plural(len(self.shards), 'it', 'them')} (members found: {_kinds(self._index.left_out)})."
            )
        beside = Path(data) if shards is None and os.path.isdir(data) else None
        self._inventory = self._account(0 if beside is None else sum(is_image(path.name) for path in beside.iterdir()))
        classes, labels = numbered_ids(self._index.labels)
        self.labels, self.classes = (labels, classes) if classes else (None, None)
        self._open: OrderedDict[int, int] = OrderedDict()  # file descriptors by shard

    def _account(self, loose: int) -> Inventory:
        """Members that are not used, and images that lie beside the shards."""
        second = self._index.left_out.get("", 0)
        left = other_files({kind: n for kind, n in self._index.left_out.items() if kind}, what="other member")
        if second:
            left += (LeftOut(what="image", count=second, reason="beside the plain image of the same sample"),)
        if loose:
            reason = "they lie beside the tar shards; move either to a folder of its own"
            left += (LeftOut(what="image", count=loose, reason=reason),)
        return Inventory(found=len(self) + second + loose, used=len(self), left_out=left)

    def __len__(self) -> int:
        return len(self._index.offsets)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UnreadableImage."""
        name = self.path(index)
        try:
            return read_image(self._bytes(index), name=name, short_side=self.short_side)
        except OSError as error:
            raise UnreadableImage(name, f"the shard cannot be read ({error.strerror})") from error

    def path(self, index: int) -> str:
        """Shard and member, as train-000003.tar/n01440764_10026.jpg."""
        return f"{self.shards[int(self._index.shards[index])].name}/{self._index.member(index)}"

    def digests(self) -> np.ndarray:
        """Digests of the members' bytes, N x 16 uint8: read once, then known by the shards' sizes and times."""
        reader = copy.copy(self)  # with open files of its own: a thread in the background may ask
        members = (reader._bytes(index) for index in range(len(self)))
        return content.kept(
            [str(shard) for shard in self.shards],
            lambda: content.as_array(
                content.digest(each) for each in watched(members, len(self), "reading the shards")
            ),
        )

    def stamp(self) -> str:
        """By the shards' names, sizes and times."""
        return content.stamp([str(shard) for shard in self.shards], [shard.name for shard in self.shards])

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """Shards in random order, then samples at random inside windows of that sequence.

        So the reading moves over the shards once, whatever the number of processes, and remembers no image.
        """
        random = np.random.default_rng([seed, epoch, 2])
        first = np.searchsorted(self._index.shards, np.arange(len(self.shards) + 1))
        parts = [np.arange(first[shard], first[shard + 1]) for shard in random.permutation(len(self.shards))]
        sequence = np.concatenate(parts)
        for start in range(0, len(sequence), self.window):
            random.shuffle(sequence[start : start + self.window])
        return sequence

    def close(self) -> None:
        """Close the shards that are open; a later read opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files do not travel to a worker

    def _bytes(self, index: int) -> bytes:
        shard = self._descriptor(int(self._index.shards[index]))
        return os.pread(shard, int(self._index.sizes[index]), int(self._index.offsets[index]))

    def _descriptor(self, number: int) -> int:
        """The shard, opened; the few used last stay open, as a window's samples share them."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        descriptor = os.open(self.shards[number], os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):  # the whole shard is about to be read: let the system fetch it in sequence
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        self._open[number] = descriptor
        if len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


def find_shards(data: str) -> list[Path]:
    """The tar files that a folder, a file, a glob or a brace pattern names, sorted; raises UserError if none."""
    if os.path.isfile(data):
        return [Path(data)]
    if os.path.isdir(data):
        found = sorted(Path(data).glob("*.tar"))
        if not found:
            packed = sorted(Path(data).glob("*.tar.*")) + sorted(Path(data).glob("*.tgz"))
            hint = f" ({packed[0].name} is compressed: decompress it first)" if packed else ""
            raise UserError(f"{data}: no .tar shard in the folder{hint}.")
        return found
    patterns = _braces(data)
    found = sorted({Path(path) for pattern in patterns for path in (glob.glob(pattern) or _literal(pattern))})
    missing = [path for path in found if not path.is_file()]
    if not found or missing:
        first = missing[0] if missing else data
        raise UserError(
            f"{data}: {counted(len(missing), 'shard') + ' missing' if missing else 'no shards found'}: {first}."
        )
    return found


def _kinds(members: dict[str, int]) -> str:
    return ", ".join(each.reason for each in other_files(members)) or "none but labels and descriptions"


def _braces(pattern: str) -> list[str]:
    """Spell out {000000..000146} and {a,b}."""
    pieces = re.split(r"(\{[^{}]*\})", pattern)
    choices: list[list[str]] = []
    for piece in pieces:
        span = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece)
        if span:
            digits = len(span[1])
            choices.append([f"{number:0{digits}d}" for number in range(int(span[1]), int(span[2]) + 1)])
        elif piece.startswith("{") and piece.endswith("}") and "," in piece:
            choices.append(piece[1:-1].split(","))
        else:
            choices.append([piece])
    return ["".join(parts) for parts in product(*choices)]


def _literal(pattern: str) -> list[str]:
    return [] if glob.has_magic(pattern) else [pattern]


def _set_name(data: str) -> str:
    plain = re.sub(r"[{*?\[].*$", "", data).rstrip("-_. ")
    return Path(plain).name.removesuffix(".tar") or "shards"
