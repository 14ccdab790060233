"""Masks as colours, over images, and a grid of image, ground truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from simsiam.evaluation.palette import UNLABELLED, colours_of, font, is_background

SIDE = 320  # pixels of a picture of the grid, at most
GAP = 8
TEXT = 16


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image with what is there and what was found: H x W ids at the image's own size."""

    image: Image.Image
    truth: np.ndarray | None
    found: np.ndarray


def coloured(mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A mask of class ids as colours; anything else is grey."""
    table = np.full((256, 3), UNLABELLED, np.uint8)
    table[: len(classes)] = colours_of(classes)
    return Image.fromarray(table[mask.astype(np.uint8)])


def palette_image(mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A mask of class ids as a palette image: the ids are its pixels, the colours only how it looks."""
    table = np.full((256, 3), UNLABELLED, np.uint8)
    table[: len(classes)] = colours_of(classes)
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(table.ravel().tolist())
    return image


def overlay(image: Image.Image, mask: np.ndarray, classes: Sequence[str], *, strength: float = 0.6) -> Image.Image:
    """The image with its classes' colours laid over it; background stays as it is."""
    blended = np.array(Image.blend(image, coloured(mask, classes), strength))
    bare = [number for number, name in enumerate(classes) if is_background(name)]
    kept = np.isin(mask, bare)
    blended[kept] = np.asarray(image)[kept]
    return Image.fromarray(blended)


def grid(examples: Sequence[Example], classes: Sequence[str]) -> Image.Image:
    """A row for each example: image, ground truth (where there is one), prediction; below, the classes shown."""
    heads = ["image", "ground truth", "prediction"]
    if all(each.truth is None for each in examples):
        heads.remove("ground truth")
    rows = [_row(each, classes, len(heads)) for each in examples]
    height = TEXT + 2 * GAP + sum(row[0].height + GAP for row in rows)
    width = GAP + len(heads) * (max(picture.width for row in rows for picture in row) + GAP)
    step = (width - GAP) // len(heads)
    shown = sorted({int(n) for each in examples for n in (*np.unique(each.found), *_ids(each.truth))})
    legend = _legend([n for n in shown if n < len(classes)], classes, width)
    sheet = Image.new("RGB", (width, height + legend.height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        pen.text((GAP + column * step, GAP), head, fill="black", font=font(TEXT))
    top = TEXT + 2 * GAP
    for row in rows:
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * step, top))
        top += row[0].height + GAP
    sheet.paste(legend, (0, top))
    return sheet


def _ids(mask: np.ndarray | None) -> list[int]:
    return [] if mask is None else np.unique(mask).tolist()


def _row(example: Example, classes: Sequence[str], columns: int) -> list[Image.Image]:
    scale = SIDE / max(example.image.size)
    size = (max(1, round(example.image.width * scale)), max(1, round(example.image.height * scale)))
    masks = [example.found] if columns == 2 or example.truth is None else [example.truth, example.found]
    pictures = [example.image.resize(size, Image.Resampling.BICUBIC)]
    pictures += [coloured(mask, classes).resize(size, Image.Resampling.NEAREST) for mask in masks]
    return pictures


def _legend(ids: Sequence[int], classes: Sequence[str], width: int) -> Image.Image:
    text = font(TEXT)
    colours = colours_of(classes)
    places, left, top = [], GAP, 0
    for number in ids:
        wide = TEXT + GAP // 2 + int(text.getlength(classes[number])) + 2 * GAP
        if left + wide > width and left > GAP:
            left, top = GAP, top + TEXT + GAP
        places.append((number, left, top))
        left += wide
    sheet = Image.new("RGB", (width, top + TEXT + 2 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, x, y in places:
        pen.rectangle((x, y, x + TEXT, y + TEXT), fill=tuple(colours[number].tolist()), outline="grey")
        pen.text((x + TEXT + GAP // 2, y - 2), classes[number], fill="black", font=text)
    return sheet
