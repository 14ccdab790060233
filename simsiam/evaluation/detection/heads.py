"""The heads on pooled boxes: how boxes are pooled, described, classified, refined and masked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from simsiam.evaluation.detection.settings import Masks

CANONICAL = 14  # strides of the finest level: a box of this side and above (56 pixels at stride 4) moves up a level


def pool(maps: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], side: int) -> Tensor:
    """The features of every box, from the level that suits its size.

    Bins are sampled as densely as they are large (adaptive sampling), at half-pixel centres (`aligned`).

    Args:
        maps: B x C x H x W each, finest first.
        boxes: of each image of the batch, R_b x 4 in pixels of the image.
        strides: of each map.
        side: of the output.

    Returns:
        R x C x side x side, image by image.
    """
    images = torch.cat([torch.full_like(each[:, :1], number) for number, each in enumerate(boxes)])
    rois = torch.cat([images, torch.cat(list(boxes))], dim=1)  # R x 5
    if len(maps) == 1:
        return _align(maps[0], rois, strides[0], side)
    levels = level_of(rois[:, 1:], strides)
    pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], side, side)
    for number, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = torch.nonzero(levels == number).flatten()
        pooled = pooled.index_copy(0, here, _align(features, rois[here], stride, side))
    return pooled


def _align(features: Tensor, rois: Tensor, stride: int, side: int) -> Tensor:
    # In float32: bf16 has no kernel on every device, and coordinates need the digits.
    pooled: Tensor = roi_align(
        features.float(), rois, (side, side), spatial_scale=1 / stride, sampling_ratio=0, aligned=True
    )
    return pooled.to(features.dtype)


def level_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Which level each of R boxes belongs to: R, int64 (Lin et al. 2017, equation 1)."""
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    levels = torch.log2(sides / (CANONICAL * strides[0]) + 1e-6).floor()
    return levels.clamp(0, len(strides) - 1).long()


INSIDE = 0.5  # of a target's pixel: the share of it that the object covers


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """The part of its object's mask that each box shows, at the mask head's size.

    Args:
        masks: M x H x W bool.
        boxes: P x 4.
        objects: P, the mask of each box.
        side: of the mask head's output.

    Returns:
        P x side x side float, 0 or 1.
    """
    rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)
    covered = roi_align(
        masks[:, None].to(boxes.dtype), rois, (side, side), spatial_scale=1.0, sampling_ratio=0, aligned=True
    )
    return (covered[:, 0] >= INSIDE).to(boxes.dtype)


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Masks in the image: each is stretched over its box (bilinear, at pixel centres) and cut at the threshold.

    Args:
        probabilities: N x side x side.
        boxes: N x 4, in pixels of the image.
        size: height and width of the image.

    Returns:
        N x H x W bool.
    """
    height, width = size
    drawn = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for number, (box, mask) in enumerate(zip(boxes.tolist(), probabilities, strict=True)):
        x1, y1, x2, y2 = box
        left, top = max(int(x1), 0), max(int(y1), 0)
        right, bottom = min(int(x2) + 1, width), min(int(y2) + 1, height)
        if right <= left or bottom <= top or x2 <= x1 or y2 <= y1:
            continue
        x = (torch.arange(left, right, device=boxes.device) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(top, bottom, device=boxes.device) + 0.5 - y1) / (y2 - y1) * 2 - 1
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)[None].to(mask.dtype)
        stretched = functional.grid_sample(mask[None, None], grid, mode="bilinear", align_corners=False)
        drawn[number, top:bottom, left:right] = stretched[0, 0] >= threshold
    return drawn


Norm = Literal["batch", "none"]


def conv_block(
    channels_in: int, channels_out: int, kernel: int, norm: Norm, *, activation: Literal["relu", "none"] = "none"
) -> nn.Sequential:
    """Convolution of stride 1, BatchNorm where asked (then the convolution has no bias), activation where asked."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers: list[nn.Module] = [conv]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(channels_out))
    if activation == "relu":
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class Described:
    """Boxes as the classifier sees them."""

    vectors: Tensor  # R x D
    maps: Tensor | None  # R x C x h x w, the mask head continues from here


class Description(nn.Module, ABC):
    """Pooled boxes R x C x side x side -> Described.

    Attributes:
        dims: D.
        map_channels: of `Described.maps`, or None.
    """

    dims: int
    map_channels: int | None

    @abstractmethod
    def forward(self, pooled: Tensor) -> Described:
        """Describe the boxes."""


class Res5(Description):
    """The backbone's last stage, BatchNorm without activation behind it, then the mean over the map.

    The extra BatchNorm is MoCo's (He et al. 2020, appendix): features of unsupervised weights differ in scale.
    """

    def __init__(self, stage: nn.Module, *, channels: int, norm: Norm) -> None:
        super().__init__()
        self.stage = stage
        self.norm = nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()
        self.dims = self.map_channels = channels

    def forward(self, pooled: Tensor) -> Described:
        """The stage has stride 2: a pooled side of 14 gives maps of side 7."""
        maps = self.norm(self.stage(pooled))
        return Described(vectors=maps.mean((2, 3)), maps=maps)


class FourConvs(Description):
    """Four 3x3 convolutions with BatchNorm, then one linear layer ("4conv1fc")."""

    def __init__(self, *, channels_in: int, channels: int, hidden: int, side: int, norm: Norm) -> None:
        super().__init__()
        inputs = [channels_in, channels, channels, channels]
        self.convs = nn.Sequential(*[conv_block(c, channels, 3, norm, activation="relu") for c in inputs])
        self.linear = nn.Linear(channels * side * side, hidden)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.dims, self.map_channels = hidden, None

    def forward(self, pooled: Tensor) -> Described:
        """No maps: masks have their own convolutions."""
        return Described(vectors=functional.relu(self.linear(self.convs(pooled).flatten(1))), maps=None)


class BoxPredictor(nn.Module):
    """Class scores (0 is background) and one refined box per class."""

    def __init__(self, dims: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(dims, classes + 1)
        self.deltas = nn.Linear(dims, classes * 4)
        for layer, deviation in ((self.scores, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """R x D -> R x (classes + 1), R x classes x 4."""
        return self.scores(vectors).float(), self.deltas(vectors).unflatten(1, (-1, 4)).float()


class MaskHead(nn.Module):
    """Convolutions, a 2x upsampling by transposed convolution, and one mask per class (He et al. 2017)."""

    def __init__(self, settings: Masks, *, channels_in: int, classes: int, norm: Norm) -> None:
        super().__init__()
        inputs = [channels_in, *[settings.channels] * settings.convs]
        self.convs = nn.Sequential(
            *[conv_block(c, settings.channels, 3, norm, activation="relu") for c in inputs[: settings.convs]]
        )
        self.up = nn.ConvTranspose2d(inputs[-1], settings.channels, 2, stride=2)
        self.masks = nn.Conv2d(settings.channels, classes, 1)
        for layer in (self.up, self.masks):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """R x C x h x w and the class of each box (from 1) -> logits of that class's mask, R x 2h x 2w."""
        masks: Tensor = self.masks(functional.relu(self.up(self.convs(maps)))).float()
        return masks[torch.arange(labels.shape[0], device=labels.device), labels - 1]
