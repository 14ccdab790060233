"""Circles, squares and triangles on noise, with masks: a VOC2012 tree, a Cityscapes tree, plain folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle")
VOC_IDS = {"circle": 1, "square": 8, "triangle": 15}  # aeroplane, cat and person lend their ids
CITY_LABEL_IDS = {"ground": 7, "circle": 24, "square": 26, "triangle": 21}  # road, person, car, vegetation
CONTOUR = 255
COLOURS = ((230, 60, 50), (60, 210, 70), (70, 90, 240))
Colours = Literal["random", "by kind"]


@dataclass(frozen=True)
class Scene:
    image: Image.Image
    kinds: np.ndarray  # H x W: 0 ground, 1 circle, 2 square, 3 triangle


def scene(seed: int, *, size: tuple[int, int] = (64, 64), colours: Colours = "random") -> Scene:
    """One to three shapes of random size and place on coloured noise; the later ones cover the earlier.

    Their colour is random too, or, for a set that is learnt in seconds, each kind has its own on dark ground.
    """
    random = np.random.default_rng([seed, 77])
    width, height = size
    ground = random.integers(0, 256 if colours == "random" else 60, 3) + random.normal(0, 20, (height, width, 3))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    kinds = Image.new("L", size, 0)
    for _ in range(int(random.integers(1, 4))):
        number = int(random.integers(0, 3))
        side = int(min(size) * random.uniform(0.3, 0.6))
        left, top = (int(random.integers(0, extent - side)) for extent in size)
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        colour = colour if colours == "random" else COLOURS[number]
        for sheet, fill in ((image, colour), (kinds, number + 1)):
            pen = ImageDraw.Draw(sheet)
            box = (left, top, left + side, top + side)
            if number == 0:
                pen.ellipse(box, fill=fill)
            elif number == 1:
                pen.rectangle(box, fill=fill)
            else:
                pen.polygon([(left, top + side), (left + side, top + side), (left + side // 2, top)], fill=fill)
    return Scene(image=image, kinds=np.asarray(kinds))


def recoded(kinds: np.ndarray, ground: int, ids: dict[str, int]) -> np.ndarray:
    """The kinds as the ids of a data set."""
    return np.array([ground, *(ids[kind] for kind in KINDS)], np.uint8)[kinds]


def with_contours(mask: np.ndarray) -> np.ndarray:
    """The mask with a line of 255 where classes meet, as VOC's have."""
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return np.where(edge, np.uint8(CONTOUR), mask)


def voc12aug(
    root: Path,
    *,
    train: int = 4,
    aug: int = 8,
    val: int = 4,
    size: tuple[int, int] = (64, 64),
    colours: Colours = "random",
) -> Path:
    """A VOCdevkit with VOC2012: palette masks in SegmentationClass, grey ones in SegmentationClassAug."""
    tree = root / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (tree / folder).mkdir(parents=True)
    first = 0
    for split, count in (("train", train), ("aug", aug), ("val", val)):
        names = [f"2012_{number:06d}" for number in range(first, first + count)]
        for number, name in enumerate(names, first):
            shapes = scene(number, size=size, colours=colours)
            shapes.image.save(tree / "JPEGImages" / f"{name}.jpg", quality=95)
            ids = with_contours(recoded(shapes.kinds, 0, VOC_IDS))
            mask = Image.fromarray(ids)
            if split != "aug":
                mask = Image.fromarray(ids).convert("L")
                mask.putpalette([level for value in range(256) for level in (value, 255 - value, value // 2)])
            mask.save(tree / ("SegmentationClassAug" if split == "aug" else "SegmentationClass") / f"{name}.png")
        (tree / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        first += count
    return root


def cityscapes(
    root: Path, *, train: int = 8, val: int = 4, size: tuple[int, int] = (96, 64), colours: Colours = "random"
) -> Path:
    """leftImg8bit and gtFine with labelIds, two cities in train."""
    first = 0
    for split, count in (("train", train), ("val", val)):
        for number in range(first, first + count):
            city = ("aachen", "bochum")[number % 2] if split == "train" else "munster"
            stem = f"{city}_{number:06d}_000019"
            shapes = scene(number, size=size, colours=colours)
            image = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            mask = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            for file in (image, mask):
                file.parent.mkdir(parents=True, exist_ok=True)
            shapes.image.save(image)
            ids = recoded(shapes.kinds, CITY_LABEL_IDS["ground"], CITY_LABEL_IDS)
            ids[:4] = 4  # a "static" strip at the top: no class of the 19
            Image.fromarray(ids).save(mask)
        first += count
    return root


def folders(
    root: Path, *, train: int = 6, val: int = 3, size: tuple[int, int] = (64, 64), colours: Colours = "random"
) -> Path:
    """images/ and masks/ with train/ and val/, masks numbered 0 to 3, and classes.txt."""
    first = 0
    for split, count in (("train", train), ("val", val)):
        for number in range(first, first + count):
            shapes = scene(number, size=size, colours=colours)
            for kind, picture in (("images", shapes.image), ("masks", Image.fromarray(shapes.kinds))):
                file = root / kind / split / f"scene{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
        first += count
    (root / "classes.txt").write_text("background\ncircle\nsquare\ntriangle\n")
    return root
