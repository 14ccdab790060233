"""The OpenCV engine: the same views as the PIL engine, in 8 bits as there, several times faster on a CPU.

The crop is torch's antialiased bilinear resampling of bytes, the same filter as PIL's; the colour operations are PIL's
sums; the blur is a Gaussian where PIL takes three box blurs for one. `tests/data/two_views/test_engines.py` bounds the
differences, and `benchmarks/views.py` measures the speed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from simsiam.data.two_views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draws, crop_box

if TYPE_CHECKING:
    from simsiam.config import Views

_LEVELS = np.arange(256, dtype=np.float32)


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
    resized = functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
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
