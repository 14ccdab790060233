"""Any CSV that names images: with or without a header, separated by commas, semicolons or tabs, from any program."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.errors import UserError
from simsiam.wording import counted, plural

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
