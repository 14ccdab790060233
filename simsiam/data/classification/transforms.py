"""Training augmentation of the labelled protocols: one random crop per image, no second view.

The operations and their order are those of the published linear configurations: crop, flip, colour jitter (always,
hue 0), to tensor, AlexNet lighting noise, normalise. Every random number of an image comes from a generator that the
loader seeds with (seed, epoch, image), so an image's crop depends on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from simsiam.data.preprocess import Box, crop_decoded_side
from simsiam.limits import Count, Share

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

# Principal components of ImageNet's RGB values in [0, 1] (Krizhevsky et al. 2012, section 4.1), in the values that
# all public ResNet training code uses.
LIGHTING_EIGENVALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a labelled training image becomes a crop."""

    # RandomResizedCrop; or short edge, centre square and a random crop of it.
    crop: Literal["resized", "resize-then-random"]
    size: Count  # Pixels of the crop.
    min_scale: Share  # Smallest crop as a share of the image's area, with --crop resized.
    resize: Count  # Pixels of the short edge and the centre square, with --crop resize-then-random.
    flip_probability: Share  # How often a crop is mirrored left to right.
    jitter: float  # Strength of the changes of brightness, contrast and saturation; 0: none.
    lighting: float  # Standard deviation of AlexNet's lighting noise; 0: none.


@dataclass(frozen=True, kw_only=True)
class Augmenter:
    """An augmentation with the normalisation of the backbone: what the loader calls an Augment."""

    augmentation: Augmentation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def size(self) -> int:
        """Pixels of the crop's side, S."""
        return self.augmentation.size

    @property
    def decoded_side(self) -> int:
        """Pixels of an image's short side that suffice for its crops."""
        how = self.augmentation
        return crop_decoded_side(how.size, how.min_scale) if how.crop == "resized" else 2 * how.resize

    def crop(self, image: Image, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """One image cropped, flipped and colour-jittered: S x S x 3 uint8."""
        import numpy as np
        from PIL import ImageOps

        image = _crop(image, self.augmentation, rng)
        if rng.random() < self.augmentation.flip_probability:
            image = ImageOps.mirror(image)
        if self.augmentation.jitter:
            image = _jitter(image, self.augmentation.jitter, rng)
        return np.array(image)

    def finish(self, pixels: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """B x S x S x 3 uint8 -> B x 3 x S x S float32: the lighting noise, then the normalisation."""
        import numpy as np
        import torch

        from simsiam.data.preprocess import Normalisation, unit

        images = unit(pixels)
        if self.augmentation.lighting and rngs:
            shifts = np.stack([lighting(rng.normal(0.0, self.augmentation.lighting, 3)) for rng in rngs])  # B x 3
            images += torch.from_numpy(shifts).to(images.device)[:, :, None, None]
        return Normalisation(mean=self.mean, std=self.std).scaled(images)


def lighting(alpha: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The RGB shift for three normal draws: eigenvectors x (alpha x eigenvalues), float32."""
    import numpy as np

    return np.asarray(np.asarray(LIGHTING_EIGENVECTORS) @ (alpha * np.asarray(LIGHTING_EIGENVALUES)), np.float32)


def _crop(image: Image, how: Augmentation, rng: np.random.Generator) -> Image:
    from PIL.Image import Resampling

    if how.crop == "resized":
        box = resized_crop_box(image.width, image.height, how.min_scale, rng)
        # Crop before resizing: `resize(box=...)` would let pixels outside the box into the edge rows.
        cut = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        return cut.resize((how.size, how.size), Resampling.BILINEAR)
    short = min(image.size)
    width, height = (how.resize * side // short for side in image.size)  # torchvision rounds the long edge down
    left, top = round((width - how.resize) / 2), round((height - how.resize) / 2)  # of the centre square
    left, top = (edge + int(rng.integers(0, how.resize - how.size + 1)) for edge in (left, top))
    resized = image.resize((width, height), Resampling.BILINEAR)
    return resized.crop((left, top, left + how.size, top + how.size))


def resized_crop_box(width: int, height: int, min_scale: float, rng: np.random.Generator) -> Box:
    """A RandomResizedCrop box: ten draws of area and aspect ratio (3/4 to 4/3), then the central fallback."""
    area = width * height
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        target = area * rng.uniform(min_scale, 1.0)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return Box(left=left, top=top, width=w, height=h)
    w = min(width, round(height * 4 / 3)) or 1
    h = min(height, round(width * 4 / 3)) or 1
    return Box(left=(width - w) // 2, top=(height - h) // 2, width=w, height=h)


def _jitter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    from PIL import ImageEnhance

    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3)
    for which in rng.permutation(3):
        image = enhancers[which](image).enhance(float(factors[which]))
    return image
