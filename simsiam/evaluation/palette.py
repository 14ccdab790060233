"""What the pictures of all evaluations share: the colours of classes, the font, and how a picture is written."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from simsiam.results import write_atomic

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE: tuple[Colour, ...] = (  # distinct in daylight and to most colour-blind eyes
    (230, 75, 53),
    (0, 125, 200),
    (20, 160, 105),
    (240, 160, 0),
    (150, 90, 190),
    (220, 90, 160),
    (120, 95, 60),
    (0, 175, 195),
    (130, 160, 30),
    (85, 85, 200),
)
BACKGROUND: Colour = (24, 24, 32)
UNLABELLED: Colour = (128, 128, 128)
_GOLDEN_TURN = 0.61803398875  # neighbouring classes beyond the palette get far hues


def colour_of(number: int) -> Colour:
    """The colour of the class at a place from 0; the same in every picture."""
    if number < len(PALETTE):
        return PALETTE[number]
    lightness = (0.36, 0.5, 0.68)[number // 10 % 3]
    red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN_TURN % 1, lightness, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def is_background(name: str) -> bool:
    """Whether a class of a mask is what is behind the objects."""
    return name.lower() in ("background", "_background_", "bg")


def colours_of(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class, C x 3 uint8; a background is near black."""
    return np.array([BACKGROUND if is_background(name) else colour_of(n) for n, name in enumerate(classes)], np.uint8)


@cache
def font(size: int) -> Font:
    """DejaVu Sans, which matplotlib brings and which knows most alphabets; else Pillow's own."""
    spec = find_spec("matplotlib")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def write_picture(path: Path, picture: Image.Image) -> Path:
    """Write a JPEG, PNG or WebP, by the name's ending, so that a reader sees all of it or nothing."""
    content = io.BytesIO()
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
    picture.save(content, kind, optimize=kind == "PNG", quality=88)
    write_atomic(path, content.getvalue())
    return path
