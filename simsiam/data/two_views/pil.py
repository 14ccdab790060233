"""The PIL engine: one view of one image, exactly the published operations in the published order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode, functional

from simsiam.data.two_views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draws, crop_box

if TYPE_CHECKING:
    from simsiam.config import Views

F: Any = functional  # torchvision annotates tensors only, though each of these takes PIL images too


def pil_view(image: Image.Image, views: Views, draws: Draws, row: int) -> np.ndarray:
    """One whole view short of normalisation: S x S x 3 uint8.

    Crop, colour jitter in the drawn order, grey, PIL's blur, flip (MoCo v2; SimSiam paper, section 3).
    """
    image = crop(image, views, draws, row)
    if draws.jitter[row]:
        for operation in draws.order[row].tolist():
            image = _colour(image, operation, float(draws.factors[row, operation]), views)
    if draws.gray[row]:
        image = F.to_grayscale(image, num_output_channels=3)
    if draws.blur[row]:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(draws.sigma[row])))
    if draws.flip[row]:
        image = F.hflip(image)
    return np.array(image)


def crop(image: Image.Image, views: Views, draws: Draws, row: int) -> Image.Image:
    """The random resized crop (bilinear)."""
    box = crop_box(views, draws, row, height=image.height, width=image.width)
    size = [views.size, views.size]
    bilinear = InterpolationMode.BILINEAR
    cropped: Image.Image = F.resized_crop(image, box.top, box.left, box.height, box.width, size, bilinear)
    return cropped


def _colour(image: Image.Image, operation: int, factor: float, views: Views) -> Image.Image:
    changed: Image.Image = image
    if operation == BRIGHTNESS and views.brightness:
        changed = F.adjust_brightness(image, factor)
    elif operation == CONTRAST and views.contrast:
        changed = F.adjust_contrast(image, factor)
    elif operation == SATURATION and views.saturation:
        changed = F.adjust_saturation(image, factor)
    elif operation == HUE and views.hue:
        changed = F.adjust_hue(image, factor)
    return changed
