"""Reading any image file as 8-bit RGB, and the list of those that could not be read."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from simsiam.results import write_atomic
from simsiam.sniff import looks_like
from simsiam.wording import counted, plural

HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
RAW_SUFFIXES = frozenset((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"))
VIDEO_SUFFIXES = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mts", ".3gp"))
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
with contextlib.suppress(ImportError):  # an extra: the decoder of iPhone photos
    import pillow_heif

    pillow_heif.register_heif_opener()
    IMAGE_SUFFIXES |= HEIC_SUFFIXES

FEW = 500  # files that are read before anybody asks how long it takes
_T = TypeVar("_T")
ORIENTATION = 0x0112  # of EXIF
AS_STORED = {  # what undoes the turn that EXIF asks for, where the turn swaps the sides
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
_PALE = 250  # a drawing whose every pixel is at least this on white is laid on black
_FULL = (255, 1023, 4095, 16383, 65535)  # full range of 8, 10, 12, 14 and 16 bits
_TIFF_BITS = 258  # the tag of bits a sample
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # grey with more than 8 bits a pixel

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its complaints of damaged files reach the terminal


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image, and no hidden file (macOS leaves ._NAME.jpg beside NAME.jpg)."""
    return not name.startswith(".") and is_image_name(name)


def is_image_name(name: str) -> bool:
    """Whether a path ends as images do, hidden or not."""
    dot = name.rfind(".")
    if dot < 1 or name[dot - 1] in "/.":  # a file that may have a hidden name and no suffix
        return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    return name[dot:].lower() in IMAGE_SUFFIXES  # the same several times faster, for lists of a million


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

    White drawings on a transparent ground lie on black, for on white nothing would be left of them. Images of 16 bits
    a channel that use at most the lowest 8, 10, 12 or 14 are taken for images of that depth, each by its own highest
    value.

    Args:
        file: its path, or its bytes.
        name: what the error calls it.
        short_side: pixels that suffice: a larger JPEG is decoded at the half, quarter or eighth of its scale that
            still has as many, which takes a fraction of the time. None: at full size.

    Raises UnreadableImage for anything that is not a whole image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF, palettes and sizes; each is handled below
        content = b""
        try:
            content = file if isinstance(file, bytes) else file.read_bytes()
            if not content:
                raise UnreadableImage(name, "empty file (0 bytes)")
            with Image.open(io.BytesIO(content)) as image:
                if short_side is not None:
                    image.draft(None, (short_side, short_side))  # does nothing to other formats
                image.load()
                return _as_rgb(_upright(_deep_colour(image, content)))
        except UnreadableImage:
            raise
        except Exception as error:  # decoders raise many kinds on damaged input, and none may stop a training
            raise UnreadableImage(name, _reason(error, content)) from error


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image's file says: widths and heights, as stored and as the eye sees it."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int  # of EXIF, 1 for none

    def turned(self, size: tuple[int, int]) -> Literal["", "stored", "unclear"]:
        """Whether EXIF turns what is annotated at this size: on the stored pixels, or it cannot be inferred."""
        if self.orientation not in range(2, 9) or size == self.upright != self.stored:
            return ""
        return "stored" if size == self.stored != self.upright else "unclear"


def header(file: Path) -> Header:
    """The header of an image; raises whatever the decoder does for what is no image."""
    with Image.open(file) as opened:
        turned, (width, height) = opened.getexif().get(ORIENTATION, 1), opened.size
    upright = (height, width) if turned in AS_STORED else (width, height)
    return Header(stored=(width, height), upright=upright, orientation=turned)


def turned_notes(name: str, turned: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each way in which EXIF turns annotated images, of (`Header.turned`, image) pairs."""
    found, notes = list(turned), []
    for state, words in (
        ("stored", "turned by EXIF, and annotated as stored: read as stored"),
        ("unclear", "turned by EXIF, and the annotation does not show which way it lies: taken as seen upright"),
    ):
        images = [image for each, image in found if each == state]
        if images:
            are = plural(len(images), "is", "are")
            notes.append(f"{name}: {counted(len(images), 'image')} {are} {words} (the first: {images[0]}).")
    return notes


def read_sized(file: Path, *, name: str, size: tuple[int, int]) -> Image.Image:
    """The picture upright, or as it is stored where that alone has the size (width, height) of its annotation.

    Raises UnreadableImage as `read_image`; a picture of another size is returned upright.
    """
    upright = read_image(file, name=name)
    if upright.size == size[::-1] and size[0] != size[1]:
        turned = header(file).orientation
        return upright.transpose(AS_STORED[turned]) if turned in AS_STORED else upright
    return upright


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


def _deep_colour(image: Image.Image, content: bytes) -> Image.Image:
    """The image, decoded anew where it is of 16 bits a colour and uses few: Pillow keeps the upper eight alone."""
    is_png = content[:4] == b"\x89PNG" and content[24:25] == b"\x10" and content[25:26] in (b"\2", b"\6")
    tags: Any = getattr(image, "tag_v2", {})
    is_tiff = image.mode in ("RGB", "RGBA") and tags.get(_TIFF_BITS, (8,))[0] == 16
    if not (is_png or is_tiff) or np.asarray(image.convert("RGB")).max() >= 64:  # over 14 bits
        return image
    import cv2

    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # H x W x 3 or 4, blue first
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
        return image
    colours = levels[:, :, 2::-1].astype(np.int64)
    full = next(full for full in _FULL if int(colours.max()) <= full)
    deep = Image.fromarray(np.rint(colours * (255 / full)).astype(np.uint8))
    if levels.shape[2] == 4:
        deep.putalpha(Image.fromarray((levels[:, :, 3].astype(np.int64) >> 8).astype(np.uint8)))
    deep.info.update(image.info)
    return deep


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_eight_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        on_white, on_black = (
            Image.alpha_composite(Image.new("RGBA", colours.size, ground), colours).convert("RGB")
            for ground in (_WHITE, _BLACK)
        )
        unseen = np.asarray(on_white).min() >= _PALE and on_black.getbbox() is not None
        return on_black if unseen else on_white
    return image.convert("RGB")


def _eight_bit(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Grey levels of any depth as uint8: 16-bit by the smallest usual depth that holds them, others by their range."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if mode.startswith("I;16") or (mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, float(next(full for full in _FULL if high <= full))
    elif mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _reason(error: Exception, content: bytes) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return f"not an image that Pillow can read: {looks_like(content)}"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels (a decompression bomb, or far too large)"
        case MemoryError():
            return "not enough memory to decode it"
    detail = " ".join(str(error).split())[:200]
    if "truncated" in detail.lower() or "broken" in detail or isinstance(error, EOFError):
        return f"truncated or damaged ({detail or 'the file ends too early'})"
    return f"cannot be decoded ({type(error).__name__}: {detail})"


def watched(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """The same items; on a terminal, and where there are many, with a bar and an estimate on standard error.

    A thread in the background, a daemon, shows none.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = total < FEW or not console.is_terminal or threading.current_thread().daemon
    yield from track(items, total=total, description=what, console=console, transient=True, disable=quiet)
