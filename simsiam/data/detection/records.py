"""What the reader of any layout finds on an image, and the set that a list of such images is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from simsiam.data.class_names import class_name, look_alike, refuse_look_alikes
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Objects, Problem, Shapes
from simsiam.data.detection.instance_masks import Polygons, Rle
from simsiam.wording import some

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One annotated object."""

    name: str  # of its class, as written
    box: Box  # x1 y1 x2 y2, pixels counted from 0, continuous
    where: str  # what a message calls it
    difficult: bool = False
    crowd: bool = False
    area: float | None = None  # square pixels; None: of the box
    shape: Polygons | Rle | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image with what is annotated on it."""

    image: BoxImage
    items: Sequence[Item]


def assembled(
    records: Sequence[Record],
    *,
    name: str,
    place: str,
    classes: Sequence[str] | None,
    problems: Iterable[Problem],
    notes: Iterable[str] = (),
) -> BoxFiles:
    """The set of these images.

    Args:
        classes: the names that count, in the order of the labels; None: all that occur, sorted. An object of another
            class becomes a problem of the set.

    Names that differ in blanks or Unicode form are one class, which `notes` says. Raises UserError where two classes
    differ in capitals alone.
    """
    problems, spellings = list(problems), _spellings(item.name for record in records for item in record.items)
    known = tuple(class_name(each) for each in classes) if classes is not None else tuple(sorted(spellings))
    refuse_look_alikes(place, known)
    number = {written: known.index(each) + 1 for each in known for written in spellings.get(each, ())}
    kept: list[list[Item]] = []
    for record in records:
        kept.append([item for item in record.items if item.name in number])
        for item in record.items:
            if item.name not in number:
                problems.append(Problem(kind="unknown class", where=item.where, what=_unknown(item.name, known)))
    items = [item for one in kept for item in one]
    boxes = np.array([item.box for item in items], np.float64).reshape(-1, 4)
    areas = [item.area if item.area is not None else np.nan for item in items]
    with np.errstate(over="ignore"):  # of numbers that no image has, which the checks report
        as_float = boxes.astype(np.float32)
        area = np.where(np.isnan(areas), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), areas).astype(np.float32)
    shapes = Shapes.of([item.shape if item.shape is not None else Polygons(parts=()) for item in items])
    return BoxFiles(
        name=name,
        place=place,
        classes=known,
        images=[record.image for record in records],
        counts=np.array([len(one) for one in kept], np.int64),
        objects=Objects(
            boxes=as_float,
            labels=np.array([number[item.name] for item in items], np.int64),
            difficult=np.array([item.difficult for item in items], bool),
            crowd=np.array([item.crowd for item in items], bool),
            area=area,
            names=tuple(item.where for item in items),
        ),
        shapes=shapes if not shapes.missing.all() else None,
        problems=problems,
        notes=[*notes, *_said(name, spellings)],
    )


def _spellings(names: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for written in set(names):
        found[class_name(written)].add(written)
    return found


def _said(place: str, spellings: dict[str, set[str]]) -> list[str]:
    several = [sorted(map(repr, written | {name})) for name, written in spellings.items() if written != {name}]
    return [f"{place}: {' and '.join(written)} look the same and were read as one class." for written in several]


def _unknown(name: str, known: Sequence[str]) -> str:
    other = look_alike(name, known)
    return f"{name!r} is not among {some(known)}" + (f"; it differs from {other!r} in capitals alone" if other else "")
