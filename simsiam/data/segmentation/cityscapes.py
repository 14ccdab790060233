"""Cityscapes with fine masks: 19 classes out of 34 label ids, the others not scored.

Source: Cordts et al. 2016. Masks are gtFine's labelIds, which are mapped here, or its labelTrainIds.
"""

from __future__ import annotations

from pathlib import Path

from simsiam.data.segmentation.masks import IGNORE, Coding, MaskSource, MaskSplits, Pair
from simsiam.errors import UserError

LABEL_IDS = {  # label id -> class, in the order of the training ids
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
CLASSES = tuple(LABEL_IDS.values())
HIGHEST_LABEL_ID = 33
IMAGE_END = "_leftImg8bit.png"
TRAIN_ID_END, LABEL_ID_END = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"


def open_cityscapes(root: Path | str) -> MaskSplits:
    """The train and val sets of leftImg8bit and gtFine below a folder.

    A set whose every mask lies there as labelTrainIds is read from these, else from labelIds. Raises UserError where
    a folder is missing or holds no image.
    """
    base = Path(root)
    for folder in ("leftImg8bit", "gtFine"):
        if not (base / folder).is_dir():
            raise UserError(
                f"{base / folder}: no such folder. Give the folder that holds leftImg8bit and gtFine, as the packages "
                "leftImg8bit_trainvaltest and gtFine_trainvaltest unpack."
            )
    return MaskSplits(train=_split(base, "train"), test=_split(base, "val"))


def _split(base: Path, split: str) -> MaskSource:
    folder = base / "leftImg8bit" / split
    images = sorted(folder.glob(f"*/*{IMAGE_END}")) if folder.is_dir() else []
    if not images:
        raise UserError(f"{folder}: no CITY/*{IMAGE_END} in it.")
    ready = all(_mask(base, image, TRAIN_ID_END).is_file() for image in images)
    pairs = [
        Pair(
            name=str(image.relative_to(base)),
            image=image,
            mask=_mask(base, image, TRAIN_ID_END if ready else LABEL_ID_END),
        )
        for image in images
    ]
    coding = Coding(ids=_train_ids() if ready else _label_ids())
    return MaskSource(pairs, name=f"cityscapes-{split}", classes=CLASSES, coding=coding)


def _mask(base: Path, image: Path, end: str) -> Path:
    name = image.name.removesuffix(IMAGE_END) + end
    return base / "gtFine" / image.parent.parent.name / image.parent.name / name


def _train_ids() -> dict[int, int]:
    return {**{number: number for number in range(len(CLASSES))}, 255: IGNORE}


def _label_ids() -> dict[int, int]:
    """Every label id there is; -1, the licence plate, is stored as 255."""
    known = dict.fromkeys([*range(HIGHEST_LABEL_ID + 1), 255], IGNORE)
    return known | {label: number for number, label in enumerate(LABEL_IDS)}
