"""Backbone, projector and predictor out of another program's file, under our names; see docs/guides/weights.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simsiam.backbones import build_backbone
from simsiam.errors import UserError
from simsiam.weights.recognise import Encoder, Layout, find_encoder, find_timm, state_dicts
from simsiam.wording import counted

_PROJECTORS = ("projector.", "neck.", "projection_head.", "projection_mlp.", "encoder.1.")
_PREDICTORS = ("predictor.", "head.predictor.", "prediction_head.", "prediction_mlp.")
_CLASSIFIER = re.compile(r"(fc|head|head\.fc|classifier|last_linear)\.(weight|bias)|(projector|predictor)\..*")


@dataclass(kw_only=True)
class Converted:
    """The parts of a foreign file under our names."""

    format: str  # for people: "official pre-train", ...
    backbone: dict[str, Tensor]
    projector: dict[str, Tensor] | None = None
    predictor: dict[str, Tensor] | None = None
    notes: list[str] = field(default_factory=list)


def convert(raw: Any, path: Path, *, branch: str | None = None, widen: bool = False) -> Converted:
    """Recognise a foreign file's content and convert it.

    Args:
        raw: what was read.
        path: for messages.
        branch: of several networks, a piece of the name of the one to take.
        widen: repeat a first convolution of one channel for the three of RGB.

    Raises UserError where there is no ResNet in it.
    """
    encoder, notes = find_encoder(state_dicts(raw, path), path, branch)
    state = dict(encoder.part.tensors)
    container = raw if isinstance(raw, Mapping) else {}
    converted = Converted(format=format_name(state, container, encoder), backbone={}, notes=notes)
    if encoder.prefix == "backbone." and "encoder.0.conv1.weight" in state:
        _drop_aliases(state, converted)
    for name in list(state):
        if name.startswith(encoder.prefix):
            short = torchvision_name(name.removeprefix(encoder.prefix), encoder.layout)
            if re.match(r"(conv1|bn1|layer\d+)\.", short):
                converted.backbone[short] = state.pop(name)
    _three_channels(converted, path, widen=widen)
    _take_heads(converted, state, encoder)
    if left := list(state):
        shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        converted.notes.append(f"left out, not part of backbone, projector or predictor: {shown}")
    if encoder.layout == "detectron2":
        converted.notes.append("detectron2: the stride is taken to lie in the 3x3 convolutions and the input to be RGB")
    return converted


def convert_timm(raw: Any, backbone: str, path: Path, *, branch: str | None = None) -> Converted:
    """The tensors of the timm network that the user names, under the prefix that fits most of them."""
    expected = [name.removeprefix("net.") for name in build_backbone(backbone).state_dict()]
    part, prefix = find_timm(state_dicts(raw, path), expected, branch)
    inside = {name.removeprefix(prefix): t for name, t in part.tensors.items() if name.startswith(prefix)}
    known = set(expected)
    left = [name for name in inside if name not in known and _CLASSIFIER.fullmatch(name)]
    kept = {f"net.{name}": tensor for name, tensor in inside.items() if name not in left}
    notes = [f"left out, the classifier: {', '.join(left)}"] if left else []
    return Converted(format=f"timm state dict for {backbone}", backbone=kept, notes=notes)


def _three_channels(converted: Converted, path: Path, *, widen: bool) -> None:
    """The first convolution must take RGB; one of a single channel can be repeated."""
    conv1 = converted.backbone["conv1.weight"]
    channels = conv1.shape[1]
    if channels == 3:
        return
    takes = f"its first layer takes {counted(channels, 'channel')}, this program needs 3 (RGB)"
    if channels != 1:
        raise UserError(f"{path}: {takes}. Train with RGB images, or cut its first convolution to three channels.")
    if not widen:
        raise UserError(
            f"{path}: {takes}. With --channels widen each of the three gets a third of its weights, which "
            "gives the same features for grey images."
        )
    converted.backbone["conv1.weight"] = conv1.repeat(1, 3, 1, 1) / 3
    converted.notes.append("a first layer of 1 channel, widened to 3: a third of its weights for each")


def _drop_aliases(state: dict[str, Tensor], converted: Converted) -> None:
    """A Sequential of backbone and head beside the two saves them twice (MMSelfSup 0.x, some reproductions)."""
    head = "neck." if any(name.startswith("neck.") for name in state) else "projector."
    for alias, original in (("encoder.0.", "backbone."), ("encoder.1.", head)):
        for name in [n for n in state if n.startswith(alias)]:
            twin = state.get(original + name.removeprefix(alias))
            if twin is not None and torch.equal(twin, state[name]):
                del state[name]
            else:
                converted.notes.append(f"{name} differs from its twin under {original}; the latter is taken")


def torchvision_name(short: str, layout: Layout) -> str:
    """A backbone tensor's name in torchvision's ResNet."""
    short = short.replace(".shortcut.norm.", ".downsample.1.") if layout == "detectron2" else short
    if layout == "detectron2":
        short = re.sub(r"\.shortcut\.(?=weight$)", ".downsample.0.", short)
        short = re.sub(r"conv(\d)\.norm\.", r"bn\1.", short).removeprefix("stem.")
        return re.sub(r"^res(\d)\.", lambda m: f"layer{int(m[1]) - 1}.", short)
    short = short.replace(".shortcut.", ".downsample.")
    if layout == "torchvision":
        return short
    first = 4 if layout == "indexed" else 2
    index, _, rest = short.partition(".")
    if index in ("0", "1"):
        return ("conv1." if index == "0" else "bn1.") + rest
    return f"layer{int(index) - first + 1}.{rest}" if index.isdigit() else short


def _take_heads(converted: Converted, state: dict[str, Tensor], encoder: Encoder) -> None:
    base = re.sub(r"(backbone|encoder\.0|encoder|base_encoder|net)\.$", "", encoder.prefix)
    projectors = [base + p for p in _PROJECTORS]
    if encoder.prefix + "fc.0.weight" in state:  # the official code keeps the projector as the ResNet's fc
        projectors = [encoder.prefix + "fc."]
    if part := _take_first(state, projectors):
        converted.projector = convert_projector(part, converted.notes)
    if part := _take_first(state, [base + p for p in _PREDICTORS]):
        converted.predictor = convert_predictor(part, converted.notes)


def format_name(state: Mapping[str, Tensor], container: Mapping[Any, Any], encoder: Encoder) -> str:
    """Which program wrote a file, as far as its names show."""
    prefix, whole = encoder.prefix, encoder.whole
    meta = str(container.get("meta", ""))

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in state)

    if encoder.layout == "detectron2":
        return "detectron2"
    if (name := _self_supervised(whole, container, has("prototypes."))) is not None:
        return name
    if encoder.layout != "torchvision" or has("projection_head.", "projection_mlp."):
        return "lightly"
    if has("encoder.0.") and has("neck.", "encoder.1.fc0."):
        return "MMSelfSup 0.x training"
    if prefix == "backbone." and has("neck.", "head."):
        return "MMPretrain" if "mmpretrain" in meta or has("head.fc.") else "MMSelfSup 1.x"
    if prefix == "backbone." and has("bn.running_mean") and has("projector."):
        return "Barlow Twins"
    if prefix == "encoder." and has("encoder.fc.0."):
        return "official pre-train"
    if has("callbacks_modules.", "callbacks_metrics."):
        return "stable-pretraining"
    if has("classifier.", "online_classifier.") or "pytorch-lightning_version" in container:
        return "solo-learn" if has("projector.", "classifier.") else "Lightning checkpoint"
    if not prefix and has("fc."):
        return "official linear" if "best_acc1" in container else "torchvision or timm"
    if not prefix and "author" in container:
        return "MMSelfSup 0.x released"
    return f"plain state dict under {whole!r}" if whole else "plain state dict"


def _self_supervised(whole: str, container: Mapping[Any, Any], has_prototypes: bool) -> str | None:
    """The method that the names of branches and containers give away."""
    if whole.startswith("classy_state_dict."):
        return "VISSL"
    if whole.startswith(("teacher.", "student.")):
        return "DINO" if {"teacher", "student"} <= container.keys() else "DINOv2-style teacher"
    if re.match(r"(encoder_[qk]|online_net|target_net)\.0\.", whole):
        return "OpenSelfSup"
    if re.search(r"encoder_[qk]\.$", whole):
        return "MoCo"
    if re.search(r"(base|momentum)_encoder\.$", whole):
        return "MoCo v3"
    if "online" in whole:
        return "BYOL"
    return "SwAV" if has_prototypes else None


def _take_first(state: dict[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    for prefix in prefixes:
        names = [name for name in state if name.startswith(prefix)]
        if names:
            return {name.removeprefix(prefix): state.pop(name) for name in names}
    return {}


_EPS = 1e-5  # of every BatchNorm concerned, torch's default
_NESTED = re.compile(r"(?:layer)?(\d+)\.(\d+)\.(\w+)")  # layer j of block i: early lightly, 0.0.weight
_MM = re.compile(r"(fc|bn)(\d+)\.(\w+)")  # OpenMMLab: fc0, bn0, fc1
_FLAT = re.compile(r"(?:layer)?(\d+)\.(\w+)")


# Our heads are flat sequences: Linear 3k, BatchNorm 3k+1, ReLU 3k+2, without biases before a BatchNorm. A bias b there
# shifts what the BatchNorm subtracts, so it is folded into the running mean: mu - b. A last BatchNorm with scale g and
# shift s (early lightly) is folded into its running statistics too; that is exact in evaluation mode.
def convert_projector(state: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor] | None:
    """A projector of two or three layers; every Linear is followed by a BatchNorm, the last without affine.

    None where it is no such head; the reason, and what was folded, joins the notes.
    """
    renamed, said = _rename(state), list[str]()
    layers = 0
    while f"{3 * layers}.weight" in renamed:
        layers += 1
    for layer in range(layers):
        if f"{3 * layer + 1}.running_mean" not in renamed:
            notes.append(f"projector left out: its layer {layer} has no BatchNorm, so it is no SimSiam's")
            return None
        _fold_bias(renamed, layer, said, "projector")
    if layers == 0:
        notes.append("projector left out: its tensors are not a sequence of Linear and BatchNorm")
        return None
    if not _fold_affine(renamed, 3 * layers - 2, said):
        notes.append("projector left out: the scale of its last BatchNorm cannot be folded")
        return None
    notes += said
    return renamed


def convert_predictor(state: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor] | None:
    """A predictor: Linear, BatchNorm, ReLU, Linear with bias; else None with a note as above."""
    renamed = _rename(state)
    if not {"0.weight", "1.running_mean", "1.weight", "3.weight"} <= renamed.keys() or "4.running_mean" in renamed:
        notes.append("predictor left out: it is not Linear-BatchNorm-ReLU-Linear")
        return None
    _fold_bias(renamed, 0, notes, "predictor")
    renamed.setdefault("3.bias", torch.zeros(renamed["3.weight"].shape[0]))
    return renamed


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our flat names, floating tensors as float32, and num_batches_tracked where an old file lacks it."""
    names = {name: name.removeprefix("layers.") for name in state}
    nested = any(_NESTED.fullmatch(short) for short in names.values())
    first = min((int(n) for short in names.values() for n in re.findall(r"^(?:layer)?(\d+)\.", short)), default=0)
    renamed = {
        _flat_name(short, nested=nested, first=first): state[name].float()
        if state[name].is_floating_point()
        else state[name]
        for name, short in names.items()
    }
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


def _fold_affine(state: dict[str, Tensor], norm: int, notes: list[str]) -> bool:
    """(x - mu) g / sqrt(v + eps) + s, written as (x - mu') / sqrt(v' + eps); False where that cannot be."""
    gamma, beta = state.pop(f"{norm}.weight", None), state.pop(f"{norm}.bias", None)
    if gamma is None or beta is None:
        return True
    mean, variance = state[f"{norm}.running_mean"].double(), state[f"{norm}.running_var"].double()
    sign, size = gamma.double().sign(), gamma.double().abs()
    scale = (variance + _EPS).sqrt()
    folded = (variance + _EPS) / size**2 - _EPS
    if not bool((size > 0).all()) or not bool((folded >= 0).all()):
        return False
    # A negative scale turns its channel round: the Linear's row and the mean change sign with it.
    state[f"{norm}.running_mean"] = (sign * mean - beta.double() * scale / size).float()
    state[f"{norm}.running_var"] = folded.float()
    state[f"{norm - 1}.weight"] = state[f"{norm - 1}.weight"] * sign.float()[:, None]
    notes.append(
        "projector: the scale and shift of its last BatchNorm are folded into the running statistics: the same "
        "in evaluation mode; further training continues without them, as published"
    )
    return True
