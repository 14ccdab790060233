"""Resizing and mirroring of an image together with its boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simsiam.limits import Count, Share

if TYPE_CHECKING:  # recipes hold a BoxTransform, and are listed without torch
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from simsiam.data.detection.boxes import BoxSample, LearnTarget, Target

SMALLEST = 1.0  # pixels of the original image; objects with a shorter side are not learnt from, as published


@dataclass(frozen=True, kw_only=True)
class BoxTransform:
    """The size of the network's images: proportions are kept, and the long side wins where both cannot hold."""

    short_sides: tuple[Count, ...]  # Pixels of the short side; one is drawn for each image.
    long_side: Count  # Most pixels of the long side.
    flip_probability: Share  # How often an image is mirrored left to right.

    def scaled_size(self, width: int, height: int, short: int) -> tuple[int, int]:
        """Width and height after resizing, each rounded to the nearest pixel."""
        scale = min(short / min(width, height), self.long_side / max(width, height))
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """An image and target as the network takes them, but for normalisation and padding."""

    pixels: Tensor  # H x W x 3 uint8
    target: LearnTarget
    original_height: int
    original_width: int


def transform(sample: BoxSample, how: BoxTransform, rng: np.random.Generator) -> Transformed:
    """One random size and, by chance, the mirror image; boxes and masks move with the pixels.

    Objects that are difficult, crowds or have a side under a pixel are left out of the target.
    """
    import numpy as np
    import torch

    short = how.short_sides[int(rng.integers(len(how.short_sides)))]
    mirrored = bool(rng.random() < how.flip_probability)
    image = sample.image
    width, height = how.scaled_size(image.width, image.height, short)
    pixels = torch.from_numpy(np.array(_resized(image, width, height)))  # H x W x 3
    return Transformed(
        pixels=pixels.flip(1).contiguous() if mirrored else pixels,
        target=_moved(sample.target, image.size, (width, height), mirrored=mirrored),
        original_height=image.height,
        original_width=image.width,
    )


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    from PIL.Image import Resampling

    return image if image.size == (width, height) else image.resize((width, height), Resampling.BILINEAR)


def _moved(target: Target, old: tuple[int, int], new: tuple[int, int], *, mirrored: bool) -> LearnTarget:
    from simsiam.data.detection.boxes import LearnTarget

    sides = target.boxes[:, 2:] - target.boxes[:, :2]
    kept = target.select(target.ordinary & (sides >= SMALLEST).all(1))
    x, y = new[0] / old[0], new[1] / old[1]
    boxes = kept.boxes * kept.boxes.new_tensor([x, y, x, y])
    masks = None if kept.masks is None else kept.masks.resized(height=new[1], width=new[0]).decode()
    if mirrored:
        boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1]) + boxes.new_tensor([new[0], 0, new[0], 0])
        masks = None if masks is None else masks.flip(2)
    return LearnTarget(boxes=boxes, labels=kept.labels, masks=masks)
