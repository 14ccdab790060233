"""Transforms that move an image and its mask together, and the photometric distortion of the image alone.

The published training transform of the segmentation recipes, in its order: resize by a random ratio, crop, flip,
distort; normalising and padding follow in the loader. Two differences from the programs it comes from: shrinking is
antialiased (Pillow), and the mask is sampled at pixel centres, where the image is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simsiam.limits import Count, Positive, Share

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

IGNORE = 255  # in a mask: a pixel that no class is known of

REDRAWS = 10  # of a crop that is all but one class
MARGIN = 4  # pixels around a part that its outermost ones may be mixed from
HUE_STEPS = 180  # of a full turn: as OpenCV counts, in whose units the published delta is


@dataclass(frozen=True, kw_only=True)
class MaskAugmentation:
    """How an image and its mask become a training crop."""

    scale_long: Count  # Pixels that an image's long edge must fit in.
    scale_short: Count  # Pixels that its short edge must fit in.
    min_ratio: Positive  # Smallest factor of that size, drawn for each image.
    max_ratio: Positive  # Largest factor of that size.
    crop: Count  # Pixels of the square crop's side; smaller images are padded.
    most_of_one_class: Share  # Largest share of one class in a crop, else it is drawn again, up to ten times.
    flip_probability: Share  # How often a crop is mirrored left to right.
    brightness: float  # Largest shift of brightness, of 255.
    min_contrast: float  # Smallest factor of contrast.
    max_contrast: float  # Largest factor of contrast.
    min_saturation: float  # Smallest factor of saturation.
    max_saturation: float  # Largest factor of saturation.
    hue: float  # Largest turn of hue, of 180 for the full circle.
    distort_probability: Share  # How often each of the four colour changes is applied.


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A training crop at the upper left of its frame; what lies beyond the image is padding."""

    pixels: np.ndarray  # S x S x 3 uint8
    mask: np.ndarray  # S x S uint8: class ids and IGNORE, IGNORE in the padding
    inside: np.ndarray  # S x S uint8: 1 where there is image


@dataclass(frozen=True, kw_only=True)
class Corner:
    """Where a crop begins."""

    left: int
    top: int


def augment(image: Image, mask: np.ndarray, how: MaskAugmentation, rng: np.random.Generator) -> Crop:
    """One random crop of an image (RGB) and its mask (H x W uint8)."""
    import numpy as np
    from PIL import ImageOps

    ratio = rng.uniform(how.min_ratio, how.max_ratio)
    size = fitted(image.size, long=int(how.scale_long * ratio), short=int(how.scale_short * ratio))
    mask = resize_mask(mask, size)
    at = crop_corner(mask, how, rng)
    box = (at.left, at.top, min(at.left + how.crop, size[0]), min(at.top + how.crop, size[1]))
    image, mask = resized_part(image, size, box), mask[box[1] : box[3], box[0] : box[2]]
    if rng.random() < how.flip_probability:
        image, mask = ImageOps.mirror(image), mask[:, ::-1]
    return _framed(np.asarray(distort(image, how, rng)), mask, how.crop)


def fitted(size: tuple[int, int], *, long: int, short: int) -> tuple[int, int]:
    """Width and height of an image that is resized, keeping its shape, as far as both edges allow."""
    factor = min(long / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another width and height; each pixel takes the nearest one's class."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def resized_part(image: Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image:
    """A part (left, top, right, bottom) of the resized image, without resizing the rest."""
    from PIL.Image import Resampling

    across, down = image.width / size[0], image.height / size[1]
    left, top = max(0, box[0] - MARGIN), max(0, box[1] - MARGIN)
    right, bottom = min(size[0], box[2] + MARGIN), min(size[1], box[3] + MARGIN)
    source = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
    part = image.resize((right - left, bottom - top), Resampling.BILINEAR, box=source)
    return part.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))


def crop_corner(mask: np.ndarray, how: MaskAugmentation, rng: np.random.Generator) -> Corner:
    """A crop with at least two classes, none above the limit; after ten redraws whichever comes."""
    corner = _draw_corner(mask, how.crop, rng)
    for _ in range(REDRAWS):
        if how.most_of_one_class >= 1 or mixed(_cut(mask, corner, how.crop), how.most_of_one_class):
            break
        corner = _draw_corner(mask, how.crop, rng)
    return corner


def mixed(mask: np.ndarray, most: float) -> bool:
    """Whether a mask shows two classes or more, and the largest has less than `most` of the labelled pixels."""
    import numpy as np

    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORE]
    return bool((counts > 0).sum() > 1 and counts.max() < most * counts.sum())


def distort(image: Image, how: MaskAugmentation, rng: np.random.Generator) -> Image:
    """Photometric distortion (Liu et al. 2016, SSD): brightness, contrast before or after saturation and hue."""

    def wanted() -> bool:
        return bool(rng.random() < how.distort_probability)

    if wanted():
        image = _linear(image, 1.0, rng.uniform(-how.brightness, how.brightness))
    contrast_first = rng.random() < 0.5
    if contrast_first and wanted():
        image = _linear(image, rng.uniform(how.min_contrast, how.max_contrast), 0.0)
    saturation = rng.uniform(how.min_saturation, how.max_saturation) if wanted() else 1.0
    turn = rng.uniform(-how.hue, how.hue) if wanted() else 0.0
    if saturation != 1.0 or turn:
        image = _hue_and_saturation(image, turn / HUE_STEPS, saturation)
    if not contrast_first and wanted():
        image = _linear(image, rng.uniform(how.min_contrast, how.max_contrast), 0.0)
    return image


def _linear(image: Image, factor: float, shift: float) -> Image:
    import numpy as np

    table = np.clip(np.arange(256) * factor + shift, 0, 255).astype(np.uint8).tolist()
    return image.point(table * 3)


def _hue_and_saturation(image: Image, turn: float, factor: float) -> Image:
    import numpy as np

    levels = np.arange(256)
    hue = ((levels + round(turn * 256)) % 256).tolist()
    saturation = np.clip(np.rint(levels * factor), 0, 255).astype(int).tolist()
    return image.convert("HSV").point([*hue, *saturation, *range(256)]).convert("RGB")


def _draw_corner(mask: np.ndarray, side: int, rng: np.random.Generator) -> Corner:
    height, width = mask.shape
    top = int(rng.integers(0, max(height - side, 0) + 1))
    return Corner(left=int(rng.integers(0, max(width - side, 0) + 1)), top=top)


def _cut(mask: np.ndarray, at: Corner, side: int) -> np.ndarray:
    return mask[at.top : at.top + side, at.left : at.left + side]


def _framed(pixels: np.ndarray, mask: np.ndarray, side: int) -> Crop:
    import numpy as np

    height, width = mask.shape
    frame: dict[str, Any] = {
        "pixels": np.zeros((side, side, 3), np.uint8),
        "mask": np.full((side, side), IGNORE, np.uint8),
        "inside": np.zeros((side, side), np.uint8),
    }
    frame["pixels"][:height, :width] = pixels
    frame["mask"][:height, :width] = mask
    frame["inside"][:height, :width] = 1
    return Crop(**frame)
