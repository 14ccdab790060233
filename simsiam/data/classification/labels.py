"""Labels of a person's own: a folder a class, or any CSV that names images, with one label or several each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsiam.data.class_names import class_map, in_order, numbered
from simsiam.data.classification.csv_table import Table, label_column, read_table
from simsiam.data.classification.voc import MultiLabelSet, MultiLabelSplits, checked
from simsiam.data.folders import FolderSource
from simsiam.data.inventory import Inventory
from simsiam.data.source import FileSource, Source
from simsiam.data.splits import ABSENT, DIFFICULT, PRESENT
from simsiam.errors import UserError
from simsiam.wording import counted, plural

SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing", "dev"))
MARKS = {"1": PRESENT, "0": ABSENT, "": ABSENT, "-1": DIFFICULT}


def labelled_source(path: Path) -> Source:
    """Images with labels from a folder with a sub-folder a class, or from a CSV.

    Raises UserError if a file is missing, a row has no label, or there are fewer than two classes.
    """
    if not path.is_dir():
        return csv_source(path)
    source = FolderSource(path)
    splits = source.splits or tuple(name for name in source.classes or () if name.lower() in SPLIT_NAMES)
    if source.labels is None and not splits:
        raise UserError(f"{path}: not a labelled folder: {_why_not(source)}")
    if source.splits or len(splits) == len(source.classes or ()):
        raise UserError(
            f"{path}: its sub-folders are {', '.join(splits)}, the parts of a data set and no classes. Name "
            "one of them, or two as --train and --test."
        )
    return source


def csv_source(file: Path) -> Source:
    """Images that a CSV lists, one "path,label" a row; any usual heading and separator, paths relative to the file."""
    table = read_table(file)
    column = label_column(file, table)
    words = [row[column] if len(row) > column else "" for row in table.cells]
    lacking = [path for path, word in zip(table.paths, words, strict=True) if not word]
    if lacking:
        raise UserError(f"{file}: {lacking[0]!r} has no label ({counted(len(lacking), 'such row')}). Write path,label.")
    classes, labels = numbered(words)
    if len(classes) < 2:
        raise UserError(
            f"{file}: {counted(len(classes), 'class', 'classes')} in {counted(len(words), 'row')}; at least "
            f"two are needed."
        )
    return FileSource(file.parent, table.paths, labels, name=file.stem, classes=classes, inventory=table.inventory)


def listed_source(file: Path) -> Source:
    """The images of a CSV, with labels where it has a column of them that names two classes or more."""
    table = read_table(file)
    with suppress(UserError):
        return csv_source(file)
    return FileSource(file.parent, table.paths, None, name=file.stem, classes=None, inventory=table.inventory)


def _why_not(source: FolderSource) -> str:
    """What is amiss with a folder whose images got no labels, and the cure."""
    names = source.paths()
    cure = "Put each class's images in a sub-folder of its own."
    loose = [name for name in names if "/" not in name]
    if loose and len(loose) < len(names):
        lie = plural(len(loose), "lies", "lie")
        more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
        return f"{loose[0]}{more} {lie} outside the class folders. Move {plural(len(loose), 'it', 'them')} into one."
    if loose:
        return f"all {counted(len(names), 'image')} lie in it directly. {cure}"
    top = names[0].split("/")[0]
    deeper = {name.split("/")[1] for name in names if name.count("/") > 1}
    if len(deeper) > 1:
        return f"all images lie below {top}/, whose sub-folders may be the classes. Name {source.root / top} instead."
    return f"all {counted(len(names), 'image')} lie in one sub-folder, {top}/; at least two classes are needed. {cure}"


def csv_splits(train: Path, test: Path) -> MultiLabelSplits:
    """Training and test images with the labels of two CSV files.

    A file is either "path,label1;label2" rows (a header is optional, no label is allowed), or a header
    "path,CLASS,CLASS,..." with 1, 0 or -1 (difficult) below each class. Paths are relative to the file. The training
    file says which classes there are; those of the test file are matched by name. Raises UserError on a missing image,
    an unknown class or an odd row.
    """
    first, second = _read_marks(train), _read_marks(test)
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
    inventory: Inventory
    classes: tuple[str, ...]
    marks: list[dict[str, int]]  # by class; classes not named are absent


def _read_marks(file: Path) -> _Labels:
    table = read_table(file)
    return (
        _mark_columns(file, table) if table.header is not None and len(table.header) > 1 else _word_lists(file, table)
    )


def _mark_columns(file: Path, table: Table) -> _Labels:
    classes = table.header or []
    if len(set(classes)) < len(classes) or "" in classes:
        raise UserError(f"{file}: its header names a class twice or not at all: {', '.join(classes)}.")
    marks = []
    for number, row in enumerate(table.cells, 2):
        if len(row) != len(classes) or any(cell not in MARKS for cell in row):
            raise UserError(f"{file}, row {number}: expected a path and {counted(len(classes), 'cell')} of 1, 0 or -1.")
        marks.append({name: MARKS[cell] for name, cell in zip(classes, row, strict=True)})
    return _Labels(paths=table.paths, inventory=table.inventory, classes=tuple(classes), marks=marks)


def _word_lists(file: Path, table: Table) -> _Labels:
    marks = []
    for number, row in enumerate(table.cells, 1 if table.header is None else 2):
        if len(row) > 1:
            cells = counted(len(row) + 1, "cell")
            raise UserError(f"{file}, row {number}: expected path,label1;label2 and found {cells}.")
        names = [name.strip() for name in (row[0] if row else "").split(";")]
        marks.append({name: PRESENT for name in names if name})
    return _Labels(
        paths=table.paths,
        inventory=table.inventory,
        classes=in_order(name for row in marks for name in row),
        marks=marks,
    )


def _as_set(file: Path, labels: _Labels, classes: tuple[str, ...], places: np.ndarray) -> MultiLabelSet:
    targets = np.full((len(labels.paths), len(classes)), ABSENT, np.int8)
    own = np.array([[row.get(name, ABSENT) for name in labels.classes] for row in labels.marks], np.int8)
    targets[:, places] = own.reshape(len(labels.paths), len(labels.classes))
    source = FileSource(file.parent, labels.paths, None, name=file.stem, classes=None, inventory=labels.inventory)
    return MultiLabelSet(source=source, targets=targets, classes=classes)
