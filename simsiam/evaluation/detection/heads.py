"""The heads on pooled boxes: what describes a box, what classifies and refines it, and what draws its mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.evaluation.detection.features import Norm, conv_block
from simsiam.evaluation.detection.settings import Masks


@dataclass(frozen=True, kw_only=True)
class Described:
    """Boxes as the classifier sees them."""

    vectors: Tensor  # R x D
    maps: Tensor | None  # R x C x h x w, where the mask head goes on from here


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
        return masks[torch.arange(len(labels), device=labels.device), labels - 1]
