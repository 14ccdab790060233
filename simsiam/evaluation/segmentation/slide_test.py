"""Scores of a large image from overlapping windows, each seen alone; where windows overlap, the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of an image."""

    top: int
    left: int
    bottom: int
    right: int


def windows(height: int, width: int, *, crop: int, stride: int) -> list[Window]:
    """Windows of crop x crop every `stride` pixels; the last of each row and column is moved back to the edge.

    An image that is smaller than the crop has one window of its own size.
    """
    return [
        Window(top=top, left=left, bottom=min(top + crop, height), right=min(left + crop, width))
        for top in _starts(height, crop, stride)
        for left in _starts(width, crop, stride)
    ]


def slide(image: Tensor, score: Callable[[Tensor], Tensor], *, crop: int, stride: int, batch: int = 4) -> Tensor:
    """The mean scores of an image, 1 x 3 x H x W -> 1 x C x H x W.

    Args:
        score: B x 3 x h x w -> B x C x h x w, at the same size.
        batch: windows that are scored at once.
    """
    height, width = image.shape[-2:]
    places = windows(height, width, crop=crop, stride=stride)
    total, count = None, image.new_zeros(1, 1, height, width)
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        scores = score(torch.cat([image[..., at.top : at.bottom, at.left : at.right] for at in some]))
        if total is None:
            total = scores.new_zeros(1, scores.shape[1], height, width)
        for at, row in zip(some, scores, strict=True):
            total[0, :, at.top : at.bottom, at.left : at.right] += row
            count[..., at.top : at.bottom, at.left : at.right] += 1
    assert total is not None
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    last = max(length - crop, 0)
    return [min(start, last) for start in range(0, last + stride, stride)]
