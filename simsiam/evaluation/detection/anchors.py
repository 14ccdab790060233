"""Anchors: boxes of fixed sizes and shapes at every position of a feature map.

As the published models have them: centred on the top left corner of each cell's pixel (position x stride), not
rounded, with area (scale x stride)^2 for every ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PADDING = 32  # images are padded to a multiple of this


def cell_anchors(stride: int, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors of one position around (0, 0), ratio by ratio: A x 4 (x1, y1, x2, y2 in pixels)."""
    boxes = []
    for ratio in ratios:
        for scale in scales:
            width, height = scale * stride / math.sqrt(ratio), scale * stride * math.sqrt(ratio)
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes)


def grid_anchors(cell: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The anchors of a map, row by row, position by position: (height x width x A) x 4."""
    y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
    x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack([columns, rows, columns, rows], dim=-1)  # H x W x 4
    return (corners[:, :, None] + cell).reshape(-1, 4)


def trainable(
    anchors: Tensor, size: tuple[int, int], grid: tuple[int, int, int], border: Literal["inside", "any"]
) -> Tensor:
    """Which anchors of a map may be trained on for one image of a batch.

    Args:
        anchors: (H x W x A) x 4.
        size: height and width of the image, without padding.
        grid: H, W and stride.
        border: `inside`: the anchor lies within the image. Either way its position lies within the image as padded
            by itself: a batch is as large as its largest image, and beyond there is nothing to see.

    Returns:
        (H x W x A) bool.
    """
    height, width, stride = grid
    rows, columns = (min(-(-_padded(side) // stride), most) for side, most in zip(size, (height, width), strict=True))
    seen = torch.zeros(height, width, len(anchors) // (height * width), dtype=torch.bool, device=anchors.device)
    seen[:rows, :columns] = True
    seen = seen.reshape(-1)
    if border == "any":
        return seen
    x1, y1, x2, y2 = anchors.unbind(1)
    return seen & (x1 >= 0) & (y1 >= 0) & (x2 < size[1]) & (y2 < size[0])


def _padded(side: int) -> int:
    return -(-side // PADDING) * PADDING
