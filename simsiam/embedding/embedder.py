"""A backbone as a function from pictures in memory to vectors, loaded once and called often."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.images import BadImage, as_rgb, read_image
from simsiam.data.loading import image_batches
from simsiam.data.sources import ArraySource, Source
from simsiam.embedding.vectors import Embedding, at_layer, unit_rows
from simsiam.engine import precision as number_format
from simsiam.engine.distributed import pick_device
from simsiam.errors import UserError
from simsiam.features.extraction import stream
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

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
                return read_image(item, name=self.path(index), short_side=self.short_side)
            case str() | os.PathLike():
                return read_image(Path(item), name=str(item), short_side=self.short_side)
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


SHOWN = 20  # unreadable images that an error names


class Embedder:
    """Pictures in, vectors out, in the same order.

    Attributes:
        channels: numbers in a vector.
    """

    def __init__(self, subject: PretrainedBackbone, settings: Embedding, *, device: str) -> None:
        settings.check()
        self.subject = subject
        self.settings = settings
        self._device = pick_device(device)
        number_format.prepare(settings.precision, self._device)
        self._network = at_layer(subject.backbone, settings.layer).to(self._device)
        self.channels = self._network.features

    def __call__(self, images: Pictures) -> np.ndarray:
        """Embed pictures.

        Args:
            images: N x H x W x 3 uint8, a sequence of paths, PIL images, arrays or file contents, or a single one.

        Returns:
            N x C float32.

        Raises UserError that lists every picture which cannot be read: a row without its image would shift the rest.
        """
        source = given(images)
        batches = image_batches(
            source, self.settings.preprocess(self.subject), batch_size=self.settings.batch_size, device=self._device
        )
        blocks = list(
            stream(
                self._network,
                batches,
                layers="pooled",
                pooling="specified",
                precision=self.settings.precision,
                storage=self.settings.storage,
            )
        )
        _refuse([bad for block in blocks for bad in block.bad], len(source))
        rows = np.concatenate([block.arrays["pooled"] for block in blocks]).astype(np.float32)
        return unit_rows(rows) if self.settings.normalise == "l2" else rows


def _refuse(bad: list[BadImage], total: int) -> None:
    if not bad:
        return
    lines = "".join(f"\n  {each.path}: {each.reason}" for each in bad[:SHOWN])
    more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise UserError(f"{len(bad):,} of {counted(total, 'image')} cannot be read:{lines}{more}")
