"""The feature maps that a detector looks at, made from a pre-trained ResNet: C4, or a feature pyramid."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from simsiam.backbones import Backbone, ResNet
from simsiam.errors import UserError

Norm = Literal["batch", "none"]


class Features(nn.Module, ABC):
    """Images B x 3 x H x W -> maps, finest first.

    Attributes:
        trunk: the backbone, without the last stage where that is part of the head.
        strides: of each map, in pixels.
        channels: of every map.
        last_stage: the stage that is not part of it but of the head, or None.
    """

    trunk: ResNet
    strides: tuple[int, ...]
    channels: int
    last_stage: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, each B x channels x H / stride x W / stride."""

    @abstractmethod
    def backbone_tensors(self) -> dict[str, Tensor]:
        """Every tensor that came from the backbone, by the backbone's own name, wherever it lives now."""


class C4(Features):
    """The last stage but one as the only map; the last stage goes to the head (R50-C4 of the published tables)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk = _copy(backbone)
        self._last_name = f"layer{len(self.trunk.stage_channels) - 1}"
        last = self.trunk.get_submodule(self._last_name)
        setattr(self.trunk, self._last_name, nn.Identity())
        self.strides = (residual_strides(self.trunk)[-2],)
        self.channels = self.trunk.stage_channels[-2]
        # Kept from being registered here: the head owns it, and a tensor shall have one name.
        object.__setattr__(self, "last_stage", last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """One map."""
        return [self.trunk.stages(images)[-2]]

    def backbone_tensors(self) -> dict[str, Tensor]:
        """The trunk's, and the last stage's under its old name."""
        assert self.last_stage is not None
        last = self.last_stage.state_dict()
        return {**self.trunk.state_dict(), **{f"{self._last_name}.{name}": tensor for name, tensor in last.items()}}


class Pyramid(Features):
    """A feature pyramid over all residual stages, and a level above by subsampling (Lin et al. 2017).

    With `norm` BatchNorm follows every convolution, and no activation.
    """

    def __init__(self, backbone: Backbone, *, channels: int, norm: Norm) -> None:
        super().__init__()
        self.trunk = _copy(backbone)
        self.last_stage = None
        self.channels = channels
        strides = residual_strides(self.trunk)
        self.strides = (*strides, strides[-1] * 2)
        self.lateral = nn.ModuleList(conv_block(c, channels, 1, norm) for c in self.trunk.stage_channels[1:])
        self.output = nn.ModuleList(conv_block(channels, channels, 3, norm) for _ in strides)
        for layer in [*self.lateral.modules(), *self.output.modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """A map for each residual stage and one more."""
        stages = self.trunk.stages(images)[1:]
        maps = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            above = functional.interpolate(maps[level], size=maps[level - 1].shape[-2:], mode="nearest")
            maps[level - 1] = maps[level - 1] + above
        maps = [output(each) for output, each in zip(self.output, maps, strict=True)]
        return [*maps, functional.max_pool2d(maps[-1], 1, stride=2)]

    def backbone_tensors(self) -> dict[str, Tensor]:
        """The trunk's."""
        return dict(self.trunk.state_dict())


def residual_strides(backbone: ResNet) -> tuple[int, ...]:
    """The stride of each residual stage in pixels; it doubles from stage to stage."""
    return tuple(backbone.stem_stride * 2**stage for stage in range(len(backbone.stage_channels) - 1))


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


def _copy(backbone: Backbone) -> ResNet:
    """A copy to be trained; raises UserError for what is no ResNet of ours."""
    if not isinstance(backbone, ResNet):
        raise UserError(
            f"{backbone.name}: detection needs a ResNet whose stages can be told apart "
            "(resnet10 to resnet152); a timm model is not one."
        )
    network = copy.deepcopy(backbone)
    network.requires_grad_(True)
    return network
