"""Data sets of the user's own, as torch knows them, as a source of images."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.source import ArraySource, Source
from simsiam.data.sources import kind_of, open_source
from simsiam.errors import UserError


class DatasetSource(Source):
    """The images of a torch data set, or of any sequence of PIL images or of (image, label) pairs.

    The transform of a torchvision data set is left out, also behind a torch `Subset`. Labels are its `targets`.
    """

    def __init__(self, dataset: Any) -> None:
        indices = np.arange(len(dataset))
        while hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # a Subset, of a Subset maybe
            indices, dataset = np.asarray(dataset.indices)[indices], dataset.dataset
        self._indices = indices
        self.name = type(dataset).__name__
        self.classes = None
        targets = getattr(dataset, "targets", None)
        self.labels = None if targets is None else np.asarray(targets, np.int64)[indices]
        self._items = copy.copy(dataset)
        for name in ("transform", "transforms", "target_transform"):
            if hasattr(self._items, name):
                setattr(self._items, name, None)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UserError where the item holds none."""
        item = self._items[int(self._indices[index])]
        image = item[0] if isinstance(item, tuple | list) else item
        if not isinstance(image, Image.Image):
            raise UserError(
                f"{self.name}: item {index} is {type(image).__name__}; expected a PIL image, or (image, label)."
            )
        return image.convert("RGB")

    def path(self, index: int) -> str:
        """The set's name and the image's number."""
        return f"{self.name}/{int(self._indices[index]):06d}"

    def digests(self) -> np.ndarray:
        """Digests of the images' pixels, N x 16 uint8."""
        return content.as_array(content.digest(self.read(index).tobytes()) for index in range(len(self)))


def as_source(images: Any) -> Source:
    """Whatever holds images as a source: one of ours, a folder or list, N x H x W x 3 uint8, a torch data set.

    Raises UserError where nothing usable is there.
    """
    if isinstance(images, Source):
        return images
    if isinstance(images, np.ndarray):
        return ArraySource(images, name="array")
    if hasattr(images, "__getitem__") and not isinstance(images, str):
        return DatasetSource(images)
    return open_source(images, kind=kind_of(images), split="all")
