"""Reading any image file as 8-bit RGB, and the list of those that could not be read."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from simsiam.results import write_atomic

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)

_WHITE = (255, 255, 255, 255)
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # grey with more than 8 bits a pixel

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its complaints of damaged files reach the terminal


@dataclass(frozen=True, kw_only=True, order=True)
class BadImage:
    """A file that was left out, and why."""

    path: str  # Source.path, or the file's path
    reason: str


class UnreadableImage(Exception):
    """An image that cannot be decoded; `reason` is plain English."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    @property
    def bad(self) -> BadImage:
        """The record that goes to skipped.csv."""
        return BadImage(path=self.path, reason=self.reason)


def read_image(file: Path | bytes, *, name: str, short_side: int | None = None) -> Image.Image:
    """Decode one image as the eye should see it: 8-bit RGB, upright, first frame, transparency on white.

    Args:
        file: its path, or its bytes.
        name: what the error calls it.
        short_side: pixels that suffice: a larger JPEG is decoded at the half, quarter or eighth of its scale that
            still has as many, which takes a fraction of the time. None: at full size.

    Raises UnreadableImage for anything that is not a whole image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF, palettes and sizes; each is handled below
        try:
            content = file if isinstance(file, bytes) else file.read_bytes()
            if not content:
                raise UnreadableImage(name, "empty file (0 bytes)")
            with Image.open(io.BytesIO(content)) as image:
                if short_side is not None:
                    image.draft(None, (short_side, short_side))  # does nothing to other formats
                image.load()
                return _as_rgb(_upright(image))
        except UnreadableImage:
            raise
        except Exception as error:  # decoders raise many kinds on damaged input, and none may stop a training
            raise UnreadableImage(name, _reason(error)) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture in memory as `read_image` gives one from a file: 8-bit RGB, upright, transparency on white."""
    return _as_rgb(_upright(image.copy()))


def write_skipped(path: Path, bad: Iterable[BadImage]) -> None:
    """Write skipped.csv (path,reason), sorted, one row a file, atomically."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "reason"))
    rows.writerows((each.path, each.reason) for each in sorted(set(bad)))
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF says nothing about the pixels, so the image is kept as stored
        return image
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_eight_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, _WHITE), colours).convert("RGB")
    return image.convert("RGB")


def _eight_bit(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Grey levels of any depth as uint8: 16-bit by its full range, others by the range that their values tell."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if mode.startswith("I;16") or (mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return "not an image, or a format that Pillow does not know"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels (a decompression bomb, or far too large)"
        case MemoryError():
            return "not enough memory to decode it"
    detail = " ".join(str(error).split())[:200]
    if "truncated" in detail or "broken" in detail or isinstance(error, EOFError):
        return f"truncated or damaged ({detail or 'the file ends too early'})"
    return f"cannot be decoded ({type(error).__name__}: {detail})"
