"""From 8-bit pixels to network input: the one place of normalisation, and the fixed transforms of evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

_CHUNK = 512  # images of a set in memory resampled at once


def short_edge(size: int) -> int:
    """The short edge before a crop of `size`: 256 for 224 and in proportion; CIFAR-sized images are not cropped."""
    return size if size <= 64 else round(size * 256 / 224)


def crop_decoded_side(size: int, min_scale: float) -> int:
    """The short side in pixels from which even the smallest random crop is shrunk to `size`, not enlarged.

    A crop has `min_scale` of the image's area or more, and sides of 3 to 4 or rounder. An image that is larger can be
    decoded at a lower scale: its crops then still hold as many pixels as the network sees.
    """
    return math.ceil(size / math.sqrt(min_scale * 3 / 4))


@dataclass(frozen=True, kw_only=True)
class Box:
    """A crop in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The mean and deviation of the pixels that a network was trained on, per channel."""

    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]

    def __call__(self, pixels: torch.Tensor, *, channels_last: bool = False) -> torch.Tensor:
        """B x H x W x 3 uint8 -> B x 3 x H x W float32."""
        return self.scaled(unit(pixels), channels_last=channels_last)

    def scaled(self, x: torch.Tensor, *, channels_last: bool = False) -> torch.Tensor:
        """(x - mean) / std of B x 3 x H x W in [0, 1], in place; optionally laid out channels-last."""
        import torch

        shift, scale = (to_device(torch.tensor(each), x.device).view(3, 1, 1) for each in (self.mean, self.std))
        x = x.sub_(shift).div_(scale)
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def unit(pixels: torch.Tensor) -> torch.Tensor:
    """B x H x W x 3 uint8 -> B x 3 x H x W float32 in [0, 1]."""
    import torch

    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_device(small: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small CPU tensor on the device, without waiting for it."""
    if device.type == "cuda":
        return small.pin_memory().to(device, non_blocking=True)
    return small.to(device)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image is brought to the network's size.

    center: the short edge to `resize` (bilinear, antialiased), then the central size x size (the ImageNet protocol).
    squash: the short edge to `resize`, then both sides to `size` whatever the shape (the VOC07 SVM protocol).
    """

    kind: Literal["center", "squash"]
    resize: int  # pixels
    size: int  # pixels
    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]

    @property
    def decoded_side(self) -> int:
        """Pixels of a short side that suffice: twice those needed.

        A JPEG decoded at half its scale or less then differs by about a level of 255 once it is resized, and by six
        where it were decoded to just those needed.
        """
        return 2 * max(self.resize, self.size)

    def apply(self, image: Image.Image) -> torch.Tensor:
        """One image, 3 x S x S float32, normalised."""
        import torch

        return self.normalise(torch.from_numpy(self.resample(image))[None])[0]

    def resample(self, image: Image.Image) -> np.ndarray:
        """One image at the network's size, S x S x 3 uint8."""
        import numpy as np
        from torchvision.transforms import InterpolationMode, functional

        F: Any = functional  # torchvision annotates tensors only, though each of these takes PIL images too
        image = F.resize(image, [self.resize], InterpolationMode.BILINEAR)
        if self.kind == "squash":
            image = F.resize(image, [self.size, self.size], InterpolationMode.BILINEAR)
        else:
            image = F.center_crop(image, [self.size, self.size])
        return np.array(image)

    def apply_pixels(self, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        """The same for N x H x W x 3 uint8 in memory: N x 3 x S x S float32 on the device.

        Images that have the size already are not resampled. Others differ from `apply` by rounding alone.
        """
        import numpy as np
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        images = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(device)
        if images.shape[1:3] == (self.size, self.size) and self.resize == self.size:
            return self.normalise(images)
        parts = []
        for part in torch.split(images, _CHUNK):
            x = F.resize(part.permute(0, 3, 1, 2), [self.resize], InterpolationMode.BILINEAR, antialias=True)
            if self.kind == "squash":
                x = F.resize(x, [self.size, self.size], InterpolationMode.BILINEAR, antialias=True)
            else:
                x = F.center_crop(x, [self.size, self.size])
            parts.append(self.normalise(x.permute(0, 2, 3, 1)))
        return torch.cat(parts)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """N x S x S x 3 uint8 as N x 3 x S x S float32, normalised."""
        return Normalisation(mean=self.mean, std=self.std)(images)
