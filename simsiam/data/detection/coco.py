"""Boxes and masks in COCO's json: COCO 2017 itself, and any file of that form."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simsiam.data.classification.voc import some
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Objects, Problem, Shapes
from simsiam.data.detection.instance_masks import Polygons, Rle, from_runs
from simsiam.data.detection.voc import BoxSplits
from simsiam.errors import UserError
from simsiam.results import read_json
from simsiam.wording import counted


def open_coco2017(root: Path | str) -> BoxSplits:
    """train2017 and val2017 of COCO.

    Args:
        root: holds annotations/instances_{train,val}2017.json, and train2017 and val2017 with the images.

    Training objects of no width or height, of which train2017 has a few (from memory, not verified), are left out, as
    in the published trainings. Raises UserError where a file or folder is missing.
    """
    root = Path(root)
    train, test = (
        open_coco(root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017")
        for split in ("train", "val")
    )
    return BoxSplits(train=_with_extent(train), test=test)


def _with_extent(source: BoxFiles) -> BoxFiles:
    """The set without objects of no width or height."""
    boxes = source.objects.boxes
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    if kept.all():
        return source
    whole = np.ones(len(source), bool)
    return source.replaced(
        images=source.images,
        kept_images=whole,
        objects=source.objects,
        kept_objects=kept,
        problems=source.problems,
    )


def open_coco(json: Path | str, images: Path | str, classes: Sequence[str] | None = None) -> BoxFiles:
    """Any data set in COCO's json.

    Args:
        json: with images, annotations and categories; ids may be any numbers, in any order.
        images: the folder that its file names start from.
        classes: names of the categories that count, in the order of the labels; None: all, by rising id. Give a test
            set the training set's.

    Raises UserError where the file is no such json or the folder is missing.
    """
    json, folder = Path(json), Path(images)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images.")
    with _no_cycle_search():
        return _open(json, folder, classes)


@contextlib.contextmanager
def _no_cycle_search() -> Iterator[None]:
    """Without the garbage collector: millions of small records are made and none is in a cycle; a third faster."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _open(json: Path, folder: Path, classes: Sequence[str] | None) -> BoxFiles:
    raw = read_json(json)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(_get(raw, key), list)]
    if missing:
        raise UserError(f"{json}: no COCO file of objects; it lacks {', '.join(missing)}.")
    try:
        return _read(json, folder, raw, classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{json}: an entry of it is not of COCO's form ({type(error).__name__}: {error}).") from error


def _get(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, dict) else None


@dataclass(kw_only=True)
class _Gathered:
    """The objects of the set as they are read."""

    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    shapes: list[Polygons | Rle] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _read(json: Path, folder: Path, raw: dict[str, Any], classes: Sequence[str] | None) -> BoxFiles:
    names = _categories(json, raw["categories"])
    known = tuple(classes) if classes is not None else tuple(names.values())
    label = {name: number for number, name in enumerate(known, 1)}
    images = [
        BoxImage(
            id=entry["id"],
            path=str(entry["file_name"]),
            file=folder / str(entry["file_name"]),
            width=int(entry.get("width") or 0),
            height=int(entry.get("height") or 0),
        )
        for entry in sorted(raw["images"], key=lambda entry: str(entry["id"]).zfill(20))
    ]
    by_image: dict[int | str, list[dict[str, Any]]] = {image.id: [] for image in images}
    if len(by_image) < len(images):
        raise UserError(
            f"{json}: {counted(len(images) - len(by_image), 'image id occurs', 'image ids occur')} more than once."
        )
    gathered = _Gathered()
    for entry in raw["annotations"]:
        where = f"{json.name}, annotation {entry.get('id', '?')}"
        if entry["image_id"] not in by_image:
            what = f"its image {entry['image_id']!r} is not among the images"
            gathered.problems.append(Problem(kind="annotation without image", where=where, what=what))
        elif entry["category_id"] not in names:
            ids = some([f"{number!r} ({name})" for number, name in names.items()])
            what = f"category_id {entry['category_id']!r} is none of the categories' ids: {ids}"
            gathered.problems.append(Problem(kind="unknown class", where=where, what=what))
        elif names[entry["category_id"]] not in label:
            what = f"category {names[entry['category_id']]!r} is not among {some(known)}"
            gathered.problems.append(Problem(kind="unknown class", where=where, what=what))
        else:
            by_image[entry["image_id"]].append(entry)
    counts = np.zeros(len(images), np.int64)
    for row, image in enumerate(images):
        for entry in by_image[image.id]:
            where = f"{json.name}, annotation {entry.get('id', '?')} on {image.path}"
            try:
                _add(gathered, entry, image, label[names[entry["category_id"]]], where)
            except (KeyError, TypeError, ValueError) as error:
                what = f"{type(error).__name__}: {error}"
                gathered.problems.append(Problem(kind="unreadable annotation", where=where, what=what))
                continue
            counts[row] += 1
    shapes = Shapes.of(gathered.shapes)
    return BoxFiles(
        name=json.stem,
        place=str(json),
        classes=known,
        images=images,
        counts=counts,
        objects=_objects(gathered),
        shapes=shapes if not shapes.missing.all() else None,
        problems=gathered.problems,
    )


def _objects(gathered: _Gathered) -> Objects:
    return Objects(
        boxes=np.array(gathered.boxes, np.float32).reshape(-1, 4),
        labels=np.array(gathered.labels, np.int64),
        difficult=np.zeros(len(gathered.labels), bool),
        crowd=np.array(gathered.crowd, bool),
        area=np.array(gathered.area, np.float32),
        names=tuple(gathered.names),
    )


def _categories(json: Path, entries: list[dict[str, Any]]) -> dict[Any, str]:
    """Names by rising id; raises UserError on ids or names that occur twice."""
    names = {entry["id"]: str(entry["name"]) for entry in sorted(entries, key=lambda entry: entry["id"])}
    if len(names) < len(entries) or len(set(names.values())) < len(names):
        raise UserError(f"{json}: a category's id or name occurs twice; each class needs its own.")
    if not names:
        raise UserError(f"{json}: no category at all.")
    return names


def _add(gathered: _Gathered, entry: dict[str, Any], image: BoxImage, label: int, where: str) -> None:
    shape = _shape(entry.get("segmentation"), image)
    mask = _pixels(shape, image) if shape is not None and not {"bbox", "area"} <= entry.keys() else None
    if "bbox" in entry or mask is None:
        x, y, width, height = _box(entry["bbox"])
    else:
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if not len(rows):
            raise ValueError("neither a bbox nor a pixel of a mask")
        x, y = float(columns[0]), float(rows[0])
        width, height = float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)
    area = float(entry["area"]) if "area" in entry else width * height if mask is None else float(mask.sum())
    gathered.boxes.append((x, y, x + width, y + height))
    gathered.labels.append(label)
    gathered.crowd.append(bool(entry.get("iscrowd", 0)))
    gathered.area.append(area)
    gathered.names.append(where)
    gathered.shapes.append(shape if shape is not None else Polygons(parts=()))


def _box(found: Any) -> list[float]:
    try:
        x, y, width, height = (float(value) for value in found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bbox must be four numbers, x, y, width and height, not {found!r}") from error
    return [x, y, width, height]


def _pixels(shape: Polygons | Rle, image: BoxImage) -> np.ndarray:
    rle = shape if isinstance(shape, Rle) else shape.encode(height=image.height, width=image.width)
    return rle.decode()


def _shape(found: Any, image: BoxImage) -> Polygons | Rle | None:
    """A segmentation in any of COCO's three forms; None where there is none, or none with an inside."""
    if not found:
        return None
    if isinstance(found, list):
        for part in found:
            if len(part) % 2:
                raise ValueError(f"a polygon of {counted(len(part), 'number')}; it takes pairs, x and y of each corner")
        parts = [np.array(part, np.float64).reshape(-1, 2) for part in found]
        parts = [part for part in parts if len(part) >= 3]
        return Polygons(parts=tuple(parts)) if parts else None
    height, width = (int(side) for side in found["size"])
    counts = found["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise ValueError(
                f"run lengths of {image.path} add up to {counted(sum(counts), 'pixel')}, not {height} x {width}"
            )
        return from_runs(counts, height=height, width=width)
    return Rle(height=height, width=width, counts=counts.encode("ascii"))
