"""Images as a program has them at hand: arrays, PIL images, paths or the bytes of files, in any mixture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.images import as_rgb, read_image
from simsiam.data.sources import ArraySource, Source
from simsiam.errors import UserError

Picture = Any  # an H x W x 3 or H x W uint8 array, a PIL image, a path, or a file's bytes
Pictures = Any  # N x H x W x 3 uint8, a sequence of pictures, or a single one


class GivenImages(Source):
    """A sequence of pictures as an indexed source, without labels."""

    def __init__(self, items: Sequence[Picture]) -> None:
        self.name = "images"
        self.classes = None
        self.labels = None
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UnreadableImage, or UserError for what is no picture at all."""
        item = self._items[index]
        match item:
            case Image.Image():
                return as_rgb(item)
            case bytes():
                return read_image(item, name=self.path(index))
            case str() | os.PathLike():
                return read_image(Path(item), name=str(item))
            case np.ndarray():
                return Image.fromarray(_checked(item, index)).convert("RGB")
        raise UserError(
            f"image {index}: {type(item).__name__} is no picture. Give a path, a PIL image or an H x W x 3 uint8 array."
        )

    def path(self, index: int) -> str:
        """The path, or the picture's place in the sequence."""
        item = self._items[index]
        return os.fspath(item) if isinstance(item, str | os.PathLike) else f"image {index}"

    def digests(self) -> np.ndarray:
        """Digests of the decoded pixels, N x 16 uint8."""
        images = (self.read(index) for index in range(len(self)))
        return content.as_array(content.digest(repr(each.size).encode() + each.tobytes()) for each in images)


def given(images: Pictures) -> Source:
    """Whatever a program has, as a source; raises UserError on floating-point pixels or a set without an image."""
    if isinstance(images, np.ndarray) and images.dtype != object and images.dtype.kind not in "US":
        if images.ndim == 4 and len(images) and images.shape[3] == 3 and images.dtype == np.uint8:
            return ArraySource(images, name="images")
        images = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | os.PathLike | bytes | Image.Image):
        images = [images]
    items = list(images)
    if not items:
        raise UserError("no image was given.")
    for folder in (item for item in items if isinstance(item, str | os.PathLike) and os.path.isdir(item)):
        raise UserError(f"{folder}: a folder. Give its files one by one, or use embed_folder, which streams them.")
    return GivenImages(items)


def _checked(pixels: np.ndarray, index: int) -> np.ndarray:
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if fits and pixels.dtype == np.uint8:
        return pixels
    raise UserError(
        f"image {index}: an array of {pixels.dtype} {pixels.shape}. Give H x W x 3 uint8, RGB from 0 to 255"
        + (" (for values in 0..1: (x * 255).round().astype('uint8'))." if pixels.dtype.kind == "f" else ".")
    )
