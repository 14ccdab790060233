"""From the folders that a person names to checked sets to learn from and to be scored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simsiam.data.detection.boxes import BoxSource
from simsiam.data.detection.checks import Policy, checked
from simsiam.data.detection.cityscapes import open_cityscapes_instances
from simsiam.data.detection.coco import open_coco, open_coco2017
from simsiam.data.detection.files import BoxFiles
from simsiam.data.detection.voc import FirstPixel, open_voc07, open_voc0712, open_voc_folder
from simsiam.errors import UserError
from simsiam.wording import plural

Kind = Literal["voc0712", "voc07", "coco2017", "cityscapes", "folder"]
HELD_OUT = 5  # one image in so many, where no test set is named


@dataclass(frozen=True, kw_only=True)
class BoxSets:
    """What a detector learns from and what it is scored on."""

    train: BoxSource
    test: BoxSource
    notes: tuple[str, ...] = ()  # what was done to them, for the result


@dataclass(frozen=True, kw_only=True)
class DatasetArgs:
    """What was named."""

    data: Path
    images: Path | None
    test: Path | None
    test_images: Path | None
    first_pixel: FirstPixel


def open_sets(kind: Kind, words: DatasetArgs, *, bad: Policy) -> BoxSets:
    """The sets, checked file by file and object by object.

    Raises UserError that lists what is wrong with them, unless `bad` says to leave it out.
    """
    if kind == "folder":
        return _own(words, bad)
    if words.images is not None or words.test is not None or words.test_images is not None:
        raise UserError("--images, --test and --test-images belong to detection-folder; this set has its own splits.")
    readers = {
        "voc0712": open_voc0712,
        "voc07": open_voc07,
        "coco2017": open_coco2017,
        "cityscapes": open_cityscapes_instances,
    }
    splits = readers[kind](words.data)
    train, test = checked(splits.train, bad), checked(splits.test, bad)
    return BoxSets(train=train.source, test=test.source, notes=(*train.notes, *test.notes))


def _own(words: DatasetArgs, bad: Policy) -> BoxSets:
    whole = checked(_any(words.data, words.images, words.first_pixel, classes=None), bad)
    if words.test is not None:
        usual = words.images if words.test.is_file() else None
        images = words.test_images if words.test_images is not None else usual
        test = checked(_any(words.test, images, words.first_pixel, classes=whole.source.classes), bad)
        notes = (*whole.notes, *test.notes)
        return BoxSets(train=whole.source, test=test.source, notes=notes)
    count = len(whole.source)
    if count < 2:
        raise UserError(f"{words.data}: one image only; to hold some out for the score it takes two, or name --test.")
    held = np.zeros(count, bool)
    held[np.random.default_rng(0).permutation(count)[: max(1, count // HELD_OUT)]] = True
    out = int(held.sum())
    note = f"{out} of {count} images {plural(out, 'was', 'were')} held out to be scored on, drawn by seed 0"
    return BoxSets(
        train=whole.source.subset(np.flatnonzero(~held)),
        test=whole.source.subset(np.flatnonzero(held)),
        notes=(*whole.notes, note),
    )


def _any(place: Path, images: Path | None, first_pixel: FirstPixel, classes: tuple[str, ...] | None) -> BoxFiles:
    """A VOC-XML folder, or a COCO json with its folder of images (its own, where none is named)."""
    if not place.exists():
        raise UserError(f"{place}: no such file or folder.")
    if place.is_dir():
        if images is not None:
            raise UserError(
                f"--images {images}: goes with a COCO json, and {place} is a folder. Images of VOC-XML annotations lie "
                "beside them, or in JPEGImages or images in that folder."
            )
        return open_voc_folder(place, classes, first_pixel=first_pixel)
    return open_coco(place, images, classes)
