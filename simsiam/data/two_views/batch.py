"""The batch engine: the same views as the PIL engine, computed for a whole batch on any device.

Which image gets which operation is known on the CPU (the draws), so every group is a slice or an index list of known
length: no loop over images and no wait for the device. Pixels stay in floating point between operations, where PIL
rounds to 8 bits after each; the tests bound the difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from simsiam.data.preprocess import Normalisation, to_device
from simsiam.data.two_views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draws, crop_boxes

if TYPE_CHECKING:
    from simsiam.config import Views

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L")
_BLUR_PASSES = 3  # PIL's GaussianBlur is as many extended box blurs (Gwosdek et al. 2011)


def batch_views(pixels: Tensor, rows: Tensor, views: Views, draws: Draws, *, channels_last: bool) -> Tensor:
    """One view of each of B images of a set in memory.

    `pixels` is N x H x W x 3 uint8 on the device, `rows` B indices (CPU). Returns B x 3 x S x S float32, normalised.
    """
    images = pixels.index_select(0, to_device(rows, pixels.device))  # B x H x W x 3
    return finish_views(crop_in_memory(images, views, draws), views, draws, channels_last=channels_last)


def finish_views(x: Tensor, views: Views, draws: Draws, *, channels_last: bool) -> Tensor:
    """Colour jitter, grey, blur and normalisation of cropped images in [0, 1] (B x 3 x S x S, changed in place)."""
    x = _jitter(x, views, draws)
    gray = draws.gray.nonzero()[:, 0]
    if len(gray):
        index = to_device(gray, x.device)
        x.index_copy_(0, index, luma(x.index_select(0, index)).expand(-1, 3, -1, -1))
    blur = draws.blur.nonzero()[:, 0]
    if len(blur):
        index = to_device(blur, x.device)
        kernel = blur_matrices(to_device(draws.sigma[blur].float(), x.device), x.shape[2])
        x.index_copy_(0, index, kernel[:, None] @ x.index_select(0, index) @ kernel[:, None].mT)
    return Normalisation(mean=views.mean, std=views.std).scaled(x, channels_last=channels_last)


def crop_in_memory(images: Tensor, views: Views, draws: Draws) -> Tensor:
    """Random resized crops (flipped where drawn) of B x H x W x 3 uint8, as B x 3 x S x S float32 in [0, 1].

    Per image one matrix resamples the rows and one the columns, which is PIL's separable bilinear filter.
    """
    count, height, width = images.shape[:3]
    boxes = crop_boxes(views, draws.crop, np.full(count, height), np.full(count, width))
    top, left, tall, wide = to_device(torch.from_numpy(boxes).float(), images.device).unbind(1)  # B each
    down = resize_matrices(top, tall, height, views.size)  # B x S x H
    across = resize_matrices(left, wide, width, views.size)  # B x S x W
    flip = to_device(draws.flip, images.device)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    x = torch.bmm(down.mul_(1 / 255), images.view(count, height, width * 3).float())  # B x S x (W 3)
    x = x.view(count, views.size, width, 3).permute(0, 3, 1, 2).reshape(count, 3 * views.size, width)
    return torch.bmm(x, across.mT).view(count, 3, views.size, views.size)


def resize_matrices(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """B matrices (size x pixels) that resample pixels start to start + length as PIL's antialiased bilinear does.

    A triangle of half-width max(1, length / size), cut at the crop's borders and made to sum to one.
    """
    scale = (length / size)[:, None, None]  # B x 1 x 1
    begin = start[:, None, None]
    target = torch.arange(size, device=start.device, dtype=torch.float32)[:, None]  # size x 1
    column = torch.arange(pixels, device=start.device, dtype=torch.float32)  # pixels
    distance = (column + 0.5 - begin - (target + 0.5) * scale).abs_()  # B x size x pixels
    weights = (1 - distance / scale.clamp(min=1)).clamp_(min=0)
    weights *= (column >= begin) & (column < begin + length[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


def blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """B matrices (size x size) that blur a row as PIL's GaussianBlur(radius=sigma) does, edges replicated."""
    variance = sigma.square() / _BLUR_PASSES  # of one box
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    radius = (whole + rest)[:, None, None]  # B x 1 x 1; the box reaches radius + 1/2 to either side
    place = torch.arange(size, device=sigma.device, dtype=torch.float32)
    offset = place - place[:, None]  # size x size: source minus target
    low, high = offset + radius, offset + radius + 1
    # Everything beyond an edge is the edge pixel again, so the first and last columns take the box's whole tail.
    low[:, :, 0] = 0
    high[:, :, -1] = 2 * radius[:, :, 0] + 1
    box = (torch.minimum(high.clamp_(min=0), 2 * radius + 1) - torch.minimum(low.clamp_(min=0), 2 * radius + 1)).div_(
        2 * radius + 1
    )
    return box @ box @ box


def _jitter(x: Tensor, views: Views, draws: Draws) -> Tensor:
    """The four colour operations, each image in its own order.

    At each of the four places the batch is sorted by the operation that is due, which makes every group one slice.
    """
    if not bool(draws.jitter.any()):
        return x
    active = torch.tensor([bool(views.brightness), bool(views.contrast), bool(views.saturation), bool(views.hue)])
    held = torch.arange(len(draws))  # the image that lies at each place of the sorted batch
    for place in range(4):
        due = draws.order[:, place]
        due = torch.where(draws.jitter & active[due], due, 4)  # 4: nothing to do
        wanted = due.argsort(stable=True)
        x = x.index_select(0, to_device(held.argsort()[wanted], x.device))
        held = wanted
        ends = torch.bincount(due, minlength=5).cumsum(0).tolist()
        factors = to_device(draws.factors[wanted, due[wanted].clamp(max=3)].float(), x.device)
        for operation, change in _OPERATIONS.items():
            group = slice(ends[operation - 1] if operation else 0, ends[operation])
            if group.start < group.stop:
                change(x[group], factors[group].view(-1, 1, 1, 1))
    return x.index_select(0, to_device(held.argsort(), x.device))


# The colour operations on images in [0, 1] (B x 3 x H x W) are in place, with a factor for each image.
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


_OPERATIONS = {
    BRIGHTNESS: scale_brightness,
    CONTRAST: scale_contrast,
    SATURATION: scale_saturation,
    HUE: adjust_hue,
}
