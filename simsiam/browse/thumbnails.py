"""Small pictures of a source's images, made when they are asked for."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

from PIL import Image

from simsiam.data.images import UnreadableImage
from simsiam.data.sources import Source

KEPT_BYTES = 64 << 20  # thumbnails that stay in memory


def picture(source: Source, index: int, *, side: int) -> Image.Image:
    """An image with its longer side at most `side` pixels; a grey square where it cannot be read any more."""
    try:
        image = source.read(index)
    except UnreadableImage:
        return Image.new("RGB", (side, side), (128, 128, 128))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


class Thumbnails:
    """JPEG files of a source's images by index; those used last are kept in memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def jpeg(self, index: int, *, side: int) -> bytes:
        """The image as JPEG, its longer side at most `side` pixels."""
        with self._lock:
            if (index, side) in self._kept:
                self._kept.move_to_end((index, side))
                return self._kept[index, side]
        buffer = io.BytesIO()
        picture(self._source, index, side=side).save(buffer, "JPEG", quality=85)
        content = buffer.getvalue()
        with self._lock:
            if (index, side) not in self._kept:
                self._kept[index, side] = content
                self._bytes += len(content)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return content
