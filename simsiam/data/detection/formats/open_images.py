"""OpenImages' CSV: a row for each box, as fractions of the image, with the names of classes in a second file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, flag, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, Reader, made, shown
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ANNOTATION_FOLDERS, ImageFinder, folders_in, role_of, visible
from simsiam.data.images import header
from simsiam.errors import UserError

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def find(given: Given) -> Export | None:
    """CSV files with OpenImages' columns, by the split that their names have."""
    root = given.place
    places = (
        [] if root.is_file() else [root, *folders_in(root, (*ANNOTATION_FOLDERS, "csv_folder", "metadata", "boxes"))]
    )
    files = [root] if root.is_file() else [file for place in places for file in visible(place.glob("*.csv"))]
    files = [file for file in files if _is_boxes(file)]
    if not files:
        return None
    names = _names(places or [root.parent])
    parts: dict[str, Reader] = {}
    for file in files:
        name = (role_of(file.stem) or "") if len(files) > 1 else ""
        if name in parts:
            raise UserError(
                f"{root}: several files of boxes for one split, {file.name} among them; name one as --data."
            )
        parts[name] = partial(_read, file, given.images, names)
    return Export(words="OpenImages boxes", parts=parts)


def _read(file: Path, images: Path | None, names: dict[str, str], classes: Sequence[str] | None) -> BoxFiles:
    finder = ImageFinder([images] if images else [], around=file.parent, role=role_of(file.stem))
    problems: list[Problem] = []
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    try:
        for number, row in enumerate(csv.DictReader(read_text(file).splitlines()), 2):
            rows.setdefault(str(row["ImageID"]), []).append((number, row))
    except (UnreadableAnnotation, OSError, csv.Error, KeyError) as error:
        problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
    records = []
    for name, found in rows.items():
        image = finder.find(name, f"{name}.jpg")
        size = (0, 0)
        try:
            size = header(image).upright if image is not None else size
        except Exception as error:  # decoders raise many kinds
            problems.append(Problem(kind="damaged image", where=str(image), what=str(error)))
        if image is None:
            what = f"looked in {finder.tried}"
            problems.append(Problem(kind="missing image", where=f"{file}, image {name}", what=what))
        if image is None or 0 in size:
            continue
        items = []
        for number, row in found:
            where = f"{file}, row {number}"
            try:
                items.append(_item(row, size, names, where))
            except (TypeError, ValueError, KeyError) as error:
                problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
        records.append(Record(image=shown(image, file.parent, size), items=items))
    return made(records, name=file.stem, place=file, classes=classes, problems=problems)


def _item(row: dict[str, str], size: tuple[int, int], names: dict[str, str], where: str) -> Item:
    x1, x2, y1, y2 = (float(row[key] or "") for key in ("XMin", "XMax", "YMin", "YMax"))
    width, height = size
    label = names.get(row["LabelName"], row["LabelName"])
    box = (x1 * width, y1 * height, x2 * width, y2 * height)
    return Item(name=label, box=box, where=where, crowd=flag(row.get("IsGroupOf") or "0"))


def _is_boxes(file: Path) -> bool:
    try:
        header = read_text(file).split("\n", 1)[0] if file.suffix.lower() == ".csv" else ""
    except (UnreadableAnnotation, OSError):
        return False
    return set(COLUMNS) <= {word.strip() for word in header.split(",")}


def _names(places: Sequence[Path]) -> dict[str, str]:
    """Names by machine id, of class-descriptions.csv; empty where there is none."""
    for file in (each for place in places for each in visible(place.glob("*class-descriptions*.csv"))):
        try:
            rows = [row for row in csv.reader(read_text(file).splitlines()) if len(row) == 2]
        except (UnreadableAnnotation, OSError, csv.Error):
            continue
        return {number: name for number, name in rows if number != "LabelName"}
    return {}
