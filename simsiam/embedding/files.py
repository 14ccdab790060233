"""Vectors as files for other programs: Parquet, npy with its paths beside it, or CSV; block by block, atomically.

A file appears under its name only when it is whole. Beside it lie `NAME.json` (weights, layer, scaling, pre-processing;
in Parquet the same is in the file's own metadata too) and, where images could not be read, `NAME.bad.csv`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from simsiam import claims
from simsiam.data.images import write_skipped
from simsiam.errors import UserError, install_extra
from simsiam.results import read_json, require_writable_file, write_json

if TYPE_CHECKING:
    from simsiam.embedding.vectors import Embedded

METADATA = b"simsiam"  # the key of the facts in a Parquet file
DIGITS = 9  # of a number in CSV: enough to give every float32 back


@dataclass(frozen=True, kw_only=True)
class Written:
    """What `write` left on the disk."""

    file: Path
    beside: list[Path]  # facts, paths, unreadable images


def check(file: Path) -> None:
    """Raise UserError if no file of this kind can be written here, before hours are spent on its rows."""
    if file.suffix not in _WRITERS:
        raise UserError(f"--out {file}: the name must end in {', '.join(_WRITERS)}.")
    if file.suffix == ".parquet":
        _pyarrow()
    require_writable_file(file)


def hold(file: Path, *, reads: Iterable[Path]) -> AbstractContextManager[None]:
    """Claim the names that `write` uses; raises UserError where one of them is in the way, see `claims.claim`."""
    facts = _beside(file)[0]
    known: Any = None
    with suppress(UserError):
        known = read_json(facts)
    return claims.claim(
        file.parent,
        command=f"embed {file.name}",
        makes=[each.name for each in (file, *_beside(file))],
        inputs=reads,
        adopt=isinstance(known, dict) and {"weights_sha256", "settings"} <= known.keys(),
    )


def _beside(file: Path) -> tuple[Path, Path, Path]:
    """Facts, unreadable images and, for npy, the path of every row."""
    return file.with_suffix(".json"), file.with_suffix(".bad.csv"), file.with_suffix(".paths.csv")


def write(embedded: Embedded, file: Path, *, progress: Callable[[float], None] = lambda share: None) -> Written:
    """Write the vectors in the form that the file's name ends in.

    Rows are the readable images in the source's order; each carries its path and, where known, its class. `progress`
    is called with the share of rows written so far, 0 to 1.
    """
    check(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts, bad, paths = _beside(file)
    beside = [facts]
    _refuse_shared(file, facts, embedded.facts)
    try:
        write_json(facts, embedded.facts)
        if embedded.bad:
            write_skipped(bad, embedded.bad)
            beside.append(bad)
        if file.suffix == ".npy":
            with _whole(paths) as part, open(part, "w", newline="", **_TEXT) as text:
                _write_paths(embedded, text)
            beside.append(paths)
        with _whole(file) as part:
            _WRITERS[file.suffix](embedded, _told(embedded, progress), part)
    except OSError as error:
        raise UserError(
            f"--out {file}: cannot be written ({error.strerror or error}). Free some space there."
        ) from error
    return Written(file=file, beside=beside)


def _refuse_shared(file: Path, facts: Path, made: Mapping[str, Any]) -> None:
    """Raise UserError where the facts beside the file are those of vectors in another form, of other weights, say."""
    others = [other for ending in _WRITERS if (other := file.with_suffix(ending)) != file and other.exists()]
    if others and facts.exists() and read_json(facts) != json.loads(json.dumps(made)):
        raise UserError(
            f"--out {file}: {facts.name} beside it describes {others[0].name}, which other weights, settings or images "
            "gave. Give another name."
        )


def has_labels(embedded: Embedded) -> bool:
    """Whether the source knows a class of any image."""
    return embedded.source.labels is not None


_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A name to write under, which becomes `file` if nothing went wrong and vanishes if something did."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _told(embedded: Embedded, progress: Callable[[float], None]) -> Iterator[np.ndarray]:
    done = 0
    for block in embedded.blocks():
        yield block
        done += len(block)
        progress(done / len(embedded))


def _write_paths(embedded: Embedded, text: IO[str]) -> None:
    rows = csv.writer(text, lineterminator="\n")
    labelled = has_labels(embedded)
    rows.writerow(["row", "path", *(["label"] if labelled else [])])
    for row in range(len(embedded)):
        rows.writerow([row, embedded.path(row), *([embedded.label(row) or ""] if labelled else [])])


def _write_npy(embedded: Embedded, blocks: Iterator[np.ndarray], part: Path) -> None:
    shape = (len(embedded), embedded.channels)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    with open(part, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).data)


def _write_csv(embedded: Embedded, blocks: Iterator[np.ndarray], part: Path) -> None:
    labelled = has_labels(embedded)
    with open(part, "w", newline="", **_TEXT) as text:
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", *(["label"] if labelled else []), *(f"f{n}" for n in range(embedded.channels))])
        row = 0
        for block in blocks:
            for vector in block:
                label = [embedded.label(row) or ""] if labelled else []
                rows.writerow([embedded.path(row), *label, *(f"{number:.{DIGITS}g}" for number in vector.tolist())])
                row += 1


def _write_parquet(embedded: Embedded, blocks: Iterator[np.ndarray], part: Path) -> None:
    arrow, parquet = _pyarrow()
    vector = arrow.list_(arrow.float32(), embedded.channels)
    fields = [("path", arrow.string()), ("embedding", vector)]
    labelled = has_labels(embedded)
    if labelled:
        fields.insert(1, ("label", arrow.string()))
    schema = arrow.schema(fields, metadata={METADATA: json.dumps(embedded.facts)})
    with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        row = 0
        for block in blocks:
            span = range(row, row + len(block))
            numbers = arrow.array(np.ascontiguousarray(block).reshape(-1), arrow.float32())
            columns = [  # an odd byte in a path becomes a mark: Parquet takes nothing but UTF-8
                arrow.array(
                    [
                        embedded.path(each).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                        for each in span
                    ],
                    arrow.string(),
                ),
                *([arrow.array([embedded.label(each) for each in span], arrow.string())] if labelled else []),
                arrow.FixedSizeListArray.from_arrays(numbers, embedded.channels),
            ]
            writer.write_batch(arrow.record_batch(columns, schema=schema))
            row += len(block)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"Parquet files need pyarrow: {install_extra('parquet')}. Or let --out end in .npy or .csv."
        ) from error
    return pyarrow, pyarrow.parquet


_WRITERS: dict[str, Callable[[Embedded, Iterator[np.ndarray], Path], None]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".csv": _write_csv,
}
