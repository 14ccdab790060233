"""Label Studio's own json, full and "min": tasks with regions in percent of the image, as boxes, outlines or brush."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, read_json, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, drawn_item, item_of_points, made, shown
from simsiam.data.detection.instance_masks import MOST_PIXELS
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import ImageFinder, visible
from simsiam.errors import UserError

KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels")
HEAD = 20000  # letters
COUNT_BITS, WORD_BITS, LENGTH_BITS = 32, 5, 4  # of a stroke: its values, a word's size, the four sizes of lengths


def find(given: Given) -> Export | None:
    """A json of tasks, or the only one in a folder."""
    root = given.place
    files = [root] if root.is_file() else visible(root.glob("*.[jJ][sS][oO][nN]"))
    files = [file for file in files if _is_tasks(file)]
    if len(files) > 1:
        raise UserError(f"{root}: several files of tasks, {files[0].name} and {files[1].name}; name one as --data.")
    return Export(words="Label Studio json", parts={"": partial(_read, files[0], given.images)}) if files else None


def _is_tasks(file: Path) -> bool:
    if file.suffix.lower() != ".json":
        return False
    try:
        head = read_text(file)[:HEAD]
    except (UnreadableAnnotation, OSError):
        return False
    return head.lstrip().startswith("[") and ('"original_width"' in head or '"to_name"' in head or '"data"' in head)


def _read(file: Path, images: Path | None, classes: Sequence[str] | None) -> BoxFiles:
    try:
        tasks = read_json(file)
    except (UnreadableAnnotation, OSError) as error:
        raise UserError(f"{file}: {error}.") from error
    finder = ImageFinder([images] if images else [], around=file.parent)
    records: list[Record] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for number, task in enumerate(tasks, 1):
        where = f"{file.name}, task {task.get('id', number) if isinstance(task, dict) else number}"
        try:
            names, regions = _names(task), _regions(task, skipped)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            problems.append(Problem(kind="unreadable annotation", where=where, what=what))
            continue
        if regions is None:
            skipped["task that no one annotated"] += 1
            continue
        found = finder.find(*names)
        if found is None:
            what = f"{names[0] if names else 'no image named'}; looked in {finder.tried}"
            problems.append(Problem(kind="missing image", where=where, what=what))
            continue
        items, size = [], (0, 0)
        for place, region in enumerate(regions, 1):
            at = f"{where}, region {place}"
            try:
                size = int(region["original_width"]), int(region["original_height"])
                items.append(_item(region, size, at))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
                what = f"{type(error).__name__}: {error}"
                problems.append(Problem(kind="unreadable annotation", where=at, what=what))
        records.append(Record(image=shown(found, file.parent, size), items=items))
    name = file.resolve().parent.name
    return made(records, name=name, place=file, classes=classes, problems=problems, skipped=skipped)


def _names(task: dict[str, Any]) -> list[str]:
    """What the task calls its image: the upload's file, and every text of its data that may be one."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = [task.get("file_upload"), *(data or {}).values()]
    return [text for text in texts if isinstance(text, str) and "." in text and "\n" not in text]


def _regions(task: dict[str, Any], skipped: Counter[str]) -> list[dict[str, Any]] | None:
    """The regions of the first annotation that was not cancelled, each with its values; None: not annotated."""
    if "annotations" in task or "completions" in task:
        done = [
            each for each in task.get("annotations") or task.get("completions") or [] if not each.get("was_cancelled")
        ]
        if not done:
            return None
        if len(done) > 1:
            skipped["annotation that came second"] += len(done) - 1
        written = [{**each, **each.get("value", {})} for each in done[0]["result"]]
    else:
        lists = (value for value in task.values() if isinstance(value, list))
        written = [each for value in lists for each in value if isinstance(each, dict)]
    regions = []
    for each in written:
        if any(kind in each for kind in KINDS):
            regions.append(each)
        elif each.get("type") not in (None, "choices", "textarea", "rating", "relation"):
            skipped[str(each["type"]).removesuffix("labels")] += 1
    return regions


def _item(region: dict[str, Any], size: tuple[int, int], where: str) -> Item:
    if region.get("image_rotation"):
        raise ValueError(
            f"its image was turned by {region['image_rotation']} degrees in the tool; turn the file itself"
        )
    kind = next(each for each in KINDS if each in region)
    label, x_unit, y_unit = str(region[kind][0]), size[0] / 100, size[1] / 100
    if kind == "polygonlabels":
        return item_of_points(label, [(float(x) * x_unit, float(y) * y_unit) for x, y in region["points"]], where)
    if kind == "brushlabels":
        return drawn_item(label, _brush(region["rle"], size), (0, 0), size, where)
    x, y = float(region["x"]) * x_unit, float(region["y"]) * y_unit
    if kind == "ellipselabels":
        rx, ry = float(region["radiusX"]) * x_unit, float(region["radiusY"]) * y_unit
        return Item(name=label, box=(x - rx, y - ry, x + rx, y + ry), where=where)
    width, height = float(region["width"]) * x_unit, float(region["height"]) * y_unit
    if not region.get("rotation"):
        return Item(name=label, box=(x, y, x + width, y + height), where=where)
    turn = radians(float(region["rotation"]))  # clockwise about the first corner
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    points = [(x + a * cos(turn) - b * sin(turn), y + a * sin(turn) + b * cos(turn)) for a, b in corners]
    return item_of_points(label, points, where)


def _brush(packed: list[int], size: tuple[int, int]) -> np.ndarray:
    """H x W bool of a stroke's alpha: a stream of bits, runs of one word and stretches of single words in turn."""
    bits, place = "".join(f"{int(byte):08b}" for byte in packed), 0

    def number(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)  # ValueError where the stream has ended

    count, word = number(COUNT_BITS), number(WORD_BITS) + 1
    lengths = [number(LENGTH_BITS) + 1 for _ in range(4)]
    if count != 4 * size[0] * size[1] or not 0 < count <= 4 * MOST_PIXELS:
        raise ValueError(f"a stroke of {count} values on {size[0]} x {size[1]} pixels")
    values, at = np.zeros(count, np.int64), 0
    while at < count:
        same, length = number(1), lengths[number(2)]
        stop = min(at + number(length) + 1, count)
        values[at:stop] = number(word) if same else [number(word) for _ in range(at, stop)]
        at = stop
    alpha: np.ndarray = values.reshape(size[1], size[0], 4)[..., 3] > 0
    return alpha
