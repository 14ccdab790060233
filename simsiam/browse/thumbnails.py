"""Small pictures of a source's images, made when they are asked for."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext

from PIL import Image

from simsiam.data.images import UnreadableImage, as_rgb
from simsiam.data.sources import ArraySource, FileSource, Source

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
