"""Pictures for people: thumbnails of a source's images, and contact sheets of a query and what was found."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from simsiam.data.images import UnreadableImage, as_rgb
from simsiam.data.sources import ArraySource, FileSource, FolderSource, Source
from simsiam.wording import one_line

KEPT_BYTES = 64 << 20  # thumbnails that stay in memory


def picture(source: Source, index: int, *, side: int) -> Image.Image:
    """An image with its longer side at most `side` pixels; a grey square where it cannot be read any more."""
    try:
        image = _reduced(source, index, side) or source.read(index)
    except UnreadableImage:
        return Image.new("RGB", (side, side), (128, 128, 128))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _reduced(source: Source, index: int, side: int) -> Image.Image | None:
    """A JPEG file decoded at a half, quarter or eighth of its size, in a fraction of the time; None for others."""
    if not isinstance(source, FileSource):
        return None
    try:
        with Image.open(source.root / source.path(index)) as image:
            if image.format != "JPEG":
                return None
            image.draft("RGB", (2 * side, 2 * side))
            return as_rgb(image)
    except Exception:  # whatever is wrong with it, the usual reading finds and names it
        return None


def leads_out(source: Source, index: int) -> bool:
    """Whether an image of a folder is a link, or lies behind one, that leads out of the folder."""
    if not isinstance(source, FolderSource):  # a list or a CSV names each file itself
        return False
    root, file = (os.path.realpath(each) for each in (source.root, source.root / source.path(index)))
    return os.path.commonpath([root, file]) != root


class Thumbnails:
    """JPEG files of a source's images by index; those used last are kept in memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        many = isinstance(source, FileSource | ArraySource)  # can be read by several threads at a time
        self._reading: AbstractContextManager[object] = nullcontext() if many else threading.Lock()

    def jpeg(self, index: int, *, side: int) -> bytes:
        """The image as JPEG, its longer side at most `side` pixels."""
        with self._lock:
            if (index, side) in self._kept:
                self._kept.move_to_end((index, side))
                return self._kept[index, side]
        buffer = io.BytesIO()
        with self._reading:
            image = picture(self._source, index, side=side)
        image.save(buffer, "JPEG", quality=85)
        content = buffer.getvalue()
        with self._lock:
            if (index, side) not in self._kept:
                self._kept[index, side] = content
                self._bytes += len(content)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return content


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
    """All rows below each other; a row of more than ten pictures continues on the next line."""
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
