"""Images with several labels each from a CSV, in either of the two usual shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsiam.data.class_names import class_map, in_order
from simsiam.data.classification.csv_table import Table, read_table
from simsiam.data.classification.voc import MultiLabelSet, MultiLabelSplits, checked
from simsiam.data.marks import ABSENT, DIFFICULT, PRESENT
from simsiam.data.source import FileSource
from simsiam.errors import UserError
from simsiam.wording import counted

MARKS = {"1": PRESENT, "0": ABSENT, "": ABSENT, "-1": DIFFICULT}


def csv_splits(train: Path, test: Path) -> MultiLabelSplits:
    """Training and test images with the labels of two CSV files.

    A file is either "path,label1;label2" rows (a header is optional, no label is allowed), or a header
    "path,CLASS,CLASS,..." with 1, 0 or -1 (difficult) below each class. Paths are relative to the file. The training
    file says which classes there are; those of the test file are matched by name. Raises UserError on a missing image,
    an unknown class or an odd row.
    """
    first, second = _read(train), _read(test)
    places = class_map(first.classes, second.classes, where=f"{train} and {test}")
    return checked(
        MultiLabelSplits(
            train=_as_set(train, first, first.classes, np.arange(len(first.classes))),
            test=_as_set(test, second, first.classes, places),
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Labels:
    paths: list[str]
    classes: tuple[str, ...]
    marks: list[dict[str, int]]  # by class; classes not named are absent


def _read(file: Path) -> _Labels:
    table = read_table(file)
    return _columns(file, table) if table.header is not None and len(table.header) > 1 else _words(file, table)


def _columns(file: Path, table: Table) -> _Labels:
    classes = table.header or []
    if len(set(classes)) < len(classes) or "" in classes:
        raise UserError(f"{file}: its header names a class twice or not at all: {', '.join(classes)}.")
    marks = []
    for number, row in enumerate(table.cells, 2):
        if len(row) != len(classes) or any(cell not in MARKS for cell in row):
            raise UserError(f"{file}, row {number}: expected a path and {counted(len(classes), 'cell')} of 1, 0 or -1.")
        marks.append({name: MARKS[cell] for name, cell in zip(classes, row, strict=True)})
    return _Labels(paths=table.paths, classes=tuple(classes), marks=marks)


def _words(file: Path, table: Table) -> _Labels:
    marks = []
    for number, row in enumerate(table.cells, 1 if table.header is None else 2):
        if len(row) > 1:
            cells = counted(len(row) + 1, "cell")
            raise UserError(f"{file}, row {number}: expected path,label1;label2 and found {cells}.")
        names = [name.strip() for name in (row[0] if row else "").split(";")]
        marks.append({name: PRESENT for name in names if name})
    return _Labels(paths=table.paths, classes=in_order(name for row in marks for name in row), marks=marks)


def _as_set(file: Path, labels: _Labels, classes: tuple[str, ...], places: np.ndarray) -> MultiLabelSet:
    targets = np.full((len(labels.paths), len(classes)), ABSENT, np.int8)
    own = np.array([[row.get(name, ABSENT) for name in labels.classes] for row in labels.marks], np.int8)
    targets[:, places] = own.reshape(len(labels.paths), len(labels.classes))
    source = FileSource(file.parent, labels.paths, None, name=file.stem, classes=None)
    return MultiLabelSet(source=source, targets=targets, classes=classes)
