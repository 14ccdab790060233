"""Images with several labels each from a CSV, in either of the two usual shapes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsiam.data.classification.voc import MultiLabelSet, MultiLabelSplits, checked
from simsiam.data.marks import ABSENT, DIFFICULT, PRESENT
from simsiam.data.source import FileSource
from simsiam.errors import UserError
from simsiam.wording import counted, plural

PATH_HEADINGS = ("path", "image", "file", "filename")
MARKS = {"1": PRESENT, "0": ABSENT, "": ABSENT, "-1": DIFFICULT}


def csv_splits(train: Path, test: Path) -> MultiLabelSplits:
    """Training and test images with the labels of two CSV files.

    A file is either "path,label1;label2" rows (a header is optional, no label is allowed), or a header
    "path,CLASS,CLASS,..." with 1, 0 or -1 (difficult) below each class. Paths are relative to the file. The training
    file says which classes there are. Raises UserError on a missing image, an unknown class or an odd row.
    """
    first, second = _read(train), _read(test)
    classes = first.classes
    unknown = sorted(set(second.classes) - set(classes))
    if unknown:
        raise UserError(f"{test}: unknown class {', '.join(unknown[:5])}; {train} has {', '.join(classes[:20])}.")
    return checked(MultiLabelSplits(train=_as_set(train, first, classes), test=_as_set(test, second, classes)))


@dataclass(frozen=True, kw_only=True)
class _Table:
    paths: list[str]
    marks: list[dict[str, int]]  # by class; classes not named are absent
    classes: tuple[str, ...]


def _read(file: Path) -> _Table:
    if not file.is_file():
        raise UserError(f"{file}: no such labels file. Write a CSV of path,label1;label2.")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = [[cell.strip() for cell in row] for row in csv.reader(opened) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV in UTF-8 ({error}).") from error
    if not rows:
        raise UserError(f"{file}: an empty labels file.")
    has_header = rows[0][0].lower() in PATH_HEADINGS
    if has_header and len(rows[0]) > 2:
        table = _columns(file, rows[0][1:], rows[1:])
    else:
        table = _words(file, rows[1:] if has_header else rows)
    missing = [path for path in table.paths if not (file.parent / path).is_file()]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {counted(len(table.paths), 'image')} "
            f"{plural(len(missing), 'is', 'are')} not there, the first {missing[0]!r} "
            f"(looked for in {file.parent}). Paths are relative to the CSV, or absolute."
        )
    if len(set(table.paths)) < len(table.paths):
        twice = next(path for path in table.paths if table.paths.count(path) > 1)
        raise UserError(f"{file}: {twice!r} is listed twice.")
    return table


def _columns(file: Path, classes: list[str], rows: list[list[str]]) -> _Table:
    if len(set(classes)) < len(classes) or "" in classes:
        raise UserError(f"{file}: its header names a class twice or not at all: {', '.join(classes)}.")
    marks = []
    for number, row in enumerate(rows, 2):
        if len(row) != len(classes) + 1 or any(cell not in MARKS for cell in row[1:]):
            raise UserError(f"{file}, row {number}: expected a path and {counted(len(classes), 'cell')} of 1, 0 or -1.")
        marks.append({name: MARKS[cell] for name, cell in zip(classes, row[1:], strict=True)})
    return _Table(paths=[row[0] for row in rows], marks=marks, classes=tuple(classes))


def _words(file: Path, rows: list[list[str]]) -> _Table:
    marks = []
    for number, row in enumerate(rows, 1):
        if len(row) > 2 or not row[0]:
            raise UserError(f"{file}, row {number}: expected path,label1;label2 and found {counted(len(row), 'cell')}.")
        names = [name.strip() for name in (row[1] if len(row) == 2 else "").split(";")]
        marks.append({name: PRESENT for name in names if name})
    classes = tuple(sorted({name for row in marks for name in row}))
    return _Table(paths=[row[0] for row in rows], marks=marks, classes=classes)


def _as_set(file: Path, table: _Table, classes: tuple[str, ...]) -> MultiLabelSet:
    targets = np.array([[row.get(name, ABSENT) for name in classes] for row in table.marks], np.int8)
    source = FileSource(file.parent, table.paths, None, name=file.stem, classes=None)
    return MultiLabelSet(source=source, targets=targets.reshape(len(table.paths), len(classes)), classes=classes)
