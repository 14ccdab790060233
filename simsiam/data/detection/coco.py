"""Boxes and masks in COCO's json: COCO 2017 itself, and any file of that form."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, flag, read_json
from simsiam.data.class_names import class_name
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.instance_masks import from_coco, pixels_of
from simsiam.data.detection.records import Box, Item, Record, assembled
from simsiam.data.detection.voc import BoxSplits
from simsiam.data.find_images import ImageFinder, role_of
from simsiam.data.images import header
from simsiam.errors import UserError
from simsiam.wording import counted, plural, some

LISTS = ("images", "annotations", "categories")
FEW = 4  # boxes, of which nothing is concluded
OVER = 0.2  # of the boxes reach over the edge, where their two corners are read as a corner and a size
APART = 2.0  # pixels between a mask and its box


def open_coco2017(root: Path | str) -> BoxSplits:
    """train2017 and val2017 of COCO.

    Args:
        root: holds annotations/instances_{train,val}2017.json, and train2017 and val2017 with the images.

    Training objects of no width or height, of which train2017 has a few (from memory, not verified), are left out, as
    in the published trainings. Raises UserError where a file or folder is missing.
    """
    root = Path(root)
    for split in ("train", "val"):
        if not (root / f"{split}2017").is_dir():
            raise UserError(f"{root / f'{split}2017'}: no such folder of images.")
    train, test = (
        _open(root / "annotations" / f"instances_{split}2017.json", ImageFinder([root / f"{split}2017"]), None)
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


def open_coco(json: Path | str, images: Path | str | None, classes: Sequence[str] | None = None) -> BoxFiles:
    """Any data set in COCO's json.

    Args:
        json: with images, annotations and categories; ids may be any numbers, in any order.
        images: the folder that its file names start from; None: one of the usual places around the json.
        classes: names of the categories that count, in the order of the labels; None: all, by rising id. Give a test
            set the training set's.

    Raises UserError where the file is no such json or the folder is missing.
    """
    json, folder = Path(json), None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images.")
    role = role_of(json.stem) or role_of(json.parent.name)
    finder = ImageFinder([folder]) if folder is not None else ImageFinder(around=json.parent, role=role)
    source = _open(json, finder, classes)
    if source.images and not any(image.file.is_file() for image in source.images):
        raise UserError(
            f"{json}: none of its {counted(len(source), 'image')} is there (the first: {source.images[0].path!r}); "
            f"looked in {finder.tried}. Name their folder by --images."
        )
    _refuse_corners(source)
    source.problems += tuple(_far_masks(source))
    return source


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


def _open(json: Path, finder: ImageFinder, classes: Sequence[str] | None) -> BoxFiles:
    try:
        with _no_cycle_search():
            raw = read_json(json)
    except FileNotFoundError as error:
        raise UserError(f"{json}: no such file.") from error
    except (UnreadableAnnotation, OSError) as error:
        raise UserError(f"{json}: {error}.") from error
    missing = [key for key in LISTS if not isinstance(_get(raw, key), list)]
    if missing:
        raise UserError(f"{json}: no COCO file of objects; it lacks {', '.join(missing)}.")
    try:
        with _no_cycle_search():
            return _read(json, finder, raw, classes)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{json}: an entry of it is not of COCO's form ({type(error).__name__}: {error}).") from error


def _get(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, dict) else None


def _read(json: Path, finder: ImageFinder, raw: dict[str, Any], classes: Sequence[str] | None) -> BoxFiles:
    entries = raw["annotations"]
    notes: list[str] = []
    names = _categories(json, raw["categories"], {_id(_get(entry, "category_id")) for entry in entries}, notes)
    known = tuple(class_name(each) for each in classes) if classes is not None else tuple(names.values())
    images = []
    for entry in sorted(raw["images"], key=lambda entry: str(entry["id"]).zfill(20)):
        path = str(entry.get("file_name") or f"image {entry['id']} without a file_name")
        width, height = (int(float(entry.get(side) or 0)) for side in ("width", "height"))
        file = finder.find(path) or finder.folders[0] / path
        images.append(BoxImage(id=entry["id"], path=path, file=file, width=width, height=height))
    by_image: dict[str, list[dict[str, Any]]] = {_id(image.id): [] for image in images}
    if len(by_image) < len(images):
        raise UserError(
            f"{json}: {counted(len(images) - len(by_image), 'image id occurs', 'image ids occur')} more than once."
        )
    problems: list[Problem] = []
    for entry in entries:
        where = f"{json.name}, annotation {entry.get('id', '?')}"
        if _id(entry["image_id"]) not in by_image:
            what = f"its image {entry['image_id']!r} is not among the images"
            problems.append(Problem(kind="annotation without image", where=where, what=what))
        elif _id(entry["category_id"]) not in names:
            ids = some([f"{number} ({name})" for number, name in names.items()])
            what = f"category_id {entry['category_id']!r} is none of the categories' ids: {ids}"
            problems.append(Problem(kind="unknown class", where=where, what=what))
        else:
            by_image[_id(entry["image_id"])].append(entry)
    brushes = sum(map(_is_brush, entries))
    if brushes:
        notes.append(
            f"{json.name}: {counted(brushes, 'mask')} marked as {plural(brushes, 'a crowd', 'crowds')} as CVAT marks "
            f"what is drawn by brush: read as {plural(brushes, 'a single object', 'single objects')}."
        )
    records = []
    for image in images:
        items = []
        for entry in by_image[_id(image.id)]:
            where = f"{json.name}, annotation {entry.get('id', '?')} on {image.path}"
            try:
                items.append(_item(entry, image, names[_id(entry["category_id"])], where))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"{type(error).__name__}: {error}"
                problems.append(Problem(kind="unreadable annotation", where=where, what=what))
        records.append(Record(image=image, items=items))
    return assembled(records, name=json.stem, place=str(json), classes=known, problems=problems, notes=notes)


def _id(written: Any) -> str:
    """An id by its value: 7, 7.0 and "7" are one."""
    return str(int(written) if isinstance(written, float) and written.is_integer() else written).strip()


def _rank(entry: dict[str, Any]) -> tuple[bool, float, str]:
    """Ids in order: as numbers, then those that are none."""
    number = _id(entry["id"])
    return (False, float(number), "") if number.lstrip("-").isdecimal() else (True, 0.0, number)


def _categories(json: Path, entries: list[dict[str, Any]], used: set[str], notes: list[str]) -> dict[str, str]:
    """Names by rising id, without Roboflow's root; raises UserError on ids or names that stand for two classes.

    The root is a category above the classes that no annotation is of.
    """
    above = Counter(str(entry.get("supercategory")) for entry in entries)
    kept: list[dict[str, Any]] = []
    for entry in sorted(entries, key=_rank):
        if entry.get("name") is None or not str(entry["name"]).strip():
            raise UserError(f"{json}: the category of id {entry['id']!r} has no name.")
        if any((entry["id"], entry["name"]) == (known["id"], known["name"]) for known in kept):
            continue
        root = str(entry.get("supercategory")).lower() == "none" and _id(entry["id"]) not in used
        if root and above[str(entry["name"])] and len(entries) > 1:
            notes.append(f"{json.name}: the category {entry['name']!r} is the group of the others and was left out.")
        else:
            kept.append(entry)
    names = {_id(entry["id"]): class_name(str(entry["name"])) for entry in kept}
    if len(names) < len(kept) or len(set(names.values())) < len(names):
        raise UserError(f"{json}: a category's id or name occurs twice; each class needs its own.")
    if not names:
        raise UserError(f"{json}: no category at all.")
    return names


def _is_brush(entry: dict[str, Any]) -> bool:
    """Whether an annotation is a brush stroke of CVAT, which marks every run-length mask as a crowd."""
    return isinstance(entry.get("attributes"), dict) and isinstance(entry.get("segmentation"), dict)


def _item(entry: dict[str, Any], image: BoxImage, name: str, where: str) -> Item:
    shape = from_coco(entry.get("segmentation"), height=image.height, width=image.width)
    area, mask = float(entry.get("area") or 0), None
    if shape is not None and not (entry.get("bbox") and area > 0):
        mask = pixels_of(shape, height=image.height, width=image.width)
    if entry.get("bbox") or mask is None:
        box = _box(entry.get("bbox"))
    else:
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if not len(rows):
            raise ValueError("neither a bbox nor a pixel of a mask")
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    known = area if area > 0 else None if mask is None else float(mask.sum())
    crowd = flag(entry.get("iscrowd", 0)) and not _is_brush(entry)
    return Item(name=name, box=box, where=where, crowd=crowd, area=known, shape=shape)


def _box(found: Any) -> Box:
    try:
        x, y, width, height = (float(value) for value in found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bbox must be four numbers, x, y, width and height, not {found!r}") from error
    return x, y, x + width, y + height


def _refuse_corners(source: BoxFiles) -> None:
    """Raise UserError where the boxes fit their images, or their areas, only as two corners x1, y1, x2 and y2."""
    boxes, areas = source.objects.boxes, source.objects.area
    corner, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if len(boxes) < FEW or not (extent > corner).all():
        return
    sizes = np.array([_true_size(image) for image in source.images], np.float32).reshape(-1, 2)[source.owners]
    if not (extent <= sizes + APART).all():
        return
    over = (boxes[:, 2:] > sizes + APART).any(1).mean() > OVER
    with np.errstate(over="ignore"):
        plain, as_corners = extent.prod(1), (extent - corner).prod(1)
    if over or (np.isclose(areas, as_corners, rtol=0.02) & ~np.isclose(areas, plain, rtol=0.02)).all():
        raise UserError(
            f"{source.place}: bbox holds x, y, width and height in COCO's form, and these boxes fit their images only "
            "as two corners, x1, y1, x2 and y2. Subtract the first corner from the second, or export again."
        )


def _true_size(image: BoxImage) -> tuple[int, int]:
    """Of the file where it can be read: an annotation may have swapped the sides, which the checks report."""
    said = (image.width, image.height)
    try:
        found = header(image.file)
    except Exception:  # decoders raise many kinds on damaged input
        return said
    return said if said == found.stored else found.upright


def _far_masks(source: BoxFiles) -> Iterator[Problem]:
    """The objects whose mask does not touch their box."""
    if source.shapes is None:
        return
    boxes, extents = source.objects.boxes, source.shapes.extents
    with np.errstate(invalid="ignore"):
        apart = (np.maximum(boxes[:, :2], extents[:, :2]) > np.minimum(boxes[:, 2:], extents[:, 2:]) + APART).any(1)
    names = source.objects.names or ()
    for row in np.flatnonzero(apart).tolist():
        box, mask = (", ".join(f"{value:g}" for value in corners[row]) for corners in (boxes, extents))
        yield Problem(kind="mask far from its box", where=names[row], what=f"box ({box}), mask within ({mask})")
