"""Any CSV or JSON that names images: with or without a header, with any usual separator, from any program."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.find_images import ImageFinder
from simsiam.data.images import is_image_name
from simsiam.data.inventory import Inventory, LeftOut
from simsiam.errors import UserError
from simsiam.sniff import sniff
from simsiam.wording import counted, plural, some

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)
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
_SEPARATORS = (",", ";", "\t", "|", " ")
_TRIED = 100  # rows that show what a column holds
_LONG = 120  # letters of a name in a message
_INDEX_HEADINGS = ("", "index", "unnamed: 0", "id", "idx", "no")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV's images and what stands beside them."""

    paths: list[str]  # relative to the file, or absolute; every one is there, once
    header: list[str] | None  # of the other columns
    cells: list[list[str]]  # of the other columns, stripped
    inventory: Inventory


def read_table(file: Path) -> Table:
    """The rows of a CSV, with the path's column found by its heading or by what its cells look like.

    A column that only numbers the rows (as pandas writes it) and rows that say the same again are left out. Images
    that are not where the rows say, written on another machine or without a suffix, are found by name below its folder.
    Raises UserError if the file is missing, empty or no text, or an image is not there or listed twice.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such labels file. Write a CSV of path,label, or name a labelled folder.")
    rows = _rows(file)
    if not rows:
        raise UserError(f"{file}: an empty labels file. Write one image a row: path,label.")
    finder = ImageFinder([file.parent])
    at = _path_column(rows, finder)
    has_header = _is_header(rows, at, finder)
    header = rows[0] if has_header else None
    body = rows[1:] if has_header else rows
    short = [number for number, row in enumerate(rows, 1) if len(row) <= at or not row[at]]
    if short:
        raise UserError(f"{file}: row {short[0]} names no image ({counted(len(short), 'such row')}).")
    left_out = {at} | ({0} if _is_index(header, body) and at != 0 else set())
    written = [row[at] for row in body]
    paths = [place_of(file.parent, each, finder) for each in written]
    _refuse_missing(file, paths)
    beside = [tuple(cell for n, cell in enumerate(row) if n not in left_out) for row in body]
    unique = list(dict.fromkeys(zip(paths, beside, strict=True)))
    _refuse_twice(file, [path for path, _ in unique])
    return Table(
        paths=[path for path, _ in unique],
        header=None if header is None else [cell for n, cell in enumerate(header) if n not in left_out],
        cells=[list(cells) for _, cells in unique],
        inventory=_account(len(unique), len(paths) - len(unique), written, paths),
    )


def _account(used: int, repeated: int, written: list[str], paths: list[str]) -> Inventory:
    moved = [
        path
        for path, listed in zip(paths, written, strict=True)
        if path != listed and path != listed.replace("\\", "/")
    ]
    where = some(sorted({os.path.dirname(path) or "." for path in moved}))
    share = f"{len(moved):,} of {counted(len(paths), 'image')} {plural(len(moved), 'is', 'are')}"
    return Inventory(
        found=used,
        used=used,
        left_out=(LeftOut(what="row", count=repeated, reason="the same as another"),) if repeated else (),
        notes=(f"{share} not where the rows say, and found by name in {where}",) if moved else (),
    )


def place_of(folder: Path, path: str, finder: ImageFinder) -> str:
    """Where the image lies that a row or line names: a path relative to the folder, or absolute; else as written."""
    for name in (path, path.replace("\\", "/")):
        if os.path.isfile(folder / name):
            return name
    found = finder.find(path)
    if found is None:
        return path
    return os.path.relpath(found, folder) if found.is_relative_to(folder) else str(found)


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
    kind = sniff(file)
    if kind is not None and kind.family not in ("text", "empty"):
        raise UserError(f"{file}: {kind}, not a CSV of path,label.")
    try:
        text = read_text(file)
        if "\0" in text:
            raise UnreadableAnnotation("it holds zero bytes; save it as UTF-8")
        if file.suffix.lower() in JSON_SUFFIXES:
            return _json_rows(file, text)
        if text.lower().startswith("sep="):  # Excel's own first line
            text = text.partition("\n")[2]
        readings = [
            list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
            for separator in _SEPARATORS
        ]
    except (UnreadableAnnotation, csv.Error) as error:
        raise UserError(f"{file}: not a CSV of path,label ({error}).") from error
    stripped = [[[cell.strip() for cell in row] for row in rows] for rows in readings]
    filled = [[row for row in rows if any(row) and not _is_comment(row)] for rows in stripped]
    return max(filled, key=lambda rows: sum(any(map(is_image_name, row)) for row in rows))  # the first where alike


def _json_rows(file: Path, text: str) -> list[list[str]]:
    """A heading and a row for each object of JSON lines, of a list of objects, or of one object {path: label}."""
    try:
        if file.suffix.lower() == ".json":
            records = json.loads(text)
            if isinstance(records, dict) and all(isinstance(label, str | int) for label in records.values()):
                records = [{"path": path, "label": label} for path, label in records.items()]
        else:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{file}: no readable JSON ({error}). Write an object a line, with path and label.") from error
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        line = '{"path": "a.jpg", "label": "cat"}'
        raise UserError(f"{file}: JSON, but no list of images and labels. Write a line such as {line} for each.")
    names = list(dict.fromkeys(name for each in records for name in each))
    cells = [[each.get(name) for name in names] for each in records]
    return [names, *([_cell(value) for value in row] for row in cells)] if records else []


def _cell(value: Any) -> str:
    if isinstance(value, list):  # several labels
        return ";".join(map(_cell, value))
    return "" if value is None else str(value).strip()


def _is_comment(row: list[str]) -> bool:
    return row[0].startswith("#") and not any(map(is_image_name, row))


def _path_column(rows: list[list[str]], finder: ImageFinder) -> int:
    headings, first = [cell.lower() for cell in rows[0]], rows[min(1, len(rows) - 1)]
    named = [headings.index(heading) for heading in PATH_HEADINGS if heading in headings]
    if named:
        return next((n for n in named if n < len(first) and is_image_name(first[n])), named[0])
    seen = Counter(n for row in rows for n, cell in enumerate(row) if is_image_name(cell))
    if seen:
        return min(seen, key=lambda n: (-seen[n], n))
    tried = rows[1 : 1 + _TRIED]  # names without a suffix
    return next((n for n in range(len(first)) if any(len(row) > n and finder.find(row[n]) for row in tried)), 0)


def _is_header(rows: list[list[str]], at: int, finder: ImageFinder) -> bool:
    """Whether the first row names the columns, and no image."""
    first = rows[0][at] if at < len(rows[0]) else ""
    if first.lower() in PATH_HEADINGS:
        return True
    if is_image_name(first) or len(rows) < 2 or any(len(row) <= at for row in rows[1:]):
        return False
    if all(is_image_name(row[at]) for row in rows[1:]):
        return True
    return finder.find(first) is None and any(finder.find(row[at]) for row in rows[1 : 1 + _TRIED])


def _is_index(header: list[str] | None, body: list[list[str]]) -> bool:
    """Whether the first column only numbers the rows."""
    if not body or not body[0][0].isdecimal() or (header is not None and header[0].lower() not in _INDEX_HEADINGS):
        return False
    return all(row[0] == str(int(body[0][0]) + n) for n, row in enumerate(body))


def _refuse_missing(file: Path, paths: list[str]) -> None:
    missing = [path for path in paths if not os.path.isfile(file.parent / path)]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {counted(len(paths), 'image')} {plural(len(missing), 'is', 'are')} "
            f"not there, the first {shortened(missing[0])} (looked for in {file.parent}). Paths are relative to the "
            "CSV, or absolute."
        )


def _refuse_twice(file: Path, paths: list[str]) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(
            f"{file}: {twice[0]!r} is listed twice, with different words beside it "
            f"({counted(len(twice), 'such image')}). Leave one row of each."
        )


def shortened(name: str) -> str:
    """A name in quotes for a message, cut where it is no sensible one."""
    return repr(name if len(name) <= _LONG else name[:_LONG] + "...")
