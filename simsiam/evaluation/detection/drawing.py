"""Boxes and masks drawn on images, and what was annotated beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from simsiam.data.detection.boxes import BoxSample, Prediction, Target
from simsiam.evaluation.palette import Colour, Font, colour_of, font, write_picture

SIDE = 560  # pixels of the drawn image's longer side, at least: small images are enlarged so that names can be read
_TINT = 0.4  # of a mask's colour over the image
_TEXT, _SMALL_TEXT = 14, 11  # pixels
_MANY = 10  # objects; with more of them names are small
_GAP = 8  # pixels between the parts of a grid
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One object to draw."""

    box: tuple[float, float, float, float]  # x1 y1 x2 y2, pixels of the image
    label: int  # 1..C
    text: str
    mask: np.ndarray | None  # H x W bool, of the image's size


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One image of a grid."""

    name: str
    sample: BoxSample
    prediction: Prediction


def draw_target(image: Image.Image, target: Target, classes: Sequence[str]) -> Image.Image:
    """The image with what is annotated on it; difficult objects and crowds are named as such."""
    masks = target.masks.decode().numpy() if target.masks is not None else None
    marked = []
    for row in range(len(target)):
        label = int(target.labels[row])
        kind = " (difficult)" if target.difficult[row] else " (crowd)" if target.crowd[row] else ""
        x1, y1, x2, y2 = target.boxes[row].tolist()
        marked.append(
            Marked(
                box=(x1, y1, x2, y2),
                label=label,
                text=f"{classes[label - 1]}{kind}",
                mask=None if masks is None else masks[row],
            )
        )
    return draw(image, marked, none="nothing annotated")


def draw_prediction(
    image: Image.Image, prediction: Prediction, classes: Sequence[str], *, threshold: float, most: int
) -> Image.Image:
    """The image with the `most` surest of what was found at a score of `threshold` or more, the surest on top."""
    marked = []
    for row in np.argsort(prediction.scores.cpu().numpy(), kind="stable")[-most:].tolist():
        score, label = float(prediction.scores[row]), int(prediction.labels[row])
        if score < threshold:
            continue
        x1, y1, x2, y2 = prediction.boxes[row].tolist()
        mask = prediction.masks[row].decode() if prediction.masks is not None else None
        marked.append(
            Marked(box=(x1, y1, x2, y2), label=label, text=f"{classes[label - 1]} {100 * score:.0f} %", mask=mask)
        )
    return draw(image, marked, none="nothing found")


def draw(image: Image.Image, marked: Sequence[Marked], *, none: str) -> Image.Image:
    """The image, enlarged where it is small, with masks, then boxes, then names; later objects on top.

    `none` is written in a corner where there is nothing to mark.
    """
    scale = max(1.0, SIDE / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    drawn = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    for one in marked:
        if one.mask is not None:
            drawn = _tinted(drawn, one.mask, colour_of(one.label - 1))
    pen = ImageDraw.Draw(drawn)
    line = max(2, round(max(size) / 280))
    for one in marked:
        x1, y1, x2, y2 = (round(value * scale) for value in one.box)
        box = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        if min(box[2] - box[0], box[3] - box[1]) > 4 * line:
            pen.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=_PAPER, width=1)
        pen.rectangle(box, outline=colour_of(one.label - 1), width=line)
    taken: list[tuple[int, int, int, int]] = []
    for one in reversed(marked):  # the topmost gets the best place
        taken.append(_name(pen, one, scale, size, taken, font(_TEXT if len(marked) <= _MANY else _SMALL_TEXT)))
    if not marked:
        width, height = (round(side) for side in pen.textbbox((0, 0), none, font=font(_TEXT))[2:])
        pen.rectangle((0, 0, width + 8, height + 8), fill=_INK)
        pen.text((4, 4), none, fill=_PAPER, font=font(_TEXT))
    return drawn


def write_comparison(
    path: Path, compared: Sequence[Compared], classes: Sequence[str], *, threshold: float, most: int
) -> Path:
    """A grid with a row for each image: annotated at the left, the surest of what was found at the right.

    Drawn are at most `most` objects of each image, of a score of `threshold` or more.
    """
    rows = [
        (
            one.name,
            draw_target(one.sample.image, one.sample.target, classes),
            draw_prediction(one.sample.image, one.prediction, classes, threshold=threshold, most=most),
        )
        for one in compared
    ]
    return write_picture(path, grid(rows, ("annotated", f"found, score {100 * threshold:.0f} % or more")))


def grid(rows: Sequence[tuple[str, Image.Image, Image.Image]], heads: tuple[str, str]) -> Image.Image:
    """Pairs of pictures under two headings, each with its name above."""
    column = SIDE
    shown = [(name, _within(left, column), _within(right, column)) for name, left, right in rows]
    title, caption = font(_TEXT + 4), font(_TEXT)
    line = _TEXT + 2 * _GAP
    height = line + _GAP + sum(line + left.height + _GAP for _, left, _ in shown)
    sheet = Image.new("RGB", (2 * column + 3 * _GAP, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, head in enumerate(heads):
        pen.text((_GAP + place * (column + _GAP), _GAP), head, fill=_INK, font=title)
    top = line + _GAP
    for name, left, right in shown:
        pen.text((_GAP, top + _GAP // 2), name, fill=_INK, font=caption)
        sheet.paste(left, (_GAP, top + line))
        sheet.paste(right, (column + 2 * _GAP, top + line))
        top += line + left.height + _GAP
    return sheet


def _tinted(drawn: Image.Image, mask: np.ndarray, colour: Colour) -> Image.Image:
    """A veil of colour over the mask, with a line around it."""
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize(drawn.size, Image.Resampling.BILINEAR)
    inside = cover.point([0] * 128 + [255] * 128)
    rim = np.asarray(inside.filter(ImageFilter.MaxFilter(3))) != np.asarray(inside.filter(ImageFilter.MinFilter(3)))
    veil = cover.point([round(value * _TINT) for value in range(256)])
    tinted = Image.composite(Image.new("RGB", drawn.size, colour), drawn, veil)
    tinted.paste(colour, mask=Image.fromarray(rim.astype(np.uint8) * 200))
    return tinted


def _name(
    pen: ImageDraw.ImageDraw,
    one: Marked,
    scale: float,
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    text: Font,
) -> tuple[int, int, int, int]:
    """Write an object's name at its box, where no other name is if that can be; returns the place."""
    colour = colour_of(one.label - 1)
    left, top, right, bottom = pen.textbbox((0, 0), one.text, font=text)
    width, height = round(right - left) + 6, round(bottom - top) + 6
    x1, y1, x2, y2 = (round(value * scale) for value in one.box)
    above, below, within = y1 - height, y2, y1
    corners = [
        (x1, above),
        (x1, within),
        (x1, below),
        (x2 - width, above),
        (x2 - width, y2 - height),
        (x1, y2 - height),
    ]
    corners += [(x1, within + step * height) for step in range(1, 5)]
    places = []
    for x, y in corners:
        x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        places.append((x, y, x + width, y + height))
    place = next((each for each in places if not any(_overlap(each, other) for other in taken)), places[0])
    pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.text((place[0] + 3 - left, place[1] + 3 - top), one.text, fill=_INK if light > 150 else _PAPER, font=text)
    return place


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(picture: Image.Image, side: int) -> Image.Image:
    """Made smaller until it is at most `side` wide and high."""
    scale = min(1.0, side / max(picture.size))
    if scale == 1.0:
        return picture
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
