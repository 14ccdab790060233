"""From the folders that a person names to checked sets to learn from and to be scored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simsiam.data.detection.boxes import BoxSource
from simsiam.data.detection.checks import Policy, checked
from simsiam.data.detection.cityscapes import open_cityscapes_instances
from simsiam.data.detection.coco import open_coco2017
from simsiam.data.detection.formats import recognise
from simsiam.data.detection.voc import FirstPixel, open_voc07, open_voc0712
from simsiam.data.inventory import beside
from simsiam.errors import UserError
from simsiam.wording import plural, some

Kind = Literal["voc0712", "voc07", "coco2017", "cityscapes"]
TEXTS = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".data", ".md", ".cache")  # beside images
HELD_OUT = 5  # one image in so many, where no test set is named


@dataclass(frozen=True, kw_only=True)
class BoxSets:
    """What a detector learns from and what it is scored on."""

    train: BoxSource
    test: BoxSource
    notes: tuple[str, ...] = ()  # what was done to them, for the result


def open_published(kind: Kind, data: Path, *, bad: Policy) -> BoxSets:
    """A published set's own splits, checked file by file and object by object.

    Raises UserError that lists what is wrong with them, unless `bad` says to leave it out.
    """
    readers = {
        "voc0712": open_voc0712,
        "voc07": open_voc07,
        "coco2017": open_coco2017,
        "cityscapes": open_cityscapes_instances,
    }
    splits = readers[kind](data)
    train, test = checked(splits.train, bad), checked(splits.test, bad)
    return BoxSets(train=train.source, test=test.source, notes=(*train.notes, *test.notes))


def open_own(
    data: Path,
    *,
    images: Path | None = None,
    test: Path | None = None,
    test_images: Path | None = None,
    first_pixel: FirstPixel = 0,
    bad: Policy,
) -> BoxSets:
    """A set of one's own: with a test set, with its own split, or with a part held out; checked as a published one.

    Raises UserError as `open_published`, or where one image is all there is.
    """
    found = recognise(data, images=images, first_pixel=first_pixel)
    train = found.part("train")
    scored = (found.part("val") or found.part("test")) if train is not None else None
    first = train if train is not None else next(iter(found.parts))
    whole = checked(found.parts[first], bad)
    files = (image.file for part in found.parts.values() for image in part.images)
    whole.source.leave_out(beside(files, annotations=TEXTS))
    classes = whole.source.classes
    if test is not None:
        usual = images if test.is_file() else None
        test_images = test_images if test_images is not None else usual
        other = recognise(test, images=test_images, first_pixel=first_pixel, classes=classes)
        name = other.part("test") or other.part("val") or next(iter(other.parts))
        apart = checked(other.parts[name], bad)
        notes = [f"{data}: {found.sentence}.", *found.notes, f"{test}: {other.sentence}.", *other.notes]
        return _sets(whole.source, apart.source, [*notes, *whole.notes, *apart.notes])
    if scored is not None:
        apart = checked(found.parts[scored], bad)
        note = f"{data}: {found.sentence}. Trained on {first} and scored on {scored}, its own split"
        unused = [name for name in found.parts if name not in (first, scored)]
        note += f"; {', '.join(unused)} is not used." if unused else "."
        return _sets(whole.source, apart.source, [note, *found.notes, *whole.notes, *apart.notes])
    count = len(whole.source)
    if count < 2:
        raise UserError(f"{data}: one image only; to hold some out for the score it takes two, or name --test.")
    order = np.random.default_rng(0).permutation(count)
    chosen = order[: max(1, count // HELD_OUT)]
    shown = np.unique(whole.source.owners[~(whole.source.objects.crowd | whole.source.objects.difficult)])
    if not np.isin(chosen, shown).any():  # nothing could be scored on them
        chosen[0] = next((row for row in order if row in shown), chosen[0])
    held = np.zeros(count, bool)
    held[chosen] = True
    out = int(held.sum())
    note = f"{out} of {count} images {plural(out, 'was', 'were')} held out to be scored on, drawn by seed 0"
    return _sets(
        whole.source.subset(np.flatnonzero(~held)),
        whole.source.subset(np.flatnonzero(held)),
        [f"{data}: {found.sentence}.", *found.notes, *whole.notes, note],
    )


def _sets(train: BoxSource, test: BoxSource, notes: list[str]) -> BoxSets:
    """Both sets, with a word on classes that one of them has no object of."""
    for source, what in ((train, "training"), (test, "test")):
        shown: set[int] = set()
        for index in range(len(source)):
            target = source.target(index)
            shown.update(target.labels[~target.crowd].tolist())
        absent = [name for number, name in enumerate(source.classes, 1) if number not in shown]
        if absent:
            without = "the mean is over the others" if what == "test" else "it cannot be learnt"
            notes.append(f"no {what} object of {some(absent)}: {without}.")
    return BoxSets(train=train, test=test, notes=tuple(notes))
