"""Masks between image and box: what the mask head shall predict, and how its answer is drawn into the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

INSIDE = 0.5  # of a target's pixel: the share of it that the object covers


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """The part of its object's mask that each box shows, at the mask head's size.

    Args:
        masks: M x H x W bool.
        boxes: P x 4.
        objects: P, the mask of each box.
        side: of the mask head's output.

    Returns:
        P x side x side float, 0 or 1.
    """
    rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)
    covered = roi_align(
        masks[:, None].to(boxes.dtype), rois, (side, side), spatial_scale=1.0, sampling_ratio=0, aligned=True
    )
    return (covered[:, 0] >= INSIDE).to(boxes.dtype)


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Masks in the image: each is stretched over its box (bilinear, at pixel centres) and cut at the threshold.

    Args:
        probabilities: N x side x side.
        boxes: N x 4, in pixels of the image.
        size: height and width of the image.

    Returns:
        N x H x W bool.
    """
    height, width = size
    drawn = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for number, (box, mask) in enumerate(zip(boxes.tolist(), probabilities, strict=True)):
        x1, y1, x2, y2 = box
        left, top = max(int(x1), 0), max(int(y1), 0)
        right, bottom = min(int(x2) + 1, width), min(int(y2) + 1, height)
        if right <= left or bottom <= top or x2 <= x1 or y2 <= y1:
            continue
        x = (torch.arange(left, right, device=boxes.device) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(top, bottom, device=boxes.device) + 0.5 - y1) / (y2 - y1) * 2 - 1
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)[None].to(mask.dtype)
        stretched = functional.grid_sample(mask[None, None], grid, mode="bilinear", align_corners=False)
        drawn[number, top:bottom, left:right] = stretched[0, 0] >= threshold
    return drawn
