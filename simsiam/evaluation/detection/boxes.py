"""Boxes: the anchors of a feature map, boxes relative to others, and which objects they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou, clip_boxes_to_image, nms

from simsiam.evaluation.detection.settings import Assignment, Sampling

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


BACKGROUND, LEFT_OUT = -1, -2  # in place of an object's index
MOST_SCALING = math.log(1000 / 16)  # of width and height, up or down: keeps exp from overflowing
Deviations = tuple[float, float, float, float]
UNIT: Deviations = (1.0, 1.0, 1.0, 1.0)


def encode(boxes: Tensor, anchors: Tensor, deviations: Deviations = UNIT) -> Tensor:
    """What the network shall predict to turn each anchor into its box: N x 4 (dx, dy, dw, dh) over the deviations."""
    centre, size = _centre_and_size(boxes)
    from_centre, from_size = _centre_and_size(anchors)
    deltas = torch.cat([(centre - from_centre) / from_size, torch.log(size / from_size)], dim=1)
    return deltas / deltas.new_tensor(deviations)


def decode(deltas: Tensor, anchors: Tensor, size: tuple[int, int], deviations: Deviations = UNIT) -> Tensor:
    """The boxes that predicted deltas stand for, clipped to the image.

    Args:
        deltas: N x ... x 4.
        anchors: N x 4.
        size: height and width of the image.

    Returns:
        N x ... x 4.
    """
    deltas = deltas * deltas.new_tensor(deviations)
    from_centre, from_size = _centre_and_size(anchors.reshape(anchors.shape[0], *[1] * (deltas.dim() - 2), 4))
    centre = from_centre + deltas[..., :2] * from_size
    scaled = from_size * deltas[..., 2:].clamp(-MOST_SCALING, MOST_SCALING).exp()
    return clip_boxes_to_image(box_convert(torch.cat([centre, scaled], dim=-1), "cxcywh", "xyxy"), size)


def best_apart(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float) -> Tensor:
    """Rows of N boxes, best first, without those that overlap a better one of their group by more than `overlap`."""
    if not torch.compiler.is_exporting():
        return batched_nms(boxes, scores, groups, overlap)
    # torchvision looks how many boxes there are, which an exported program cannot: here groups lie side by side
    side = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    return nms(boxes + groups[:, None].to(boxes) * side, scores, overlap)


def assign(boxes: Tensor, objects: Tensor, rule: Assignment) -> Tensor:
    """The object that each box stands for.

    Args:
        boxes: N x 4.
        objects: M x 4; M may be 0.

    Returns:
        N, int64: the object's index, BACKGROUND or LEFT_OUT.
    """
    assigned = torch.full((len(boxes),), LEFT_OUT, dtype=torch.int64, device=boxes.device)
    if not len(objects) or not len(boxes):
        return assigned.fill_(BACKGROUND)
    overlaps = box_iou(objects, boxes)  # M x N
    most, nearest = overlaps.max(0)
    assigned[most < rule.negative] = BACKGROUND
    assigned = torch.where(most >= rule.positive, nearest, assigned)
    if rule.low_quality == "off":
        return assigned
    best = overlaps.max(1, keepdim=True).values  # M x 1
    taken = (overlaps == best) & (best >= rule.lowest)
    numbers = torch.arange(1, len(objects) + 1, device=boxes.device)[:, None]
    last = (taken * numbers).max(0).values  # a box that is the best of several objects goes to the last of them
    return torch.where(last > 0, last - 1, assigned)


def sample(assigned: Tensor, how: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of the positive and of the negative boxes that are trained on.

    Args:
        assigned: as `assign` returns it.
        generator: on the CPU.
    """
    positive = torch.nonzero(assigned >= 0).flatten()
    negative = torch.nonzero(assigned == BACKGROUND).flatten()
    positive = _some(positive, int(how.count * how.positive_fraction), generator)
    return positive, _some(negative, how.count - len(positive), generator)


def _some(positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(positions) <= count:
        return positions
    chosen = torch.randperm(len(positions), generator=generator)[:count]
    return positions[chosen.to(positions.device)]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    converted = box_convert(boxes, "xyxy", "cxcywh")
    return converted[..., :2], converted[..., 2:]
