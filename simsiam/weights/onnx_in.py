"""The weights in an ONNX graph of a ResNet under torchvision's names, also where BatchNorms were folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from simsiam.backbones import BLOCKS, build_backbone
from simsiam.errors import UserError, install_extra


def read_onnx_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a graph, and the stem where the graph shows it; raises UserError where it is no ResNet's."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError(f"{path}: an ONNX model; reading it needs {install_extra('onnx')}") from error
    graph = onnx.load(str(path), load_external_data=False).graph
    if any(part.data_location == onnx.TensorProto.EXTERNAL for part in graph.initializer):
        raise UserError(f"{path}: an ONNX model whose weights lie in another file. Export it as one file.")
    numbers = {part.name: torch.from_numpy(numpy.array(numpy_helper.to_array(part))) for part in graph.initializer}
    if any(name.endswith("bn1.running_mean") for name in numbers):
        return numbers, {}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    folded = [(numbers.get(node.input[1]), numbers.get((*node.input, "", "")[2])) for node in convolutions]
    weights = [weight for weight, _ in folded if weight is not None]
    name = _network(weights) if len(weights) == len(folded) else None
    if name is None:
        kinds = ", ".join(sorted({node.op_type for node in graph.node})[:12])
        raise UserError(f"{path}: an ONNX model that is none of {', '.join(BLOCKS)} (its operations: {kinds}).")
    return _unfolded(name, folded), _stem(convolutions[0])


def _stem(convolution: Any) -> dict[str, str]:
    strides = next((list(one.ints) for one in convolution.attribute if one.name == "strides"), [1, 1])
    kernel = next((list(one.ints) for one in convolution.attribute if one.name == "kernel_shape"), [7, 7])
    return {"stem": "small-stride2" if strides[0] == 2 else "small"} if kernel[0] == 3 else {}


def _order(name: str, width: int) -> list[tuple[str, str, nn.Conv2d]]:
    """Convolutions with the BatchNorm behind each, in the order of a forward pass: a block's shortcut comes last."""
    with torch.device("meta"):
        network = build_backbone(name, width=width)
    found = [(conv, part) for conv, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    return [(conv, conv.replace("downsample.0", "downsample.1").replace("conv", "bn"), part) for conv, part in found]


def _network(weights: list[Tensor]) -> str | None:
    """The ResNet whose convolutions have these shapes in this order."""
    if not weights or weights[0].ndim != 4 or len(weights[0]) > 4096:
        return None
    for name in BLOCKS:
        expected = [tuple(part.weight.shape) for _, _, part in _order(name, len(weights[0]))]
        shapes = [tuple(weight.shape) for weight in weights]
        if shapes[1:] == expected[1:] and shapes[0][:2] == expected[0][:2]:
            return name
    return None


def _unfolded(name: str, folded: list[tuple[Tensor | None, Tensor | None]]) -> dict[str, Tensor]:
    """A folded bias as that of a BatchNorm which does nothing else: exact in evaluation mode."""
    state: dict[str, Tensor] = {}
    first = folded[0][0]
    assert first is not None
    for (conv, norm, part), (weight, bias) in zip(_order(name, len(first)), folded, strict=True):
        assert weight is not None
        channels = part.out_channels
        state[f"{conv}.weight"] = weight
        state[f"{norm}.weight"] = torch.ones(channels)
        state[f"{norm}.bias"] = torch.zeros(channels) if bias is None else bias
        state[f"{norm}.running_mean"] = torch.zeros(channels)
        state[f"{norm}.running_var"] = torch.full((channels,), 1 - 1e-5)  # with torch's epsilon: 1
    return state
