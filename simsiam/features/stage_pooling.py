"""Pooling of the five feature maps to about 9,000 values each, for the SVM and the linear heads.

Source: Goyal et al. 2019; kernel, stride and padding as in the model zoo's code for ResNet-50 at 224 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

Pooling = Literal["specified", "adaptive"]

MOST = 9216  # values of a pooled map: 64 x 12 x 12, 256 x 6 x 6, 1024 x 3 x 3
# Channels and side of a map of ResNet-50 (101, 152) at 224 pixels -> kernel, stride, padding; padding counts in the
# mean.
SPECIFIED = {
    (64, 112): (10, 10, 4),
    (256, 56): (16, 8, 0),
    (512, 28): (13, 5, 0),
    (1024, 14): (8, 3, 0),
    (2048, 7): (6, 1, 0),
}


def stage_pools(maps: Sequence[Tensor], pooling: Pooling) -> list[nn.Module]:
    """The pooling of each map (B x C x H x W) to B x C x h x w.

    `specified` takes the published kernels for the maps that they were made for. Any other map, and every map under
    `adaptive`, is averaged to the largest square grid of at most 9,216 values in all: 12, 6, 4, 3 and 2 a side for
    the channels of ResNet-50.
    """
    return [_pool(features, pooling) for features in maps]


def _pool(features: Tensor, pooling: Pooling) -> nn.Module:
    _, channels, height, width = features.shape
    kernel = SPECIFIED.get((channels, height)) if height == width and pooling == "specified" else None
    if kernel is not None:
        size, stride, padding = kernel
        return nn.AvgPool2d(size, stride, padding, count_include_pad=True)
    side = max(1, math.isqrt(MOST // channels))
    return nn.AdaptiveAvgPool2d((min(side, height), min(side, width)))
