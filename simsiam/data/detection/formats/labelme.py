"""LabelMe's json: a file for each image, with outlines, rectangles and circles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any

from simsiam.data.annotations import UnreadableAnnotation, read_json, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, in_splits, item_of_corners, item_of_points, made, shown
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ANNOTATION_FOLDERS, ImageFinder, folders_in, role_of, visible
from simsiam.wording import counted

JSON = "*.[jJ][sS][oO][nN]"
HEAD = 4000  # letters


def find(given: Given) -> Export | None:
    """Folders of json files with `shapes` and `imagePath`."""
    root = given.place
    if not root.is_dir():
        return None
    places = in_splits(root, _holds)
    if not places:
        below = [each for each in folders_in(root, ANNOTATION_FOLDERS) if _holds(each)]
        places = {"": below[0]} if below else {}
    parts = {name: partial(_read, place, given.images) for name, place in places.items()}
    return Export(words="LabelMe json", parts=parts) if parts else None


def _holds(folder: Path) -> bool:
    first = next(iter(visible(folder.glob(JSON))), None)
    try:
        head = read_text(first)[:HEAD] if first is not None else ""
    except (UnreadableAnnotation, OSError):
        return False
    return '"shapes"' in head


def _read(folder: Path, images: Path | None, classes: Sequence[str] | None) -> BoxFiles:
    finder = ImageFinder([images] if images else [], around=folder, role=role_of(folder.name))
    records: list[Record] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for file in visible(folder.glob(JSON)):
        try:
            content = read_json(file)
            path = str(content.get("imagePath") or "")
            shapes = list(content["shapes"])
            size = int(content.get("imageWidth") or 0), int(content.get("imageHeight") or 0)
        except (UnreadableAnnotation, OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
            continue
        found = finder.find(path, file.stem)
        if found is None:
            what = f"names {path!r}; looked in {finder.tried}"
            problems.append(Problem(kind="annotation without image", where=str(file), what=what))
            continue
        items = []
        for number, shape in enumerate(shapes, 1):
            where = f"{file}, shape {number}"
            try:
                kind = str(shape.get("shape_type") or "polygon")
                if kind in ("point", "points", "line", "linestrip", "mask"):
                    skipped[kind] += 1
                else:
                    items.append(_item(shape, kind, where))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
        records.append(Record(image=shown(found, folder, size), items=items))
    return made(records, name=folder.resolve().name, place=folder, classes=classes, problems=problems, skipped=skipped)


def _item(shape: dict[str, Any], kind: str, where: str) -> Item:
    label, points = str(shape["label"]), [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "rectangle" and len(points) in (2, 4):
        return item_of_corners(label, points, where)
    if kind == "circle" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        radius = hypot(edge_x - x, edge_y - y)
        return Item(name=label, box=(x - radius, y - radius, x + radius, y + radius), where=where)
    if kind not in ("polygon", "rectangle"):
        raise ValueError(f"a shape of type {kind!r} with {counted(len(points), 'point')}")
    return item_of_points(label, points, where)
