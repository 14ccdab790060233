"""8-bit pixels to network input: the one place where images are scaled and normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The mean and deviation of the pixels that a network was trained on, per channel."""

    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor, *, channels_last: bool = False) -> Tensor:
        """B x H x W x 3 uint8 -> B x 3 x H x W float32."""
        return self.scaled(unit(pixels), channels_last=channels_last)

    def scaled(self, x: Tensor, *, channels_last: bool = False) -> Tensor:
        """(x - mean) / std of B x 3 x H x W in [0, 1], in place; optionally laid out channels-last."""
        shift, scale = (to_device(torch.tensor(each), x.device).view(3, 1, 1) for each in (self.mean, self.std))
        x = x.sub_(shift).div_(scale)
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def unit(pixels: Tensor) -> Tensor:
    """B x H x W x 3 uint8 -> B x 3 x H x W float32 in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_device(small: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on the device, without waiting for it."""
    if device.type == "cuda":
        return small.pin_memory().to(device, non_blocking=True)
    return small.to(device)
