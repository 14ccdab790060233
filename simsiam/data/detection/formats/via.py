"""VGG Image Annotator's files: a json or a CSV of regions for each image."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simsiam.data.annotations import UnreadableAnnotation, read_json, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, in_splits, item_of_points, made, shown
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ImageFinder, role_of, visible

CLASS_KEYS = ("class", "label", "name", "type", "category", "object")
HEAD = 4000  # letters


def find(given: Given) -> Export | None:
    """A file of VIA, or one in the folder or in each of its splits."""
    if given.place.is_file():
        return (
            Export(words="VGG VIA regions", parts={"": partial(_read, given.place, given.images)})
            if _is_via(given.place)
            else None
        )
    files = {
        name: _file_in(folder) for name, folder in in_splits(given.place, lambda f: _file_in(f) is not None).items()
    }
    parts = {name: partial(_read, file, given.images) for name, file in files.items() if file is not None}
    return Export(words="VGG VIA regions", parts=parts) if parts else None


def _file_in(folder: Path) -> Path | None:
    return next((file for file in visible(folder.iterdir()) if _is_via(file)), None)


def _is_via(file: Path) -> bool:
    if file.suffix.lower() not in (".json", ".csv") or not file.is_file():
        return False
    try:
        head = read_text(file)[:HEAD]
    except (UnreadableAnnotation, OSError):
        return False
    if file.suffix.lower() == ".csv":
        return "region_shape_attributes" in head.split("\n", 1)[0]
    return "_via_" in head or ('"regions"' in head and '"filename"' in head)


def _read(file: Path, images: Path | None, classes: Sequence[str] | None) -> BoxFiles:
    role = role_of(file.parent.name) or role_of(file.stem)
    finder = ImageFinder([images] if images else [], around=file.parent, role=role)
    records: list[Record] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    try:
        regions = _of_csv(file) if file.suffix.lower() == ".csv" else _of_json(file)
    except (UnreadableAnnotation, OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
        regions = {}
    for name, found in regions.items():
        image = finder.find(name)
        if image is None:
            what = f"looked in {finder.tried}"
            problems.append(Problem(kind="missing image", where=f"{file}, {name}", what=what))
            continue
        items = []
        for number, region in enumerate(found, 1):
            where = f"{file}, {name}, region {number}"
            try:
                shape, attributes = region["shape_attributes"], region.get("region_attributes") or {}
                if shape.get("name") in ("point", "polyline"):
                    skipped[shape["name"]] += 1
                elif shape:
                    items.append(_item(shape, _class_of(attributes), where))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                what = f"{type(error).__name__}: {error}"
                problems.append(Problem(kind="unreadable annotation", where=where, what=what))
        records.append(Record(image=shown(image, file.parent), items=items))
    name = file.resolve().parent.name
    return made(records, name=name, place=file, classes=classes, problems=problems, skipped=skipped)


def _of_json(file: Path) -> dict[str, list[dict[str, Any]]]:
    content = read_json(file)
    entries = content.get("_via_img_metadata", content)
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries.values():
        if isinstance(entry, dict) and "filename" in entry:
            regions = entry.get("regions") or []
            found[str(entry["filename"])] = list(regions.values() if isinstance(regions, dict) else regions)
    return found


def _of_csv(file: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in csv.DictReader(read_text(file).splitlines()):
        name = row.get("#filename") or row.get("filename") or ""
        regions = found.setdefault(name, [])
        shape = json.loads(row["region_shape_attributes"] or "{}")
        if shape:
            attributes = json.loads(row["region_attributes"] or "{}")
            regions.append({"shape_attributes": shape, "region_attributes": attributes})
    return found


def _class_of(attributes: dict[str, Any]) -> str:
    """The region's class: of the attribute that is called so, or the only one; "object" without any."""
    named = {key.lower(): value for key, value in attributes.items()}
    value = next((named[key] for key in CLASS_KEYS if key in named), next(iter(named.values()), "object"))
    if isinstance(value, dict):  # a check box: {"cat": true}
        value = next((key for key, chosen in value.items() if chosen), "object")
    return str(value).strip() or "object"


def _item(shape: dict[str, Any], label: str, where: str) -> Item:
    kind = shape["name"]
    if kind == "polygon":
        points = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        return item_of_points(label, [(float(x), float(y)) for x, y in points], where)
    if kind == "rect":
        x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
        return Item(name=label, box=(x, y, x + width, y + height), where=where)
    if kind not in ("circle", "ellipse"):
        raise ValueError(f"a region of kind {kind!r}")
    x, y = float(shape["cx"]), float(shape["cy"])
    rx, ry = (float(shape[key]) for key in (("r", "r") if kind == "circle" else ("rx", "ry")))
    return Item(name=label, box=(x - rx, y - ry, x + rx, y + ry), where=where)
