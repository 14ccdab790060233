"""One picture of many: queries at the left, what was found for each to their right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from simsiam.wording import one_line

CELL = 160  # pixels of a picture's longer side
GAP, CAPTION, MARGIN = 12, 34, 16
PAPER, INK, SOFT, LINE = (252, 252, 250), (29, 32, 36), (90, 97, 107), (226, 226, 220)
COLUMNS = 10  # found pictures in a line


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture with the two lines below it."""

    image: Image.Image
    title: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A query, and what was found for it."""

    query: Shown
    found: Sequence[Shown]


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """All rows below each other; a row with more than ten pictures goes on in the next line."""
    columns = 1 + min(COLUMNS, max((len(row.found) for row in rows), default=0))
    lines = sum(_lines(row) for row in rows)
    step_x, step_y = CELL + GAP, CELL + CAPTION + GAP
    width = 2 * MARGIN + columns * step_x - GAP + GAP  # one gap more after the query
    sheet = Image.new("RGB", (width, 2 * MARGIN + lines * step_y - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for number, row in enumerate(rows):
        if number:
            pen.line((MARGIN, top - GAP // 2, width - MARGIN, top - GAP // 2), LINE)
        _paste(sheet, pen, row.query, MARGIN, top)
        for place, shown in enumerate(row.found):
            left = MARGIN + GAP + (1 + place % COLUMNS) * step_x
            _paste(sheet, pen, shown, left, top + place // COLUMNS * step_y)
        top += _lines(row) * step_y
    return sheet


def _lines(row: Row) -> int:
    return max(1, -(-len(row.found) // COLUMNS))


def _paste(sheet: Image.Image, pen: ImageDraw.ImageDraw, shown: Shown, left: int, top: int) -> None:
    image = ImageOps.contain(shown.image, (CELL, CELL), Image.Resampling.LANCZOS)
    sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
    for line, (text, ink) in enumerate(((shown.title, INK), (shown.detail, SOFT))):
        font = ImageFont.load_default(size=13)
        pen.text((left, top + CELL + 2 + 15 * line), _fitting(pen, text, font), ink, font=font)


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or as much of its end as a cell is wide: file names differ at their ends."""
    text = one_line(text)
    if pen.textlength(text, font=font) <= CELL:
        return text
    while text and pen.textlength("…" + text, font=font) > CELL:
        text = text[1:]
    return "…" + text
