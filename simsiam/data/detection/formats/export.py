"""What a format finds in a place: how to read each of its parts, and the records that small formats are read into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.instance_masks import MOST_PIXELS, Polygons, encode
from simsiam.data.detection.records import Item, Record, assembled
from simsiam.data.detection.voc import FirstPixel
from simsiam.data.find_images import split_folders
from simsiam.wording import counted, plural

Reader = Callable[[Sequence[str] | None], BoxFiles]  # of the classes that count, None: all that occur


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a person named."""

    place: Path  # a file or folder that exists
    images: Path | None = None  # the folder of the images, where they lie elsewhere
    first_pixel: FirstPixel = 0  # of VOC-XML


@dataclass(frozen=True, kw_only=True)
class Export:
    """A place whose format is known."""

    words: str  # what it is, for a person: "Roboflow COCO export"
    parts: Mapping[str, Reader]  # by the name that the export gives a split; "": all in one
    notes: tuple[str, ...] = ()  # how it was understood, where that may surprise


def in_splits(root: Path, holds: Callable[[Path], bool]) -> dict[str, Path]:
    """The folders of the splits that hold annotations, by name, or the root itself under ""; empty without any."""
    found = {name: folder for name, folder in split_folders(root).items() if holds(folder)}
    return found or ({"": root} if holds(root) else {})


def tool_of(root: Path) -> str:
    """The labelling tool that left its mark in a folder, with a blank behind it; "" where none is known."""
    names = {each.name.lower() for each in root.iterdir()} if root.is_dir() else set()
    if names & {"readme.roboflow.txt", "readme.dataset.txt"}:
        return "Roboflow "
    return "Label Studio " if "notes.json" in names else ""


def shown(file: Path, root: Path, size: tuple[int, int] = (0, 0)) -> BoxImage:
    """The record of an image below a root."""
    path = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return BoxImage(id=path, path=path, file=file, width=size[0], height=size[1])


def made(
    records: Sequence[Record],
    *,
    name: str,
    place: Path,
    classes: Sequence[str] | None,
    problems: Iterable[Problem],
    skipped: Counter[str] | None = None,
) -> BoxFiles:
    """The set of a small format: with masks where every object has one, with a note on what was skipped.

    Args:
        skipped: what no detector learns from, by kind: {"point": 3}.
    """
    notes = [
        f"{name}: skipped {counted(count, kind.removesuffix('s'))}."
        for kind, count in sorted((skipped or Counter()).items())
    ]
    drawn = [item.shape is not None for record in records for item in record.items]
    if any(drawn) and not all(drawn):
        few = len(drawn) - sum(drawn)
        notes.append(
            f"{name}: {few} of {counted(len(drawn), 'object')} {plural(few, 'has', 'have')} no outline: boxes only."
        )
        records = [
            replace(record, items=[replace(item, shape=None, area=None) for item in record.items]) for record in records
        ]
    return assembled(records, name=name, place=str(place), classes=classes, problems=problems, notes=notes)


def item_of_corners(name: str, points: Sequence[tuple[float, float]], where: str) -> Item:
    """An object of a rectangle, of two corners or all four; it has no outline."""
    xs, ys = zip(*points, strict=True)
    return Item(name=name, box=(min(xs), min(ys), max(xs), max(ys)), where=where)


def item_of_points(name: str, points: Sequence[tuple[float, float]], where: str) -> Item:
    """An object of an outline; raises ValueError for fewer than three corners."""
    if len(points) < 3:
        raise ValueError(f"an outline of {counted(len(points), 'corner')}")
    corners = np.array(points, np.float64)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    ahead = np.roll(corners, -1, axis=0)
    area = abs(float((corners[:, 0] * ahead[:, 1] - corners[:, 1] * ahead[:, 0]).sum())) / 2
    return Item(name=name, box=(x1, y1, x2, y2), where=where, area=area, shape=Polygons(parts=(corners,)))


def drawn_item(name: str, drawn: np.ndarray, corner: tuple[int, int], size: tuple[int, int], where: str) -> Item:
    """An object of a mask (h x w bool) with its first pixel at `corner`, x and y, of an image of width and height.

    Raises ValueError where it lies over the image's edge or has no pixel.
    """
    (height, width), (left, top) = drawn.shape, corner
    inside = 0 <= left <= left + width <= size[0] and 0 <= top <= top + height <= size[1]
    if not inside or not 0 < size[0] * size[1] <= MOST_PIXELS or not drawn.any():
        raise ValueError(f"a mask of {width} x {height} at {left}, {top} on {size[0]} x {size[1]} pixels")
    pixels = np.zeros((size[1], size[0]), bool)
    pixels[top : top + height, left : left + width] = drawn
    columns, rows = np.flatnonzero(pixels.any(0)), np.flatnonzero(pixels.any(1))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Item(name=name, box=box, where=where, area=float(drawn.sum()), shape=encode(pixels[None])[0])
