"""What must hold before a detector is trained on a set, checked on every image and object, and reported together."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simsiam.data.detection.boxes import BoxImage, BoxSource, Target
from simsiam.data.detection.files import BoxFiles, Kind, Objects, Problem
from simsiam.data.images import UnreadableImage, header, read_image, turned_notes, watched
from simsiam.data.inventory import Inventory, LeftOut
from simsiam.errors import UserError
from simsiam.wording import counted, plural

Policy = Literal["stop", "drop"]
Which = Literal["ordinary", "difficult", "any"]

SHOWN = 20  # lines of a message
FRACTION = 1.05  # beyond which no corner of a box in fractions of its image lies, rounded as tools do
PERCENT, MANY_BOXES, WIDE = 100.5, 10, 200  # the same in percent, seen on so many boxes, on images of so many pixels
TOLERANCE = 1.0  # pixels by which a box may reach over the edge: tools round
MANY = 0.25  # of the objects marked as crowds, or as difficult
OF_WHAT = {  # what is left out for a problem, where it is no object
    "missing image": "image",
    "image listed twice": "image",
    "damaged image": "image",
    "image without annotation": "image",
    "image of another size": "image",
    "annotation without image": "annotation",
    "unreadable annotation": "annotation",
}
_READERS = 8  # threads that look at files at once


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A set that can be trained on or scored, and what was done to it."""

    source: BoxFiles
    notes: list[str]  # for the result: what was left out, by kind


def checked(source: BoxFiles, bad: Policy) -> Checked:
    """Look at every file and object of a set.

    Args:
        source: as read.
        bad: "stop" refuses a set with anything wrong in it. "drop" leaves out the images and objects that are, cuts
            boxes at the edge of the image, and says so in `notes`.

    Boxes that reach over the edge by a pixel at most are cut either way. Raises UserError that lists what is wrong,
    or that nothing is left.
    """
    _refuse_fractions(source)
    found = _find(source)
    problems = [*source.problems, *found.problems]
    if problems and bad == "stop":
        raise UserError(message(source, problems))
    kept = source.replaced(
        images=found.images,
        kept_images=found.good_images,
        objects=replace(found.cut, names=None),  # no message needs them any more, and they are large
        kept_objects=found.good_objects,
        problems=(),
        inventory=_account(found.good_images, problems),
    )
    if not len(kept) or not len(kept.objects.labels):
        if not problems:
            raise UserError(
                f"{source.place}: {counted(len(source), 'image')} and not one annotated object; nothing to learn from."
            )
        raise UserError(f"{source.place}: no image with a usable object is left. " + message(source, problems))
    return Checked(source=kept, notes=[*source.notes, *_cut_note(source, problems), *_flagged(kept), *found.turned])


def with_objects(source: BoxSource, which: Which = "ordinary") -> BoxSource:
    """The images that have an object: an "ordinary" one, possibly a "difficult" one, or "any", crowds among them."""
    if isinstance(source, BoxFiles):
        rows = np.unique(source.owners[_of_kind(source.objects, which)])
    else:
        rows = np.array([i for i in range(len(source)) if bool(_of_kind(source.target(i), which).any())], np.int64)
    return source if len(rows) == len(source) else source.subset(rows)


def message(source: BoxFiles, problems: Iterable[Problem]) -> str:
    """All problems as one text: how many of each kind, the first lines, and the cure."""
    problems = list(problems)
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    lines = [f"  {problem.where}: {problem.kind} ({problem.what})" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    head = f"{source.place}: {counted(len(problems), 'thing is', 'things are')} wrong ({counts}):"
    return "\n".join([head, *lines, "Fix them, or skip these images and objects with --skip-bad."])


def _of_kind(objects: Objects | Target, which: Which) -> Any:
    """M bool, an array or a tensor as the objects are."""
    if which == "any":
        return objects.crowd | ~objects.crowd
    return ~objects.crowd if which == "difficult" else ~(objects.crowd | objects.difficult)


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What the look at every file and object brought."""

    problems: list[Problem]
    images: list[BoxImage]  # with their true size where the annotation does not say it
    good_images: np.ndarray  # bool
    good_objects: np.ndarray  # M bool, apart from whether their image is good
    cut: Objects  # with boxes inside their image
    turned: list[str]  # notes on images that EXIF turns


def _find(source: BoxFiles) -> _Findings:
    with warnings.catch_warnings(), ThreadPoolExecutor(_READERS) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of large images and odd EXIF, which do no harm here
        looked = list(watched(pool.map(_look, source.images), len(source), f"checking the images of {source.name}"))
    problems = [one.problem for one in looked if one.problem is not None]
    good_images = np.array([one.problem is None for one in looked], bool)
    images = [one.image for one in looked]
    first: dict[Path, int] = {}
    for row, image in enumerate(images):
        if good_images[row] and first.setdefault(image.file, row) != row:
            good_images[row] = False
            what = f"as {images[first[image.file]].id!r} and as {image.id!r}"
            problems.append(Problem(kind="image listed twice", where=str(image.file), what=what))
    owners = source.owners
    faults = _faults(source, images, owners)
    on_good = {row: fault for row, fault in faults.items() if good_images[owners[row]]}
    good_objects = np.ones(len(owners), bool)
    good_objects[[row for row, fault in on_good.items() if fault.kind != "box outside the image"]] = False
    return _Findings(
        problems=[*problems, *(on_good[row] for row in sorted(on_good))],
        images=images,
        good_images=good_images,
        good_objects=good_objects,
        cut=replace(source.objects, boxes=_cut(source, images, owners)),
        turned=turned_notes(source.name, ((one.turned, one.image.path) for one in looked if one.problem is None)),
    )


def _faults(source: BoxFiles, images: list[BoxImage], owners: np.ndarray) -> dict[int, Problem]:
    """For each object with a fault, the gravest."""
    boxes, cut = source.objects.boxes, _cut(source, images, owners)
    numbers, fraction = np.isfinite(boxes).all(1), _fractions(boxes) & (boxes % 1 != 0).any(1)
    with np.errstate(invalid="ignore"):
        over = numbers & (np.abs(boxes - cut) > TOLERANCE).any(1)
        empty = ~numbers | (boxes[:, 2:] <= boxes[:, :2]).any(1)
        gone = over & (cut[:, 2:] <= cut[:, :2]).any(1)
    found: dict[int, Problem] = {}
    for row in np.flatnonzero(over | empty | gone | fraction).tolist():
        image = images[owners[row]]
        corners = ", ".join(f"{value:g}" for value in boxes[row])
        what = f"({corners}) on {image.width} x {image.height} pixels"
        kind: Kind = "empty box" if empty[row] else "box wholly outside" if gone[row] else "box outside the image"
        if fraction[row]:
            kind, what = "box in fractions", f"({corners}); the others are in pixels"
        found[row] = Problem(kind=kind, where=_where(source, owners, row), what=what)
    if source.shapes is None:
        return found
    for row, rle in source.shapes.rles.items():
        image = images[owners[row]]
        if row not in found and (rle.height, rle.width) != (image.height, image.width):
            what = f"{rle.width} x {rle.height} on {image.width} x {image.height} pixels"
            found[row] = Problem(kind="mask of another size", where=_where(source, owners, row), what=what)
    for row in np.flatnonzero(source.shapes.missing).tolist():
        what = "no segmentation, though others have one"
        found.setdefault(row, Problem(kind="object without mask", where=_where(source, owners, row), what=what))
    return found


def _cut(source: BoxFiles, images: list[BoxImage], owners: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        sizes = np.array([(image.width, image.height) for image in images], np.float32).reshape(-1, 2)[owners]
    cut: np.ndarray = np.clip(source.objects.boxes, 0, np.concatenate([sizes, sizes], 1))
    return cut


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """What a file's header says."""

    image: BoxImage  # with its true size where the annotation does not say it
    problem: Problem | None = None
    turned: Literal["", "stored", "unclear"] = ""  # by EXIF: boxes lie on the stored pixels, or cannot tell


def _look(image: BoxImage) -> _Looked:
    """The image with its size, or what is wrong with its file; reads the header alone."""
    try:
        found = header(image.file)
    except Exception:  # decoders raise many kinds on damaged input, and all are to be listed
        return _Looked(image=image, problem=_unreadable(image))
    said = (image.width, image.height)
    if 0 in said:
        image = replace(image, width=found.upright[0], height=found.upright[1])
        return _Looked(image=image, turned="unclear" if found.orientation in range(2, 9) else "")
    if said not in (found.stored, found.upright):
        what = f"{found.upright[0]} x {found.upright[1]} pixels, but annotated as {said[0]} x {said[1]}"
        return _Looked(image=image, problem=Problem(kind="image of another size", where=str(image.file), what=what))
    return _Looked(image=image, turned=found.turned(said))


def _unreadable(image: BoxImage) -> Problem:
    if not image.file.exists():
        return Problem(kind="missing image", where=str(image.file), what="no such file")
    kind: Kind = "damaged image" if image.file.is_file() else "missing image"
    try:
        read_image(image.file, name=image.path)  # says why in plain words
    except UnreadableImage as error:
        return Problem(kind=kind, where=str(image.file), what=error.reason)
    return Problem(kind=kind, where=str(image.file), what="its header cannot be read")


def _refuse_fractions(source: BoxFiles) -> None:
    """Raise UserError where most boxes are fractions of their image."""
    boxes = source.objects.boxes
    within = int(_fractions(boxes).sum())
    if 2 * within > len(boxes):
        which = "all" if within == len(boxes) else f"{within} of"
        raise UserError(
            f"{source.place}: {which} {counted(len(boxes), 'box', 'boxes')} lie between 0 and 1, so they are fractions "
            "of their image and not pixels. Multiply them by its width and height, or export them in pixels."
        )


def _fractions(boxes: np.ndarray) -> np.ndarray:
    """M bool: the boxes whose corners all lie between 0 and 1."""
    within: np.ndarray = (np.abs(boxes) <= FRACTION).all(1)
    return within


def _flagged(source: BoxFiles) -> list[str]:
    """A word on objects that count for nothing or count twice, and on boxes that look like percentages."""
    total, notes, boxes = len(source.objects.labels), [], source.objects.boxes
    whole = np.column_stack([source.owners, source.objects.labels, boxes])
    if copies := total - len(np.unique(whole, axis=0)):
        notes.append(
            f"{source.name}: {copies} of {counted(total, 'object')} {plural(copies, 'repeats', 'repeat')} another of "
            "the same class and box, and will count as missed: remove them."
        )
    smallest = min(min(image.width, image.height) for image in source.images)
    if total >= MANY_BOXES and smallest > WIDE and 0.9 * PERCENT < boxes.max() <= PERCENT:
        notes.append(
            f"{source.name}: no box reaches beyond the first 100 pixels of its image, though the images have "
            f"{smallest} and more: are they percentages? Then export them in pixels."
        )
    for flags, words in ((source.objects.crowd, "crowds"), (source.objects.difficult, "difficult")):
        if flags.sum() > MANY * total:
            notes.append(
                f"{source.name}: {int(flags.sum())} of {counted(total, 'object')} are marked as {words}, and are "
                "neither learnt nor scored like the others."
            )
    return notes


def _where(source: BoxFiles, owners: np.ndarray, row: int) -> str:
    if source.objects.names is not None:
        return source.objects.names[row]
    image = int(owners[row])
    return f"{source.images[image].path}, object {row - source.rows(image).start + 1}"


def _cut_note(source: BoxFiles, problems: list[Problem]) -> list[str]:
    cut = sum(problem.kind == "box outside the image" for problem in problems)
    return [f"{source.name}: boxes cut at the edge of their image: {cut}."] if cut else []


def _account(good_images: np.ndarray, problems: list[Problem]) -> Inventory:
    """What is used of a set and what is left out, by kind."""
    counts = Counter(problem.kind for problem in problems if problem.kind != "box outside the image")
    first = {problem.kind: problem.where for problem in reversed(problems)}
    left = tuple(
        LeftOut(what=OF_WHAT.get(kind, "object"), count=count, reason=f"{kind}; the first: {first[kind]}")
        for kind, count in counts.most_common()
    )
    used = int(good_images.sum())
    return Inventory(found=used + sum(each.count for each in left if each.what == "image"), used=used, left_out=left)
