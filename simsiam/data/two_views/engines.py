"""The image-by-image engines: Pillow, the reference, and OpenCV, the same views several times faster on a CPU.

The PIL engine applies exactly the published operations in the published order. In the OpenCV engine, also in 8 bits,
the crop is torch's antialiased bilinear resampling of bytes, the same filter as PIL's; the colour operations are PIL's
sums; the blur is a Gaussian where PIL takes three box blurs for one. `tests/data/two_views/test_engines.py` bounds the
differences, and `simsiam bench` measures the speed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from simsiam.config import published_views
from simsiam.data.preprocess import Normalisation
from simsiam.data.two_views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draws, crop_box, draw_pair

if TYPE_CHECKING:
    from simsiam.config import Views

F: Any = functional  # torchvision annotates tensors only, though each of these takes PIL images too
_LEVELS = np.arange(256, dtype=np.float32)


def pil_view(image: Image.Image, views: Views, draws: Draws, row: int) -> np.ndarray:
    """One whole view short of normalisation: S x S x 3 uint8.

    Crop, colour jitter in the drawn order, grey, PIL's blur, flip (MoCo v2; SimSiam paper, section 3).
    """
    image = pil_crop(image, views, draws, row)
    if draws.jitter[row]:
        for operation in draws.order[row].tolist():
            image = _pil_colour(image, operation, float(draws.factors[row, operation]), views)
    if draws.gray[row]:
        image = F.to_grayscale(image, num_output_channels=3)
    if draws.blur[row]:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(draws.sigma[row])))
    if draws.flip[row]:
        image = F.hflip(image)
    return np.array(image)


def pil_crop(image: Image.Image, views: Views, draws: Draws, row: int) -> Image.Image:
    """The random resized crop (bilinear)."""
    box = crop_box(views, draws, row, height=image.height, width=image.width)
    size = [views.size, views.size]
    bilinear = InterpolationMode.BILINEAR
    cropped: Image.Image = F.resized_crop(image, box.top, box.left, box.height, box.width, size, bilinear)
    return cropped


def _pil_colour(image: Image.Image, operation: int, factor: float, views: Views) -> Image.Image:
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


def opencv_view(image: Image.Image | np.ndarray, views: Views, draws: Draws, row: int) -> np.ndarray:
    """One whole view short of normalisation, as `pil_view`: H x W x 3 to S x S x 3 uint8."""
    pixels = opencv_crop(image, views, draws, row)
    if draws.jitter[row]:
        for operation in draws.order[row].tolist():
            pixels = _colour(pixels, operation, float(draws.factors[row, operation]), views)
    if draws.gray[row]:
        pixels = cv2.cvtColor(_grey(pixels), cv2.COLOR_GRAY2RGB)
    if draws.blur[row]:
        sigma = float(draws.sigma[row])
        side = 2 * round(3 * sigma + 0.5) + 1  # to three deviations either way
        pixels = cv2.GaussianBlur(pixels, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return pixels


def opencv_crop(image: Image.Image | np.ndarray, views: Views, draws: Draws, row: int) -> np.ndarray:
    """The random resized crop alone, flipped where drawn: S x S x 3 uint8, for the batch engine to finish.

    The flip commutes with every later operation.
    """
    _one_thread()
    whole = np.asarray(image)  # H x W x 3
    box = crop_box(views, draws, row, height=whole.shape[0], width=whole.shape[1])
    cut = whole[box.top : box.top + box.height, box.left : box.left + box.width]
    planes = torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None]  # 1 x 3 x h x w, channels last
    size = (views.size, views.size)
    resized = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
    pixels: np.ndarray = cv2.merge(list(resized[0].contiguous().numpy()))  # S x S x 3
    if draws.flip[row]:
        pixels = cv2.flip(pixels, 1)
    return pixels


def _colour(pixels: np.ndarray, operation: int, factor: float, views: Views) -> np.ndarray:
    if operation == BRIGHTNESS and views.brightness:
        return _mapped(pixels, _LEVELS * factor)
    if operation == CONTRAST and views.contrast:
        middle = round(float(cv2.mean(_grey(pixels))[0]))
        return _mapped(pixels, _LEVELS * factor + middle * (1 - factor))
    if operation == SATURATION and views.saturation:
        grey = cv2.cvtColor(_grey(pixels), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(pixels, factor, grey, 1 - factor, -0.5)  # PIL rounds downwards
    if operation == HUE and views.hue:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
        turn = round(factor * 256) % 256
        hsv[..., 0] += np.uint8(turn)  # hue is a circle of 256 steps, as in PIL
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return pixels


def _mapped(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8))


def _grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


@cache
def _one_thread() -> None:
    """Workers are processes, one a core; threads inside them would only wait for each other."""
    cv2.setNumThreads(0)


class TwoViews:
    """Two random views of an image, each 3 x size x size, normalised: the published augmentation (paper, section 3).

    Random numbers come from torch's global generator, which a DataLoader seeds in each of its workers.

    Args:
        size: pixels of a view.
        changes: fields of `simsiam.config.Views` other than published; for images of 32 pixels the paper leaves out the
            blur: blur_probability=0.0.

    >>> views = TwoViews(size=64)
    >>> x1, x2 = views(Image.new("RGB", (100, 80), "red"))
    >>> x1.shape, x1.dtype
    (torch.Size([3, 64, 64]), torch.float32)
    """

    def __init__(self, size: int = 224, **changes: Any) -> None:
        self.views = replace(published_views(size), **changes)

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """The two views of a PIL image."""
        image = image.convert("RGB")
        draws = draw_pair(self.views, 1, None)
        pixels = np.stack([opencv_view(image, self.views, view, 0) for view in (draws.view1, draws.view2)])
        x1, x2 = Normalisation(mean=self.views.mean, std=self.views.std)(torch.from_numpy(pixels))
        return x1, x2

    def __repr__(self) -> str:
        return f"TwoViews({self.views})"
