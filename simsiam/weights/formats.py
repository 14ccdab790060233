"""Recognising who wrote a state dict, and taking backbone, projector and predictor out of it.

The backbone comes out with torchvision's names. What is known of each format is in docs/guides/weights.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from simsiam.errors import UserError
from simsiam.weights.heads import convert_predictor, convert_projector

Layout = Literal["torchvision", "indexed", "indexed-short", "detectron2"]
_CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "network", "backbone", "encoder")
_PREFERRED = ("backbone.", "encoder.0.", "encoder.", "", "model.", "net.", "encoder_q.", "backbone.bottom_up.")
_PROJECTORS = ("projector.", "neck.", "projection_head.", "projection_mlp.", "encoder.1.")
_PREDICTORS = ("predictor.", "head.predictor.", "prediction_head.", "prediction_mlp.")
_WRAPPERS = {"module", "_orig_mod"}  # DistributedDataParallel and torch.compile
_OTHER_BRANCH = re.compile(r"momentum|teacher|target|encoder_k|ema")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Where in a state dict the backbone lies, and how its tensors are named."""

    prefix: str
    layout: Layout


@dataclass(kw_only=True)
class Converted:
    """The parts of a foreign file under our names."""

    format: str  # for people: "official pre-train", ...
    backbone: dict[str, Tensor]
    projector: dict[str, Tensor] | None = None
    predictor: dict[str, Tensor] | None = None
    notes: list[str] = field(default_factory=list)


def convert(raw: Any, path: Path) -> Converted:
    """Recognise a foreign file's content and convert it; raises UserError where there is no ResNet in it."""
    container = raw if isinstance(raw, Mapping) else {}
    state = unwrap(find_state(raw, path))
    encoder = find_encoder(state, path)
    converted = Converted(format=_format_name(state, container, encoder), backbone={})
    if encoder.prefix == "backbone." and "encoder.0.conv1.weight" in state:
        _drop_aliases(state, converted)
    for name in list(state):
        if name.startswith(encoder.prefix):
            short = torchvision_name(name.removeprefix(encoder.prefix), encoder.layout)
            if re.match(r"(conv1|bn1|layer\d+)\.", short):
                converted.backbone[short] = state.pop(name)
    _take_heads(converted, state, encoder)
    if left := list(state):
        shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        converted.notes.append(f"left out, not part of backbone, projector or predictor: {shown}")
    if encoder.layout == "detectron2":
        converted.notes.append("detectron2: the stride is taken to lie in the 3x3 convolutions and the input to be RGB")
    return converted


def find_state(raw: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside a container; numpy arrays become tensors, other values are no weights."""
    candidates = [raw[key] for key in _CONTAINERS if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping)]
    for candidate in [*candidates, raw]:
        if isinstance(candidate, Mapping):
            tensors = {str(k): _tensor(v) for k, v in candidate.items() if isinstance(v, Tensor | numpy.ndarray)}
            if tensors:
                return tensors
    found = (
        f"a dict with {', '.join(map(str, list(raw)[:8]))}" if isinstance(raw, Mapping) else f"a {type(raw).__name__}"
    )
    raise UserError(f"{path}: no state dict in it (found {found}). Save model.state_dict() and give that.")


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the components that DistributedDataParallel and torch.compile put in."""
    return {".".join(part for part in name.split(".") if part not in _WRAPPERS): t for name, t in state.items()}


def find_encoder(state: Mapping[str, Tensor], path: Path) -> Encoder:
    """The ResNet in a state dict; of aliases and momentum copies, the one that gradients trained."""
    found = [e for name, t in state.items() if t.ndim == 4 and t.shape[1] == 3 and (e := _encoder_at(state, name))]
    found = [e for e in found if not _OTHER_BRANCH.search(e.prefix)] or found
    if not found:
        raise UserError(f"{path}: no ResNet in it. {_what_else(state)}")
    for prefix in _PREFERRED:
        for encoder in found:
            if encoder.prefix == prefix:
                return encoder
    if len(found) > 1:
        names = ", ".join(repr(e.prefix) for e in found)
        raise UserError(f"{path}: several networks in it, under {names}. Save the one that is wanted by itself.")
    return found[0]


def _encoder_at(state: Mapping[str, Tensor], name: str) -> Encoder | None:
    def prefix_if(ending: str, *others: str) -> str | None:
        if not (name == ending or name.endswith("." + ending)):
            return None
        prefix = name[: len(name) - len(ending)]
        return prefix if all(prefix + other in state for other in others) else None

    if (prefix := prefix_if("stem.conv1.weight", "res2.0.conv1.weight")) is not None:
        return Encoder(prefix=prefix, layout="detectron2")
    if (prefix := prefix_if("conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean")) is not None:
        return Encoder(prefix=prefix, layout="torchvision")
    # lightly keeps a Sequential of the children: conv, bn, relu, max-pool, four stages; its own small ResNets
    # have neither relu nor pool as modules, so their stages begin at 2.
    if (prefix := prefix_if("0.weight", "1.running_mean", "4.0.conv1.weight", "7.0.conv1.weight")) is not None:
        return Encoder(prefix=prefix, layout="indexed")
    if (prefix := prefix_if("0.weight", "1.running_mean", "2.0.conv1.weight", "5.0.conv1.weight")) is not None:
        return Encoder(prefix=prefix, layout="indexed-short")
    return None


def _what_else(state: Mapping[str, Tensor]) -> str:
    names = " ".join(state)
    if "conv1.0.weight" in names:
        return "It has a deep stem (ResNet-C or -D): name it, --backbone timm:resnet50d or the like."
    if "attn" in names or "patch_embed" in names:
        return "It looks like a transformer: name it, --backbone timm:NAME."
    return f"Its tensors begin with {', '.join(list(state)[:4])}. If timm has the network: --backbone timm:NAME."


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
    base = re.sub(r"(backbone|encoder\.0|encoder)\.$", "", encoder.prefix)
    projectors = [base + p for p in _PROJECTORS]
    if encoder.prefix + "fc.0.weight" in state:  # the official code keeps the projector as the ResNet's fc
        projectors = [encoder.prefix + "fc."]
    if part := _take_first(state, projectors):
        head = convert_projector(part)
        converted.projector, converted.notes = head.state, converted.notes + head.notes
    if part := _take_first(state, [base + p for p in _PREDICTORS]):
        head = convert_predictor(part)
        converted.predictor, converted.notes = head.state, converted.notes + head.notes


def _format_name(state: Mapping[str, Tensor], container: Mapping[Any, Any], encoder: Encoder) -> str:
    prefix = encoder.prefix
    meta = str(container.get("meta", ""))

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in state)

    if encoder.layout == "detectron2":
        return "detectron2"
    if encoder.layout != "torchvision" or has("projection_head.", "projection_mlp."):
        return "lightly"
    if has("encoder.0.") and has("neck.", "encoder.1.fc0."):
        return "MMSelfSup 0.x training"
    if prefix == "backbone." and has("neck.", "head."):
        return "MMPretrain" if "mmpretrain" in meta or has("head.fc.") else "MMSelfSup 1.x"
    if prefix == "encoder." and has("encoder.fc.0."):
        return "official pre-train"
    if has("classifier.", "online_classifier.") or "pytorch-lightning_version" in container:
        return "solo-learn" if has("projector.", "classifier.") else "Lightning checkpoint"
    if not prefix and has("fc."):
        return "official linear" if "best_acc1" in container else "torchvision or timm"
    if not prefix and "author" in container:
        return "MMSelfSup 0.x released"
    return f"plain state dict under {prefix!r}" if prefix else "plain state dict"


def _take_first(state: dict[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    for prefix in prefixes:
        names = [name for name in state if name.startswith(prefix)]
        if names:
            return {name.removeprefix(prefix): state.pop(name) for name in names}
    return {}


def _tensor(value: Tensor | numpy.ndarray[Any, Any]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(numpy.array(value))
