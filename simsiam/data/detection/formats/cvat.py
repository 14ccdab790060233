"""CVAT's "images" XML: one annotations.xml of all images, with boxes, outlines and masks drawn by brush."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, read_xml
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, drawn_item, item_of_points, made
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ImageFinder, role_of


def find(given: Given) -> Export | None:
    """An annotations.xml whose root holds images; by the `subset` of these where they have several."""
    file = given.place if given.place.is_file() else given.place / "annotations.xml"
    if file.suffix.lower() != ".xml" or not file.is_file():
        return None
    try:
        root = read_xml(file)
    except (UnreadableAnnotation, OSError):
        return None
    images = root.findall("image") if root.tag == "annotations" else []
    if not images:
        return None
    finder = ImageFinder([given.images] if given.images else [], around=file.parent)
    subsets: dict[str, list[ElementTree.Element]] = {}
    for image in images:
        subsets.setdefault(image.get("subset") or "", []).append(image)
    if not any(map(role_of, subsets)):
        subsets = {"": images}
    parts = {name: partial(_read, file, name, chosen, finder) for name, chosen in subsets.items()}
    return Export(words="CVAT images XML", parts=parts)


def _read(
    file: Path, subset: str, images: list[ElementTree.Element], finder: ImageFinder, classes: Sequence[str] | None
) -> BoxFiles:
    records: list[Record] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for entry in images:
        name = entry.get("name") or ""
        where = f"{file}, image {name}"
        try:
            width, height = int(entry.get("width") or 0), int(entry.get("height") or 0)
        except ValueError as error:
            problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
            continue
        found = finder.find(f"{subset}/{name}", name)
        if found is None:
            what = f"looked in {finder.tried}"
            problems.append(Problem(kind="missing image", where=where, what=what))
            continue
        items = []
        for number, each in enumerate(entry, 1):
            if each.tag in ("polyline", "points", "cuboid", "skeleton", "tag"):
                skipped[each.tag] += 1
            elif each.tag in ("box", "polygon", "mask", "ellipse"):
                at = f"{where}, object {number} ({each.get('label')})"
                try:
                    items.append(_item(each, (width, height), at))
                except (KeyError, ValueError, OverflowError) as error:
                    problems.append(Problem(kind="unreadable annotation", where=at, what=str(error)))
        shown = BoxImage(id=name, path=name, file=found, width=width, height=height)
        records.append(Record(image=shown, items=items))
    name = file.resolve().parent.name + (f"-{subset}" if subset else "")
    return made(records, name=name, place=file, classes=classes, problems=problems, skipped=skipped)


def _item(each: ElementTree.Element, size: tuple[int, int], where: str) -> Item:
    label = each.get("label") or ""
    if each.tag == "polygon":
        pairs = [point.split(",") for point in (each.get("points") or "").split(";") if point]
        return item_of_points(label, [(float(x), float(y)) for x, y in pairs], where)
    if each.tag == "ellipse":
        x, y, rx, ry = (float(each.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        return Item(name=label, box=(x - rx, y - ry, x + rx, y + ry), where=where)
    if each.tag == "mask":
        return _brush(each, label, size, where)
    x1, y1, x2, y2 = (float(each.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    return Item(name=label, box=(x1, y1, x2, y2), where=where)


def _brush(each: ElementTree.Element, label: str, size: tuple[int, int], where: str) -> Item:
    """A mask within its own rectangle: run lengths row by row, the first of them off."""
    left, top, width, height = (int(float(each.attrib[key])) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in each.attrib["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"a mask of {width} x {height} at {left}, {top} on {size[0]} x {size[1]} pixels")
    drawn = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return drawn_item(label, drawn, (left, top), size, where)
