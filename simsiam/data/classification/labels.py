"""Labels of a person's own: a folder a class, or any CSV that names images, with one label or several each.

A CSV may have a header or none, be separated by commas, semicolons or tabs, and come from any program.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsiam.data.class_names import class_map, in_order, numbered
from simsiam.data.classification.voc import MultiLabelSet, MultiLabelSplits, checked
from simsiam.data.folders import FolderSource
from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.data.source import FileSource, Source
from simsiam.data.splits import ABSENT, DIFFICULT, PRESENT
from simsiam.errors import UserError
from simsiam.wording import counted, plural

SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing", "dev"))
PATH_HEADINGS = ("path", "image", "file", "filename", "image_path", "filepath", "file_path", "file_name", "image_name")
LABEL_HEADINGS = (
    "label",
    "class",
    "category",
    "target",
    "labels",
    "class_name",
    "label_name",
    "species",
    "tag",
    "tags",
)
_SEPARATORS = (",", ";", "\t")
_INDEX_HEADINGS = ("", "index", "unnamed: 0", "id", "idx", "no")
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
    return FileSource(file.parent, table.paths, labels, name=file.stem, classes=classes)


def _why_not(source: FolderSource) -> str:
    """What is amiss with a folder whose images got no labels, and the cure."""
    names = [source.path(index) for index in range(len(source))]
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
    return _Labels(paths=table.paths, classes=tuple(classes), marks=marks)


def _word_lists(file: Path, table: Table) -> _Labels:
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


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV's images and what stands beside them."""

    paths: list[str]  # relative to the file, or absolute; every one is there, once
    header: list[str] | None  # of the other columns
    cells: list[list[str]]  # of the other columns, stripped


def read_table(file: Path) -> Table:
    """The rows of a CSV, with the path's column found by its heading or by what its cells look like.

    A column that only numbers the rows (as pandas writes it) is left out, and backslashes of Windows are read as
    slashes. Raises UserError if the file is missing, empty or no text, or an image is not there or listed twice.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such labels file. Write a CSV of path,label, or name a labelled folder.")
    rows = _rows(file)
    if not rows:
        raise UserError(f"{file}: an empty labels file. Write one image a row: path,label.")
    at = _path_column(rows)
    first = rows[0][at].lower() if at < len(rows[0]) else ""
    has_header = first in PATH_HEADINGS or (
        not _is_image(first) and len(rows) > 1 and all(len(row) > at and _is_image(row[at]) for row in rows[1:])
    )
    header = rows[0] if has_header else None
    body = rows[1:] if has_header else rows
    short = [number for number, row in enumerate(rows, 1) if len(row) <= at or not row[at]]
    if short:
        raise UserError(f"{file}: row {short[0]} names no image ({counted(len(short), 'such row')}).")
    left_out = {at} | ({0} if _is_index(header, body) and at != 0 else set())
    paths = [_existing(file.parent, row[at]) for row in body]
    _check(file, paths)
    return Table(
        paths=paths,
        header=None if header is None else [cell for n, cell in enumerate(header) if n not in left_out],
        cells=[[cell for n, cell in enumerate(row) if n not in left_out] for row in body],
    )


def label_column(file: Path, table: Table) -> int:
    """Which of the other columns holds the label; raises UserError if that cannot be said."""
    if table.header is None:
        return 0
    named = [n for n, cell in enumerate(table.header) if cell.lower() in LABEL_HEADINGS]
    if named:
        return named[0]
    if len(table.header) == 1:
        return 0
    columns = ", ".join(table.header) or "none beside the path"
    raise UserError(f"{file}: which column is the label? Its columns are {columns}; head the right one 'label'.")


def _rows(file: Path) -> list[list[str]]:
    """Stripped cells, split by the separator with which the most rows hold a cell that is an image's name."""
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        readings = [
            [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator)]
            for separator in _SEPARATORS
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV of path,label in UTF-8 ({error}).") from error
    readings = [[row for row in rows if any(row)] for rows in readings]
    return max(readings, key=lambda rows: sum(any(map(_is_image, row)) for row in rows))  # the first where alike


def _path_column(rows: list[list[str]]) -> int:
    headings = [cell.lower() for cell in rows[0]]
    named = [headings.index(heading) for heading in PATH_HEADINGS if heading in headings]
    if named:
        return named[0]
    seen = Counter(n for row in rows for n, cell in enumerate(row) if _is_image(cell))
    return min(seen, key=lambda n: (-seen[n], n)) if seen else 0


def _is_image(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in IMAGE_SUFFIXES


def _is_index(header: list[str] | None, body: list[list[str]]) -> bool:
    """Whether the first column only numbers the rows."""
    if not body or not body[0][0].isdecimal() or (header is not None and header[0].lower() not in _INDEX_HEADINGS):
        return False
    return all(row[0] == str(int(body[0][0]) + n) for n, row in enumerate(body))


def _existing(folder: Path, path: str) -> str:
    """The path as it is on this system: with slashes, where backslashes name no file."""
    if "\\" in path and not (folder / path).exists():
        return path.replace("\\", "/")
    return path


def _check(file: Path, paths: list[str]) -> None:
    missing = [path for path in paths if not (file.parent / path).is_file()]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {counted(len(paths), 'image')} {plural(len(missing), 'is', 'are')} "
            f"not there, the first {missing[0]!r} (looked for in {file.parent}). Paths are relative to the CSV, or "
            "absolute."
        )
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(f"{file}: {twice[0]!r} is listed twice ({counted(len(twice), 'such image')}).")
