"""Projector and predictor of other programs, brought to the names and the form that `simsiam.model` has.

Ours are flat sequences: Linear 3k, BatchNorm 3k+1, ReLU 3k+2, without biases before a BatchNorm. A bias b there
shifts what the BatchNorm subtracts, so it is folded into the running mean: mu - b. A last BatchNorm with scale g
and shift s (early lightly) is folded into its running statistics too; that is exact in evaluation mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_EPS = 1e-5  # of every BatchNorm concerned, torch's default
_NESTED = re.compile(r"(?:layer)?(\d+)\.(\d+)\.(\w+)")  # layer j of block i: early lightly, 0.0.weight
_MM = re.compile(r"(fc|bn)(\d+)\.(\w+)")  # OpenMMLab: fc0, bn0, fc1
_FLAT = re.compile(r"(?:layer)?(\d+)\.(\w+)")


@dataclass(kw_only=True)
class Head:
    """A converted head, or the reason why there is none."""

    state: dict[str, Tensor] | None
    notes: list[str] = field(default_factory=list)


def convert_projector(state: Mapping[str, Tensor]) -> Head:
    """A projector of two or three layers; every Linear is followed by a BatchNorm, the last without affine."""
    renamed = _rename(state)
    layers = 0
    while f"{3 * layers}.weight" in renamed:
        layers += 1
    head = Head(state=renamed)
    for layer in range(layers):
        if f"{3 * layer + 1}.running_mean" not in renamed:
            return Head(
                state=None, notes=[f"projector left out: its layer {layer} has no BatchNorm, so it is no SimSiam's"]
            )
        _fold_bias(renamed, layer, head.notes, "projector")
    if layers == 0:
        return Head(state=None, notes=["projector left out: its tensors are not a sequence of Linear and BatchNorm"])
    return _fold_affine(head, 3 * layers - 2)


def convert_predictor(state: Mapping[str, Tensor]) -> Head:
    """A predictor: Linear, BatchNorm, ReLU, Linear with bias."""
    renamed = _rename(state)
    if not {"0.weight", "1.running_mean", "1.weight", "3.weight"} <= renamed.keys() or "4.running_mean" in renamed:
        return Head(state=None, notes=["predictor left out: it is not Linear-BatchNorm-ReLU-Linear"])
    head = Head(state=renamed)
    _fold_bias(renamed, 0, head.notes, "predictor")
    renamed.setdefault("3.bias", torch.zeros(renamed["3.weight"].shape[0]))
    return head


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our flat names, floating tensors as float32, and num_batches_tracked where an old file lacks it."""
    names = {name: name.removeprefix("layers.") for name in state}
    nested = any(_NESTED.fullmatch(short) for short in names.values())
    first = min((int(n) for short in names.values() for n in re.findall(r"^(?:layer)?(\d+)\.", short)), default=0)
    renamed: dict[str, Tensor] = {}
    for name, short in names.items():
        tensor = state[name]
        renamed[_flat_name(short, nested=nested, first=first)] = (
            tensor.float() if tensor.is_floating_point() else tensor
        )
    for name in [n for n in renamed if n.endswith("running_mean")]:
        renamed.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return renamed


def _flat_name(short: str, *, nested: bool, first: int) -> str:
    if match := _MM.fullmatch(short):
        kind, layer, what = match.groups()
        return f"{3 * int(layer) + (kind == 'bn')}.{what}"
    if match := _NESTED.fullmatch(short):
        block, part, what = match.groups()
        return f"{3 * (int(block) - first) + int(part)}.{what}"
    if nested and (match := _FLAT.fullmatch(short)):
        block, what = match.groups()
        return f"{3 * (int(block) - first)}.{what}"
    return short


def _fold_bias(state: dict[str, Tensor], layer: int, notes: list[str], head: str) -> None:
    bias = state.pop(f"{3 * layer}.bias", None)
    if bias is None:
        return
    mean = f"{3 * layer + 1}.running_mean"
    state[mean] = state[mean] - bias
    notes.append(f"{head}: the bias of layer {layer} is folded into the BatchNorm behind it")


def _fold_affine(head: Head, norm: int) -> Head:
    """(x - mu) g / sqrt(v + eps) + s, written as (x - mu') / sqrt(v' + eps)."""
    state = head.state
    assert state is not None
    gamma, beta = state.pop(f"{norm}.weight", None), state.pop(f"{norm}.bias", None)
    if gamma is None or beta is None:
        return head
    mean, variance = state[f"{norm}.running_mean"].double(), state[f"{norm}.running_var"].double()
    sign, size = gamma.double().sign(), gamma.double().abs()
    scale = (variance + _EPS).sqrt()
    folded = (variance + _EPS) / size**2 - _EPS
    if not bool((size > 0).all()) or not bool((folded >= 0).all()):
        return Head(state=None, notes=["projector left out: the scale of its last BatchNorm cannot be folded"])
    # A negative scale turns its channel round: the Linear's row and the mean change sign with it.
    state[f"{norm}.running_mean"] = (sign * mean - beta.double() * scale / size).float()
    state[f"{norm}.running_var"] = folded.float()
    state[f"{norm - 1}.weight"] = state[f"{norm - 1}.weight"] * sign.float()[:, None]
    head.notes.append(
        "projector: the scale and shift of its last BatchNorm are folded into the running statistics: the same "
        "in evaluation mode; training that goes on does so without them, as published"
    )
    return head
