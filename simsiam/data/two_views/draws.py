"""The random numbers behind the two views, apart from any pixel.

They are drawn on the CPU for a whole global batch from a generator that depends on seed, epoch and step alone; each
process then takes its own rows. So a run's views do not depend on devices, workers or where it was resumed, and both
engines (PIL, OpenCV, batch) can be given the same draws and compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from simsiam.data.preprocess import Box, crop_decoded_side

if TYPE_CHECKING:
    from simsiam.config import Views

CROP_TRIES = 10  # torchvision RandomResizedCrop gives up after as many, and takes the centre
RATIO = (3 / 4, 4 / 3)  # of width to height
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What one view of each of B images is to be; all on the CPU."""

    crop: Tensor  # B x 10 x 4 float64 in [0, 1): area, log ratio, top, left of each try
    flip: Tensor  # B bool
    jitter: Tensor  # B bool
    order: Tensor  # B x 4 int64, a permutation of the colour operations
    factors: Tensor  # B x 4 float64: brightness, contrast, saturation (factors), hue (shift in turns)
    gray: Tensor  # B bool
    blur: Tensor  # B bool
    sigma: Tensor  # B float64, pixels

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self, first: int, last: int) -> Draws:
        """The draws of rows first to last - 1, as a process takes them of a global batch."""
        return Draws(**{field.name: getattr(self, field.name)[first:last] for field in fields(self)})

    def take(self, rows: Tensor) -> Draws:
        """The draws of the rows named."""
        return Draws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class ViewPair:
    """The draws of both views of a batch, independent of each other."""

    view1: Draws
    view2: Draws

    def rows(self, first: int, last: int) -> ViewPair:
        """The draws of rows first to last - 1."""
        return ViewPair(view1=self.view1.rows(first, last), view2=self.view2.rows(first, last))


def step_generator(*, seed: int, epoch: int, step: int) -> torch.Generator:
    """The generator of one step's draws."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def draw_pair(views: Views, count: int, generator: torch.Generator | None) -> ViewPair:
    """Both views' draws for a batch of `count` images; without a generator, from torch's global one."""
    return ViewPair(view1=draw(views, count, generator), view2=draw(views, count, generator))


def draw(views: Views, count: int, generator: torch.Generator | None) -> Draws:
    """One view's draws for `count` images, distributed as torchvision's transforms draw them (MoCo v2 recipe)."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, dtype=torch.float64)

    crop, coins, shuffle, levels = uniform(CROP_TRIES, 4), uniform(4), uniform(4), uniform(5)
    strengths = (views.brightness, views.contrast, views.saturation)
    factors = [_between(levels[:, op], max(0.0, 1 - strength), 1 + strength) for op, strength in enumerate(strengths)]
    factors.append(_between(levels[:, HUE], -views.hue, views.hue))
    return Draws(
        crop=crop,
        flip=coins[:, 0] < views.flip_probability,
        jitter=coins[:, 1] < (views.jitter_probability if any((*strengths, views.hue)) else 0.0),
        order=shuffle.argsort(dim=1),
        factors=torch.stack(factors, dim=1),
        gray=coins[:, 2] < views.grayscale_probability,
        blur=coins[:, 3] < views.blur_probability,
        sigma=_between(levels[:, 4], views.blur_sigma_min, views.blur_sigma_max),
    )


def crop_boxes(views: Views, draws: Tensor, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The crop of each image as RandomResizedCrop chooses it; B x 4 int64: top, left, height, width.

    `draws` are B x 10 x 4, `Draws.crop`; `heights` and `widths` are B, in pixels. The first try that fits is taken; if
    none does, the largest central crop whose ratio is within bounds.
    """
    crop = draws.numpy()
    rows, columns = heights.astype(np.float64)[:, None], widths.astype(np.float64)[:, None]  # B x 1
    area = rows * columns * (views.min_scale + crop[:, :, 0] * (views.max_scale - views.min_scale))  # B x 10
    ratio = np.exp(math.log(RATIO[0]) + crop[:, :, 1] * (math.log(RATIO[1]) - math.log(RATIO[0])))
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width > 0) & (width <= columns) & (height > 0) & (height <= rows)
    top = np.floor(crop[:, :, 2] * (rows - height + 1))
    left = np.floor(crop[:, :, 3] * (columns - width + 1))
    tries = np.stack((top, left, height, width), axis=2)  # B x 10 x 4
    first = (np.arange(len(crop)), fits.argmax(axis=1))  # the first try that fits, or the first of all if none does
    boxes = np.where(fits[first][:, None], tries[first], _central(rows[:, 0], columns[:, 0]))
    return boxes.astype(np.int64)


def crop_box(views: Views, draws: Draws, row: int, *, height: int, width: int) -> Box:
    """The crop of one image of the given size."""
    boxes = crop_boxes(views, draws.crop[row : row + 1], np.array([height]), np.array([width]))
    top, left, tall, wide = boxes[0].tolist()
    return Box(top=top, left=left, height=tall, width=wide)


def decoded_side(views: Views) -> int:
    """The short side in pixels that a decoded image must have for its views."""
    return crop_decoded_side(views.size, views.min_scale)


def _central(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    ratio = columns / rows
    height = np.where(ratio < RATIO[0], np.rint(columns / RATIO[0]), rows)
    width = np.where(ratio > RATIO[1], np.rint(rows * RATIO[1]), columns)
    return np.stack(((rows - height) // 2, (columns - width) // 2, height, width), axis=1)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + uniform * (high - low)
