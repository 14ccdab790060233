"""A fully convolutional segmentor: a dilated ResNet, a head on its last map, an auxiliary one on the map before.

Sources: Long et al. 2015 (fully convolutional), Zhao et al. 2017 (the auxiliary loss), Chen et al. 2017 (dilation), Yu
et al. 2017 (the contracted first block); layers, widths and initialisation of the model zoo's configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.backbones import Backbone, ResNet
from simsiam.errors import UserError
from simsiam.evaluation.segmentation.settings import SegmentorConfig
from simsiam.wording import counted


def output_stride(backbone: ResNet) -> int:
    """Pixels of the image to one of the last map, by the strides as they stand."""
    stride = backbone.stem_stride
    for stage in backbone.stage_modules()[1:]:
        stride *= max(_stride(part) for part in stage[0].modules())
    return stride


def dilate(backbone: Backbone, stride: int) -> ResNet:
    """Change a ResNet in place so that its last map has an output stride of at most `stride`.

    Strides are kept up to there. In a stage whose stride is taken away, the convolution that had it keeps the
    dilation so far, and all later 3x3 ones have twice that. For ResNet-50 at 8 these are the published strides
    (1, 2, 1, 1) and dilations (1, 1, 2, 4) with a contracted first block. What the maps hold at every second place
    is then what the strided network holds there. Raises UserError for other networks, and for a stem that alone has
    more than the stride.
    """
    if not isinstance(backbone, ResNet):
        raise UserError(
            f"backbone {backbone.name}: segmentation and its dilated convolutions need one of the ResNets of this "
            "package (resnet10 to resnet152)."
        )
    reached, dilation = backbone.stem_stride, 1
    if reached > stride:
        raise UserError(f"--output-stride {stride}: the stem of {backbone.name} alone has {reached}.")
    for stage in backbone.stage_modules()[1:]:
        own = max(_stride(part) for part in stage[0].modules())
        if reached * own <= stride:
            reached, dilation = reached * own, _set_dilation(stage[0], dilation)
        else:
            dilation = _trade(stage[0], dilation)
    return backbone


def _trade(stage: nn.Module, dilation: int) -> int:
    """Take the strides of a stage away for dilation; returns the dilation after it."""
    after = dilation
    for part in stage.modules():
        if not isinstance(part, nn.Conv2d):
            continue
        if _stride(part) > 1:
            taken, part.stride = _stride(part), (1, 1)
            if part.kernel_size == (3, 3):
                _dilate(part, dilation)
                after = dilation * taken
        elif part.kernel_size == (3, 3):
            _dilate(part, after)
    return after


def _set_dilation(stage: nn.Module, dilation: int) -> int:
    for part in stage.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            _dilate(part, dilation)
    return dilation


def _dilate(part: nn.Conv2d, dilation: int) -> None:
    part.dilation = part.padding = (dilation, dilation)


def _stride(part: nn.Module) -> int:
    return int(part.stride[0]) if isinstance(part, nn.Conv2d) else 1


Norm = Literal["batch", "group"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Class scores (logits) of both heads, at the stride of their maps."""

    main: Tensor  # B x C x H/8 x W/8
    auxiliary: Tensor | None  # B x C x H/8 x W/8; None in evaluation mode


class Segmentor(nn.Module):
    """Backbone and heads.

    Args:
        backbone: a ResNet, which is changed in place to the design's output stride; its tensors keep their names.
        classes: how many.
    """

    def __init__(self, backbone: Backbone, classes: int, design: SegmentorConfig) -> None:
        super().__init__()
        self.backbone: ResNet = dilate(backbone, design.output_stride)
        self.design = design
        last, before = backbone.stage_channels[-1], backbone.stage_channels[-2]
        self.head = FullyConvolutionalHead(
            last, design.head_channels, classes, convolutions=2, form="joined", dropout=design.dropout, norm=design.norm
        )
        self.auxiliary_head = FullyConvolutionalHead(
            before,
            design.auxiliary_channels,
            classes,
            convolutions=1,
            form="plain",
            dropout=design.dropout,
            norm=design.norm,
        )

    def forward(self, images: Tensor) -> Scores:
        """Scores of B x 3 x H x W; in evaluation mode the auxiliary head rests."""
        maps = self.backbone.stages(images)
        auxiliary = self.auxiliary_head(maps[-2]) if self.training else None
        return Scores(main=self.head(maps[-1]), auxiliary=auxiliary)

    def train(self, mode: bool = True) -> Segmentor:
        """Training mode; with `backbone_norm` frozen, the backbone's BatchNorm stays in evaluation mode."""
        super().train(mode)
        if self.design.backbone_norm == "frozen":
            for part in self.backbone.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def scores_at(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores resized bilinearly to height and width, in fp32."""
        aligned = self.design.corners == "aligned"
        return functional.interpolate(scores.float(), size, mode="bilinear", align_corners=aligned)


class FullyConvolutionalHead(nn.Module):
    """3x3 convolutions, each with norm and ReLU, then channel dropout and a 1x1 classifier.

    `joined`: the input is put beside the result and one more 3x3 convolution goes over both.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        classes: int,
        *,
        convolutions: int,
        form: Literal["joined", "plain"],
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * convolutions
        self.convolutions = nn.Sequential(*[_convolution(wide, channels, norm) for wide in widths[:-1]])
        self.join = _convolution(channels_in + channels, channels, norm) if form == "joined" else None
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """B x channels_in x H x W -> B x classes x H x W."""
        x = self.convolutions(features)
        if self.join is not None:
            x = self.join(torch.cat([features, x], 1))
        scores: Tensor = self.classifier(self.dropout(x))
        return scores


def _convolution(channels_in: int, channels: int, norm: Norm) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    layer: nn.Module = nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(min(32, channels), channels)
    return nn.Sequential(convolution, layer, nn.ReLU(inplace=True))


def check_complete(network: Segmentor, weights: Mapping[str, Tensor]) -> int:
    """The number of the weights' tensors that are in the network bit for bit: all of them, or UserError."""
    held = network.backbone.state_dict()
    missing = sorted(set(weights) ^ set(held))
    differing = [name for name in weights if name not in missing and not torch.equal(weights[name], held[name].cpu())]
    if missing or differing:
        lost = counted(len(missing) + len(differing), "tensor")
        raise UserError(
            f"{lost} of the weights did not arrive in the segmentor's backbone: "
            f"{', '.join([*missing, *differing][:10])}."
        )
    return len(held)


def segmentation_loss(scores: Tensor, masks: Tensor, *, mean_over: Literal["all", "labelled"]) -> Tensor:
    """Cross-entropy of B x C x H x W against B x H x W, where 255 is left out of the sum.

    Args:
        mean_over: `all`: divided by the number of all pixels, ignored ones too (the published runs' way, from
            memory, not verified); `labelled`: by the labelled ones.
    """
    total = functional.cross_entropy(scores, masks, ignore_index=255, reduction="sum")
    return total / (masks.numel() if mean_over == "all" else (masks != 255).sum().clamp(min=1))
