"""Supervisely's projects: folders of data sets with ann/NAME.jpg.json beside img/NAME.jpg, below a meta.json."""

from __future__ import annotations

import base64
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data.annotations import UnreadableAnnotation, read_json
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import (
    Export,
    Given,
    drawn_item,
    item_of_corners,
    item_of_points,
    made,
    shown,
)
from simsiam.data.detection.instance_masks import MOST_PIXELS, Polygons
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ImageFinder, folders_in, role_of, visible

MOST_BYTES = 1 << 26  # of a bitmap's PNG, which a few bytes can unpack to


def find(given: Given) -> Export | None:
    """The data sets of a project, those named as splits by their names; or one data set."""
    root = given.place
    if not root.is_dir():
        return None
    sets = [each for each in (root, *visible(root.iterdir())) if each.is_dir() and _annotations(each)]
    if not sets:
        return None
    splits = {each.name: [each] for each in sets if each != root and role_of(each.name)}
    splits = splits if "train" in map(role_of, splits) else {"": sets}
    return Export(
        words="Supervisely project",
        parts={name: partial(_read, root, folders, given.images) for name, folders in splits.items()},
    )


def _annotations(folder: Path) -> list[Path]:
    """The files NAME.SUFFIX.json of a data set; none where it is no data set."""
    place = next(iter(folders_in(folder, ("ann",))), None) if next(iter(folders_in(folder, ("img",))), None) else None
    return visible(place.glob("*.json")) if place is not None else []


def _read(root: Path, folders: Sequence[Path], images: Path | None, classes: Sequence[str] | None) -> BoxFiles:
    records: list[Record] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for folder in folders:
        finder = ImageFinder([images] if images else folders_in(folder, ("img",)))
        for file in _annotations(folder):
            try:
                content = read_json(file)
                objects = list(content["objects"])
                size = int(content["size"]["width"]), int(content["size"]["height"])
            except (UnreadableAnnotation, OSError, KeyError, TypeError, ValueError) as error:
                problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
                continue
            found = finder.find(file.stem)
            if found is None:
                what = f"no {file.stem}; looked in {finder.tried}"
                problems.append(Problem(kind="annotation without image", where=str(file), what=what))
                continue
            items = []
            for number, each in enumerate(objects, 1):
                where = f"{file}, object {number}"
                try:
                    kind = str(each.get("geometryType") or ("bitmap" if each.get("bitmap") else "polygon"))
                    if kind in ("rectangle", "polygon", "bitmap"):
                        items.append(_item(each, kind, size, where))
                    else:
                        skipped[kind] += 1
                except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, zlib.error) as error:
                    problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
            records.append(Record(image=shown(found, root, size), items=items))
    name = root.resolve().name + (f"-{folders[0].name}" if folders[0] != root and len(folders) == 1 else "")
    return made(records, name=name, place=root, classes=classes, problems=problems, skipped=skipped)


def _item(each: dict[str, Any], kind: str, size: tuple[int, int], where: str) -> Item:
    label = str(each["classTitle"])
    if kind == "bitmap":
        left, top = (int(value) for value in each["bitmap"]["origin"])
        return drawn_item(label, _bitmap(each["bitmap"]["data"]), (left, top), size, where)
    outer = [(float(x), float(y)) for x, y in each["points"]["exterior"]]
    if kind == "rectangle":
        return item_of_corners(label, outer, where)
    holes = each["points"].get("interior") or []
    if not holes:
        return item_of_points(label, outer, where)
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise ValueError(f"an outline with holes on {size[0]} x {size[1]} pixels")
    filled, cut = (
        Polygons(parts=tuple(np.array(part, np.float64) for part in parts)).encode(height=size[1], width=size[0])
        for parts in ([outer], holes)
    )
    return drawn_item(label, filled.decode() & ~cut.decode(), (0, 0), size, where)


def _bitmap(data: str) -> np.ndarray:
    """H x W bool of a PNG, packed by zlib and written in base64: what is opaque, or not black."""
    content = zlib.decompressobj().decompress(base64.b64decode(data), MOST_BYTES)
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a bitmap of {image.width} x {image.height} pixels")
        bands = image.convert("RGBA" if image.has_transparency_data else "L").split()
        return np.asarray(bands[-1]) > 0
