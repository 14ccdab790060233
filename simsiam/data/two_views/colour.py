"""The colour operations on batches of images in [0, 1] (B x 3 x H x W), in place, a factor for each image."""

from __future__ import annotations

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L")


def luma(x: Tensor) -> Tensor:
    """The grey image, B x 1 x H x W."""
    grey = x[:, 0:1] * _LUMA[0]
    return grey.add_(x[:, 1:2], alpha=_LUMA[1]).add_(x[:, 2:3], alpha=_LUMA[2])


def scale_brightness(x: Tensor, factor: Tensor) -> None:
    """Blend with black; `factor` is B x 1 x 1 x 1 here and below."""
    x.mul_(factor).clamp_(0, 1)


def scale_contrast(x: Tensor, factor: Tensor) -> None:
    """Blend with the mean grey of the image."""
    mean = luma(x).mean(dim=(1, 2, 3), keepdim=True)
    x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def scale_saturation(x: Tensor, factor: Tensor) -> None:
    """Blend with the grey image."""
    grey = luma(x)
    x.mul_(factor).add_(grey.mul_(1 - factor)).clamp_(0, 1)


def adjust_hue(x: Tensor, turn: Tensor) -> None:
    """Turn the hue by `turn` (of a whole turn), keeping value and chroma (HSV)."""
    red, green, blue = x.unbind(1)  # B x H x W
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    inverse = (chroma * 6).clamp_(min=1e-8).reciprocal_()
    # In turns, by which channel is the largest (red wins a tie, then green).
    hue = torch.where(
        value == red,
        (green - blue).mul_(inverse),
        torch.where(value == green, (blue - red).mul_(inverse).add_(1 / 3), (red - green).mul_(inverse).add_(2 / 3)),
    ).add_(turn[:, 0])
    for channel, least in enumerate((1 / 2, 5 / 6, 1 / 6)):  # the hue at which the channel is at its least
        away = hue - least
        share = away.sub_(away.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)  # of the chroma that the channel lacks
        x[:, channel] = torch.addcmul(value, share, chroma, value=-1)
