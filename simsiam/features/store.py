"""The one store of features: computed once for each backbone, content of images and setting, kept in files.

A folder below the cache holds one set: `NAME.npy` for each layer, `indices.npy`, and `state.json`, which says how many
images are done, with a digest of their rows, and at the end that of every file. An interrupted extraction resumes from
there, and a second protocol on the same features reads them. What does not match its digest is computed again; where
nothing can be kept, the features stay in memory and a note says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simsiam import locks
from simsiam.config import Machine, as_dict, cache_folder, loader_workers
from simsiam.data.classification.loader import AugmentedCopy, augmented_copy
from simsiam.data.images import BadImage
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source
from simsiam.engine import precision as number_format
from simsiam.engine.distributed import pick_device
from simsiam.engine.logs import share_bar
from simsiam.engine.precision import Precision
from simsiam.engine.stopping import Interrupted, StopAsked, stop_requests
from simsiam.errors import UserError
from simsiam.features.extraction import Block, Features, Layers, Pooling, Storage, stream
from simsiam.results import file_digest, write_json
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

LAYOUT = 2  # of the files; a new layout never reads an old one's
DIGESTED = 4096  # rows that are read at a time for a digest
SAVE_SECONDS = 30.0  # work that an interruption may cost
IN_MEMORY = 0.5  # of the machine's memory, that features may take where they cannot be kept in files


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """All that the features of a source depend on, besides the backbone."""

    preprocess: Preprocess | AugmentedCopy
    layers: Layers
    pooling: Pooling
    precision: Precision
    storage: Storage
    batch_size: int  # images in a forward pass

    @property
    def decoded_side(self) -> int:
        """Pixels of an image's short side that suffice."""
        how = self.preprocess
        return how.augmenter.decoded_side if isinstance(how, AugmentedCopy) else how.decoded_side


class _NotKept(Exception):
    """Files cannot be written; the message says why."""


def features_of(subject: PretrainedBackbone, source: Source, extraction: Extraction, *, machine: Machine) -> Features:
    """Features of every readable image of the source, from the files or computed into them.

    Raises UserError if no image can be read, or if the features can neither be kept in files nor held in memory.
    """
    facts = _facts(subject, source, extraction)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_folder(machine.cache) / "features" / key
    table = _Table.finished(folder, len(source))
    if table is None:
        try:
            with _alone_in(folder):
                table = _Table.finished(folder, len(source)) or _Table.resumed(folder, len(source))
                if table.images < len(source):
                    with _keeping(folder):
                        write_json(folder / "facts.json", facts)
                    _compute(table, subject, source, extraction, machine)
        except _NotKept as error:
            print(f"note: the features are not kept for the next command: {error}", file=sys.stderr)
            table = _Table(None, len(source))
            _compute(table, subject, source, extraction, machine)
    return table.features(source)


def _facts(subject: PretrainedBackbone, source: Source, extraction: Extraction) -> dict[str, Any]:
    settings = as_dict(extraction)
    del settings["batch_size"]  # it moves a feature by rounding alone
    if not source.published and source.pixels is None:
        settings["decoded_side"] = extraction.decoded_side
    return {
        "layout": LAYOUT,
        "weights": subject.weights.sha256,
        "backbone": subject.backbone.name,
        "content": source.content(),
        "images": len(source),
        **settings,
    }


def _compute(
    table: _Table, subject: PretrainedBackbone, source: Source, extraction: Extraction, machine: Machine
) -> None:
    device = pick_device(machine.device)
    number_format.prepare(extraction.precision, device)
    backbone = subject.backbone.to(device)
    workers = loader_workers(machine)
    batch, how = extraction.batch_size, extraction.preprocess
    if isinstance(how, AugmentedCopy):
        todo: dict[str, Any] = {"first": table.images, "batch_size": batch}
        batches: Iterator[Any] = augmented_copy(source, how, device=device, workers=workers, **todo)
    else:
        left = np.arange(table.images, len(source))
        workers = workers if source.pixels is None else 0
        batches = image_batches(source, how, batch_size=batch, device=device, workers=workers, indices=left)
    blocks = stream(
        backbone,
        batches,
        layers=extraction.layers,
        pooling=extraction.pooling,
        precision=extraction.precision,
        storage=extraction.storage,
    )
    with share_bar(f"features of {source.name}") as show, stop_requests() as request:
        try:
            for block in blocks:
                table.append(block, min(batch, len(source) - table.images))
                show(table.images / table.total)
        except StopAsked:
            table.save()
            kept = table.images if table.folder is not None else 0
            saved = f"the features of {kept:,} of {table.total:,} images"
            raise Interrupted(request.signal_number, saved) from None


class _Table:
    """Rows under way, in the files of a folder or, without one, in memory."""

    def __init__(self, folder: Path | None, total: int) -> None:
        self.folder, self.total = folder, total
        self.images = 0  # of the source that are done, unreadable ones included
        self.rows = 0  # written
        self.arrays: dict[str, np.ndarray] = {}  # by layer, and `indices`
        self.digests: dict[str, Any] = defaultdict(hashlib.sha256)  # of each array's rows so far
        self.reasons: list[str] = []  # why an image could not be read, in the source's order
        self.notes: list[str] = []
        self._saved = time.monotonic()

    @staticmethod
    def finished(folder: Path, total: int) -> _Table | None:
        """The rows of a folder where all are there and each file is as it was written, else None."""
        return _Table._read(folder, total, mode="r")

    @staticmethod
    def resumed(folder: Path, total: int) -> _Table:
        """The rows of a folder that are there, or an empty table in place of files that are damaged."""
        table = _Table._read(folder, total, mode="r+")
        if table is None:
            with _keeping(folder):
                for file in folder.glob("*.npy"):
                    file.unlink()  # not cut to nothing: another process may still read it
                (folder / "state.json").unlink(missing_ok=True)
            table = _Table(folder, total)
        return table

    @staticmethod
    def _read(folder: Path, total: int, *, mode: Literal["r", "r+"]) -> _Table | None:
        """All rows ("r") or the first of them ("r+"), as they were left, else None."""
        table = _Table(folder, total)
        try:
            raw = json.loads((folder / "state.json").read_text())
            table.images, table.rows = int(raw["images"]), int(raw["rows"])
            table.reasons, table.notes = list(raw["reasons"]), list(raw["notes"])
            if (table.images == total) != (mode == "r"):
                return None
            for name, sha256 in raw["files"].items():
                path = folder / f"{name}.npy"
                table.arrays[name] = np.load(path, mmap_mode=mode)
                if len(table.arrays[name]) != total or not table._as_left(name, path, sha256):
                    return None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged
            return None
        return table if table.rows + len(table.reasons) == table.images <= total else None

    def _as_left(self, name: str, path: Path, sha256: str) -> bool:
        """Whether an array is what it was when its digest was taken: of the file where all rows are there."""
        if self.images == self.total:
            return file_digest(path) == sha256
        for first in range(0, self.rows, DIGESTED):
            self.digests[name].update(self.arrays[name][first : min(first + DIGESTED, self.rows)].tobytes())
        return bool(self.digests[name].hexdigest() == sha256)

    def append(self, block: Block, images: int) -> None:
        """Take in the rows of the next `images` images of the source."""
        if block.arrays and not self.arrays:
            self.arrays = self._new(block)
        for name, rows in {**block.arrays, "indices": block.indices}.items():
            if block.arrays:
                self.arrays[name][self.rows : self.rows + len(rows)] = rows
                self.digests[name].update(self.arrays[name][self.rows : self.rows + len(rows)].tobytes())
        self.rows += len(block.indices)
        self.images += images
        self.reasons += [bad.reason for bad in block.bad]
        self.notes = block.notes or self.notes
        if self.images == self.total or time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def features(self, source: Source) -> Features:
        """The rows as they are handed out; raises UserError if there is none."""
        indices = np.array(self.arrays["indices"][: self.rows]) if self.rows else np.zeros(0, np.int64)
        unread = np.setdiff1d(np.arange(self.total), indices).tolist()
        bad = [BadImage(path=source.path(at), reason=why) for at, why in zip(unread, self.reasons, strict=True)]
        if not self.rows:
            first = f" (first: {bad[0].path}: {bad[0].reason})" if bad else ""
            raise UserError(f"{source.name}: none of the {counted(self.total, 'image')} could be read{first}.")
        arrays = {name: rows[: self.rows] for name, rows in self.arrays.items() if name != "indices"}
        for rows in arrays.values():
            rows.flags.writeable = False
        return Features(arrays=arrays, indices=indices, bad=bad, notes=self.notes)

    def _new(self, block: Block) -> dict[str, np.ndarray]:
        """Arrays for all rows; in files, the space is reserved: written later, a full disk would kill the process."""
        shapes = {name: ((self.total, rows.shape[1]), rows.dtype) for name, rows in block.arrays.items()}
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            **shapes,
            "indices": ((self.total,), np.dtype("i8")),
        }
        size = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in wanted.values())
        if self.folder is None:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if size > IN_MEMORY * memory:
                raise UserError(
                    f"the features take {size / 1e9:.1f} GB, too much for this machine's memory. Name a cache with "
                    "that much free space with --cache."
                )
            return {name: np.empty(shape, dtype) for name, (shape, dtype) in wanted.items()}
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise _NotKept(f"{self.folder}: they take {size / 1e6:,.2f} MB and {free / 1e6:,.2f} MB are free")
        with _keeping(self.folder):
            return {name: _reserved(self.folder / f"{name}.npy", *each) for name, each in wanted.items()}

    def save(self) -> None:
        """First the rows, then the statement that they are there."""
        self._saved = time.monotonic()
        if self.folder is None:
            return
        for file in self.arrays.values():
            assert isinstance(file, np.memmap)
            file.flush()
        whole = self.images == self.total
        paths = {name: self.folder / f"{name}.npy" for name in self.arrays}
        files = {name: file_digest(path) if whole else self.digests[name].hexdigest() for name, path in paths.items()}
        state = {"images": self.images, "rows": self.rows, "reasons": self.reasons, "notes": self.notes, "files": files}
        try:
            write_json(self.folder / "state.json", state)
        except OSError as error:  # the rows are there for this command
            print(f"note: {self.folder}: the features are not kept ({error.strerror})", file=sys.stderr)


def _reserved(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NotKept(f"{folder} cannot be written ({error.strerror or error})") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, while this process and no other writes there."""
    with ExitStack() as held:
        with _keeping(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.held(folder / ".lock"))
        yield
