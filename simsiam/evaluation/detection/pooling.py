"""RoIAlign: the features inside a box, as a map of fixed size (He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

CANONICAL = 14  # strides of the finest level: a box of this side and above (56 pixels at stride 4) moves up a level


def pool(maps: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], side: int) -> Tensor:
    """The features of every box, from the level that suits its size.

    Bins are sampled as densely as they are large (adaptive sampling), at half-pixel centres (`aligned`).

    Args:
        maps: B x C x H x W each, finest first.
        boxes: of each image of the batch, R_b x 4 in pixels of the image.
        strides: of each map.
        side: of the output.

    Returns:
        R x C x side x side, image by image.
    """
    images = torch.cat([torch.full_like(each[:, :1], number) for number, each in enumerate(boxes)])
    rois = torch.cat([images, torch.cat(list(boxes))], dim=1)  # R x 5
    if len(maps) == 1:
        return _align(maps[0], rois, strides[0], side)
    levels = level_of(rois[:, 1:], strides)
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], side, side)
    for number, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = torch.nonzero(levels == number).flatten()
        pooled = pooled.index_copy(0, here, _align(features, rois[here], stride, side))
    return pooled


def _align(features: Tensor, rois: Tensor, stride: int, side: int) -> Tensor:
    # In float32: bf16 has no kernel on every device, and coordinates need the digits.
    pooled: Tensor = roi_align(
        features.float(), rois, (side, side), spatial_scale=1 / stride, sampling_ratio=0, aligned=True
    )
    return pooled.to(features.dtype)


def level_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Which level each of R boxes belongs to: R, int64 (Lin et al. 2017, equation 1)."""
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    levels = torch.log2(sides / (CANONICAL * strides[0]) + 1e-6).floor()
    return levels.clamp(0, len(strides) - 1).long()
