"""Images with boxes: the records that readers make, detectors learn from and metrics compare."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simsiam.data.detection.instance_masks import InstanceMasks, Rle
from simsiam.data.images import UnreadableImage, read_sized
from simsiam.data.inventory import Inventory

# Coordinates are continuous: pixel (0, 0) covers [0, 1) x [0, 1), so a box around it alone is (0, 0, 1, 1).


@dataclass(frozen=True, kw_only=True)
class BoxImage:
    """One image of a set, before it is read."""

    id: int | str  # as the annotations name it
    path: str  # lasting name, relative to the set
    file: Path
    width: int  # pixels, as annotated; 0: the annotation does not say, and the file's own size counts
    height: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """Everything annotated on one image, in the image's own pixels."""

    boxes: Tensor  # N x 4 float32, x1 y1 x2 y2
    labels: Tensor  # N int64, 1..C; label k is BoxSource.classes[k - 1]
    difficult: Tensor  # N bool, VOC: not scored, and learnt from only where a recipe says so
    crowd: Tensor  # N bool, COCO: a region of many objects; not learnt from, and found objects in it are not scored
    area: Tensor  # N float32, square pixels: of the mask where there is one, else of the box
    masks: InstanceMasks | None  # N masks, encoded; None where the set has none

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def empty() -> Target:
        """No object at all: for an image that is only to be looked at."""
        none = torch.zeros(0, dtype=torch.bool)
        return Target(
            boxes=torch.zeros(0, 4), labels=none.long(), difficult=none, crowd=none, area=none.float(), masks=None
        )

    @property
    def ordinary(self) -> Tensor:
        """N bool: the objects that a detector learns from."""
        return ~(self.difficult | self.crowd)

    def select(self, rows: Tensor) -> Target:
        """Some of the objects, by a mask or by numbers."""
        return Target(
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            difficult=self.difficult[rows],
            crowd=self.crowd[rows],
            area=self.area[rows],
            masks=None if self.masks is None else self.masks.select(rows),
        )


@dataclass(frozen=True, kw_only=True)
class BoxSample:
    """One image with its target."""

    image: Image.Image  # RGB, of the annotated size
    target: Target


class BoxSource(ABC):
    """An indexed set of images with boxes, and with masks where `has_masks`."""

    name: str
    classes: tuple[str, ...]  # C names; label k is classes[k - 1], label 0 is the background
    has_masks: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def inventory(self) -> Inventory:
        """What was found and left out; without an account of its own all is used."""
        return Inventory(found=len(self), used=len(self))

    @abstractmethod
    def image(self, index: int) -> BoxImage:
        """What is known of an image without reading it."""

    @abstractmethod
    def target(self, index: int) -> Target:
        """The annotation of an image, without reading it."""

    def files(self) -> list[str]:
        """The file of every image."""
        return [str(self.image(index).file) for index in range(len(self))]

    @abstractmethod
    def digests(self) -> np.ndarray:
        """A digest of every image's file, N x 16 uint8."""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over the images' content, class names and annotations."""

    def read(self, index: int) -> BoxSample:
        """One image with its target; raises UnreadableImage, also where the annotated size is not the image's."""
        return BoxSample(image=read_annotated(self.image(index)), target=self.target(index))

    def subset(self, indices: np.ndarray | Iterable[int]) -> BoxSource:
        """A view of some images, in the order given."""
        return BoxSubset(self, np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices, np.int64))


class BoxSubset(BoxSource):
    """Some images of another set."""

    def __init__(self, base: BoxSource, indices: np.ndarray) -> None:
        self.base, self.indices = base, indices
        self.name, self.classes, self.has_masks = base.name, base.classes, base.has_masks

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def inventory(self) -> Inventory:
        """The account of the whole set."""
        return self.base.inventory

    def image(self, index: int) -> BoxImage:
        """What the base set knows of it."""
        return self.base.image(int(self.indices[index]))

    def target(self, index: int) -> Target:
        """The base set's annotation."""
        return self.base.target(int(self.indices[index]))

    def digests(self) -> np.ndarray:
        """Those of the chosen images."""
        chosen: np.ndarray = self.base.digests()[self.indices]
        return chosen

    def fingerprint(self) -> str:
        """sha256 over the base set's fingerprint and the chosen indices."""
        return hashlib.sha256(
            self.base.fingerprint().encode() + np.ascontiguousarray(self.indices).tobytes()
        ).hexdigest()


class DifficultLearnt(BoxSource):
    """Another set in which difficult objects are like any others."""

    def __init__(self, base: BoxSource) -> None:
        self.base = base
        self.name, self.classes, self.has_masks = base.name, base.classes, base.has_masks

    def __len__(self) -> int:
        return len(self.base)

    def image(self, index: int) -> BoxImage:
        """What the base set knows of it."""
        return self.base.image(index)

    def target(self, index: int) -> Target:
        """The base set's annotation, with nothing difficult."""
        target = self.base.target(index)
        return replace(target, difficult=torch.zeros_like(target.difficult))

    def digests(self) -> np.ndarray:
        """Those of the base set."""
        return self.base.digests()

    def fingerprint(self) -> str:
        """sha256 that differs from the base set's."""
        return hashlib.sha256(f"difficult learnt {self.base.fingerprint()}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a detector found on one image, in the image's own pixels."""

    image: int  # index in the source
    boxes: Tensor  # N x 4 float32, x1 y1 x2 y2
    scores: Tensor  # N float32
    labels: Tensor  # N int64, 1..C
    masks: tuple[Rle, ...] | None  # N, of the image's size (see instance_masks.encode); None: boxes only


@dataclass(frozen=True, kw_only=True)
class LearnTarget:
    """What a detector learns from on one image: ordinary objects, in the network's pixels."""

    boxes: Tensor  # N x 4 float32, x1 y1 x2 y2
    labels: Tensor  # N int64, 1..C
    masks: Tensor | None  # N x H x W bool, without the padding; None where the set has none


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where an image lies in a batch: at the top left, `height` x `width` of the padded area."""

    index: int  # in the source
    height: int  # network pixels
    width: int
    original_height: int  # image pixels
    original_width: int

    def to_image(self, boxes: Tensor) -> Tensor:
        """N x 4 boxes in network pixels -> in the image's own, cut at its edges."""
        x, y = self.original_width / self.width, self.original_height / self.height
        scaled = boxes * boxes.new_tensor([x, y, x, y])
        limits = boxes.new_tensor([self.original_width, self.original_height] * 2)
        return torch.minimum(scaled.clamp(min=0), limits)


@dataclass(frozen=True, kw_only=True)
class BoxBatch:
    """One process's share of a step, on the device."""

    images: Tensor  # B x 3 x H x W float32, normalised, padded with 0 at the right and below to a multiple of 32
    frames: list[Frame]  # B
    targets: list[LearnTarget]  # B
    epoch: int  # pass over the set
    step: int  # within the pass


def read_annotated(image: BoxImage) -> Image.Image:
    """The picture, turned so that its size is the annotated one: upright by EXIF, or else as stored.

    Raises UnreadableImage where neither fits, since boxes of another size would lie in the wrong places.
    """
    size = (image.width, image.height)
    found = read_sized(image.file, name=image.path, size=size)
    if 0 in size or found.size == size:
        return found
    raise UnreadableImage(
        image.path, f"is {found.width} x {found.height} pixels, but its annotation says {size[0]} x {size[1]}"
    )
