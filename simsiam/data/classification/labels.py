"""Labels that have nothing to do with the training images: a folder a class, or a CSV of path,label."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from simsiam.data.folders import FolderSource
from simsiam.data.source import FileSource, Source
from simsiam.errors import UserError
from simsiam.wording import counted, plural


def labelled_source(path: Path) -> Source:
    """Images with labels from a folder with a sub-folder a class, or from a CSV.

    Raises UserError if a file is missing, a row has no label, or there are fewer than two classes.
    """
    if path.is_dir():
        source: Source = FolderSource(path)
        if source.labels is None:
            raise UserError(f"{path}: not a labelled folder. Put each class's images in a sub-folder of its own.")
        return source
    return csv_source(path)


def csv_source(file: Path) -> Source:
    """Images that a CSV lists, one "path,label" a row; a header row is optional, paths are relative to the file."""
    if not file.exists():
        raise UserError(f"{file}: no such labels file. Write a CSV of path,label, or name a labelled folder.")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = [row for row in csv.reader(opened) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV of path,label in UTF-8 ({error}).") from error
    if rows and [cell.strip().lower() for cell in rows[0][:2]] in (["path", "label"], ["image", "label"]):
        rows = rows[1:]
    _check_rows(file, rows)
    names = [row[0].strip() for row in rows]
    classes = tuple(sorted({row[1].strip() for row in rows}))
    if len(classes) < 2:
        raise UserError(
            f"{file}: {counted(len(classes), 'class', 'classes')} in {counted(len(rows), 'row')}; at least "
            f"two are needed."
        )
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[row[1].strip()] for row in rows], np.int64)
    return FileSource(file.parent, names, labels, name=file.stem, classes=classes)


def _check_rows(file: Path, rows: list[list[str]]) -> None:
    if not rows:
        raise UserError(f"{file}: an empty labels file. Write one image a row: path,label.")
    short = [n + 1 for n, row in enumerate(rows) if len(row) < 2 or not row[0].strip() or not row[1].strip()]
    if short:
        raise UserError(f"{file}: row {short[0]} is not path,label ({counted(len(short), 'such row')}).")
    paths = [row[0].strip() for row in rows]
    missing = [path for path in paths if not (file.parent / path).is_file()]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {counted(len(rows), 'image')} {plural(len(missing), 'is', 'are')} "
            f"not there, the first {missing[0]!r} "
            f"(looked for in {file.parent}). Paths are relative to the CSV, or absolute."
        )
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(f"{file}: {twice[0]!r} is listed twice ({counted(len(twice), 'such image')}).")
