"""A ResNet at a finer output stride: late strides become dilations, and every tensor keeps its name and shape.

Source: Chen et al. 2017, "Rethinking atrous convolution"; Yu et al. 2017 for contracting the first block.
"""

from __future__ import annotations

from torch import nn

from simsiam.backbones import Backbone, ResNet
from simsiam.errors import UserError


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
