"""Features kept in memory-mapped files, computed once for each backbone, data set and setting.

A folder below the cache holds one set: `NAME.npy` for each layer, `indices.npy`, and `state.json`, which says how many
images are done. An interrupted extraction goes on from there; a second protocol on the same features reads them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from simsiam.config import Machine, as_dict, loader_workers
from simsiam.data.download import only_one_process
from simsiam.data.images import BadImage
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source, cache_folder
from simsiam.engine import precision as number_format
from simsiam.engine.distributed import pick_device
from simsiam.engine.precision import Precision
from simsiam.errors import UserError
from simsiam.features.extraction import Block, Features, Layers, Pooling, Storage, stream
from simsiam.results import write_json
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

LAYOUT = 1  # of the files; a new layout never reads an old one's
SAVE_SECONDS = 30.0  # work that an interruption may cost


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """All that the features of a source depend on, besides the backbone."""

    preprocess: Preprocess
    layers: Layers
    pooling: Pooling
    precision: Precision
    storage: Storage
    batch_size: int  # images in a forward pass


@dataclass
class _State:
    images: int = 0  # of the source that are done, unreadable ones included
    rows: int = 0  # written
    bad: list[BadImage] | None = None
    notes: list[str] | None = None


def features_of(subject: PretrainedBackbone, source: Source, extraction: Extraction, *, machine: Machine) -> Features:
    """Features of every readable image of the source, from the files or computed into them.

    Raises UserError if no image can be read, or if the cache cannot be written.
    """
    facts = _facts(subject, source, extraction)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_folder(machine.cache) / "features" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one_process(folder / ".lock"):
            state = _read_state(folder, len(source))
            if state.images < len(source):
                write_json(folder / "facts.json", facts)
                _compute(folder, state, subject, source, extraction, machine)
            return _open(folder, source)
    except OSError as error:
        raise UserError(
            f"{folder}: features cannot be kept there ({error.strerror or error}). Free some space, or name another "
            "cache with --cache."
        ) from error


def _facts(subject: PretrainedBackbone, source: Source, extraction: Extraction) -> dict[str, Any]:
    settings = as_dict(extraction)
    del settings["batch_size"]  # it moves a feature by rounding alone
    return {
        "layout": LAYOUT,
        "weights": subject.weights.sha256,
        "backbone": subject.backbone.name,
        "data": source.fingerprint(),
        "images": len(source),
        **settings,
    }


def _compute(
    folder: Path, state: _State, subject: PretrainedBackbone, source: Source, extraction: Extraction, machine: Machine
) -> None:
    device = pick_device(machine.device)
    number_format.prepare(extraction.precision, device)
    backbone = subject.backbone.to(device)
    batches = image_batches(
        source,
        extraction.preprocess,
        batch_size=extraction.batch_size,
        device=device,
        workers=loader_workers(machine) if source.pixels is None else 0,
        indices=np.arange(state.images, len(source)),
    )
    blocks = stream(
        backbone,
        batches,
        layers=extraction.layers,
        pooling=extraction.pooling,
        precision=extraction.precision,
        storage=extraction.storage,
    )
    files: dict[str, np.ndarray] = {}
    saved = time.monotonic()
    with _progress() as bar:
        task = bar.add_task(f"features of {source.name}", total=len(source), completed=state.images)
        for block in blocks:
            if block.arrays and not files:
                files = _writable(folder, block, len(source), fresh=state.rows == 0)
            _append(files, state, block)
            state.images += min(extraction.batch_size, len(source) - state.images)
            bar.update(task, completed=state.images)
            if state.images == len(source) or time.monotonic() - saved > SAVE_SECONDS:
                _save(folder, files, state)
                saved = time.monotonic()


def _append(files: dict[str, np.ndarray], state: _State, block: Block) -> None:
    place = slice(state.rows, state.rows + len(block.indices))
    for name, rows in block.arrays.items():
        files[name][place] = rows
    if block.arrays:
        files["indices"][place] = block.indices
    state.rows += len(block.indices)
    state.bad = [*(state.bad or []), *block.bad]
    state.notes = block.notes


def _writable(folder: Path, block: Block, images: int, *, fresh: bool) -> dict[str, np.ndarray]:
    """The memory-mapped files, made anew or, to go on with an interrupted extraction, opened."""
    shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        name: ((images, rows.shape[1]), rows.dtype) for name, rows in block.arrays.items()
    }
    shapes["indices"] = ((images,), np.dtype(np.int64))
    if not fresh:
        return {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in shapes}
    needed = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the features take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Free some space, or "
            "name another cache with --cache."
        )
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in shapes.items()
    }


def _save(folder: Path, files: dict[str, np.ndarray], state: _State) -> None:
    """First the rows, then the word that they are there."""
    for file in files.values():
        assert isinstance(file, np.memmap)
        file.flush()
    layers = [name for name in files if name != "indices"]
    if state.rows and not layers:  # this part of the source held no readable image
        layers = _read_json(folder)["layers"]
    bad = [{"path": each.path, "reason": each.reason} for each in state.bad or []]
    write_json(
        folder / "state.json",
        {"images": state.images, "rows": state.rows, "layers": layers, "bad": bad, "notes": state.notes or []},
    )


def _read_state(folder: Path, images: int) -> _State:
    """How far the files are; from nothing if they are damaged."""
    raw = _read_json(folder)
    if not raw or raw["images"] > images:
        return _State()
    try:
        for name in [*raw["layers"], "indices"] if raw["rows"] else []:
            np.load(folder / f"{name}.npy", mmap_mode="r")
    except (OSError, ValueError):  # deleted or cut short
        return _State()
    bad = [BadImage(path=each["path"], reason=each["reason"]) for each in raw["bad"]]
    return _State(images=raw["images"], rows=raw["rows"], bad=bad, notes=raw["notes"])


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return raw if isinstance(raw, dict) and {"images", "rows", "layers", "bad", "notes"} <= raw.keys() else {}


def _open(folder: Path, source: Source) -> Features:
    state, raw = _read_state(folder, len(source)), _read_json(folder)
    if state.rows == 0:
        first = f" (first: {state.bad[0].path}: {state.bad[0].reason})" if state.bad else ""
        raise UserError(f"{source.name}: none of the {counted(len(source), 'image')} could be read{first}.")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r")[: state.rows] for name in raw["layers"]}
    indices = np.array(np.load(folder / "indices.npy", mmap_mode="r")[: state.rows])
    return Features(arrays=arrays, indices=indices, bad=state.bad or [], notes=state.notes or [])


@contextmanager
def _progress() -> Iterator[Progress]:
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        yield bar
