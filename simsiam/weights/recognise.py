"""Where the network lies in a file that another program wrote: which state dict, which branch, under which prefix."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from simsiam.errors import UserError
from simsiam.weights.tensors import Array
from simsiam.weights.unpickle import Inert

Layout = Literal["torchvision", "indexed", "indexed-short", "detectron2"]
_CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "network", "backbone", "encoder", "module")
_PREFERRED = ("backbone.", "encoder.0.", "encoder.", "", "model.", "net.", "encoder_q.", "backbone.bottom_up.")
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_NO_WEIGHTS = re.compile(
    r"optim|schedul|scaler|sampler|rng|message_hub|callbacks$|loops$|args$|config|hyper_parameters"
)
_DEEPEST = 12  # of containers in containers

# Of several networks in a file, the one with the smallest rank is taken.
_BRANCHES: tuple[tuple[re.Pattern[str], int, str], ...] = (
    (re.compile(r"ema_state_dict"), 5, "OpenMMLab's copy beside the average, which is in state_dict"),
    (re.compile(r"teacher"), 0, "the teacher, the network that DINO and its like evaluate"),
    (re.compile(r"(^|[._])ema([._]|$)"), 1, "the running average of the weights, the copy that timm loads"),
    (re.compile(r"encoder_q|base_encoder"), 2, "the encoder that gradients train, the one that MoCo evaluates"),
    (re.compile(r"online"), 2, "the online network, the one that BYOL evaluates"),
    (re.compile(r"student"), 4, "the student"),
    (re.compile(r"encoder_k|momentum|target|(^|[._])key"), 5, "the momentum copy"),
)
_USUAL = 3  # the rank of a network without such a name: the one that gradients train


@dataclass(frozen=True, kw_only=True)
class Part:
    """One state dict of a file."""

    place: str  # the keys that lead to it, each with a dot behind; a lone `state_dict` and its like are left away
    tensors: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A ResNet in a state dict, and how its tensors are named."""

    part: Part
    prefix: str
    layout: Layout

    @property
    def whole(self) -> str:
        """The names that lead to it."""
        return self.part.place + self.prefix

    def __str__(self) -> str:
        return self.whole or "the one without a prefix"


def state_dicts(raw: Any, path: Path) -> list[Part]:
    """Every state dict in a file's content, without the optimizer's; raises UserError where there is none."""
    parts = list(_walk(raw))
    if parts:
        return parts
    if isinstance(raw, Mapping):
        if raw.keys() >= {"state", "param_groups"} or any("optim" in str(key) for key in raw):
            raise UserError(f"{path}: an optimizer's state without a network. Give the file that holds the weights.")
        found = f"a dict with {', '.join(map(str, list(raw)[:8]))}" if raw else "an empty dict"
    else:
        kind = "nothing" if raw is None else f"a {type(raw).__name__}"
        found = f"an object of {raw.origin}" if isinstance(raw, Inert) and raw.origin else kind
    raise UserError(f"{path}: no state dict in it (found {found}). Save model.state_dict() and give that.")


def _walk(raw: Any) -> Iterator[Part]:
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), raw)]
    while waiting:
        keys, node = waiting.pop(0)
        if id(node) in seen or len(keys) > _DEEPEST:
            continue
        seen.add(id(node))
        if isinstance(node, Inert):
            if module := _module_tensors(node):
                yield Part(place=_place(keys), tensors=unwrap(module))
                continue
            node = node.entries or node.state
        if isinstance(node, list | tuple):
            node = {str(place): each for place, each in enumerate(node) if isinstance(each, Mapping | Inert)}
        if not isinstance(node, Mapping) or node.keys() >= {"state", "param_groups"}:  # an optimizer's
            continue
        found = {str(key): tensor for key, value in node.items() if (tensor := _tensor(value)) is not None}
        if found:
            yield Part(place=_place(keys), tensors=unwrap(found))
        waiting += [
            ((*keys, str(key)), value)
            for key, value in node.items()
            if isinstance(value, Mapping | Inert | list | tuple) and not _NO_WEIGHTS.search(str(key))
        ]


def _place(keys: Sequence[str]) -> str:
    left = [key for key in keys if key not in _CONTAINERS]
    return "".join(f"{key}." for key in left)


def _module_tensors(module: Inert, depth: int = 0) -> dict[str, Tensor]:
    """The state dict of a whole module that was pickled; nothing of its class is needed."""
    state = module.state
    if not isinstance(state, Mapping) or "_parameters" not in state or depth > 50:
        return {}
    found: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        values = state.get(kind) or {}
        found |= {str(name): tensor for name, value in values.items() if (tensor := _tensor(value)) is not None}
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Inert):
            found |= {f"{name}.{inner}": tensor for inner, tensor in _module_tensors(child, depth + 1).items()}
    return found


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Array):
        value = value.array()
    if isinstance(value, numpy.ndarray):
        return torch.from_numpy(value)
    if not isinstance(value, Tensor):
        return None
    return value.float() if value.is_floating_point() and value.itemsize == 1 else value  # torch computes little in fp8


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the components that DistributedDataParallel, FSDP and torch.compile put in."""
    return {".".join(part for part in name.split(".") if part not in _WRAPPERS): t for name, t in state.items()}


def find_encoder(parts: Sequence[Part], path: Path, branch: str | None = None) -> tuple[Encoder, list[str]]:
    """The ResNet to take, and what is said of the choice.

    Args:
        parts: of a file.
        path: for messages.
        branch: a piece of the name that the user chose; None: as the table of branches has it.

    Raises UserError where there is no ResNet, or several that nothing tells apart.
    """
    found = [
        encoder
        for part in parts
        for name, tensor in part.tensors.items()
        if tensor.ndim == 4 and (encoder := _encoder_at(part, name)) is not None
    ]
    if not found:
        raise UserError(f"{path}: no ResNet in it. {what_else(parts)}")
    names = ", ".join(repr(encoder.whole) for encoder in found)
    if branch is not None:
        chosen = [encoder for encoder in found if branch in encoder.whole]
        if not chosen:
            raise UserError(f"{path}: --branch {branch}: no network of that name. In it: {names}.")
        return min(chosen, key=_order), []
    first = min(found, key=_order)
    rivals = [e for e in found if _rank(e)[0] == _rank(first)[0] and not _same(e, first)]
    if rivals and _order(first)[1] == len(_PREFERRED):
        raise UserError(f"{path}: several networks in it, under {names}. Name one: --branch NAME.")
    others = [e for e in found if _rank(e)[0] != _rank(first)[0] and not _same(e, first)]
    rank, why = _rank(first)
    notes = []
    if others or (rank == max((rank for _, rank, _ in _BRANCHES)) and why):
        also = (
            f"; also in it: {', '.join(dict.fromkeys(map(str, others)))} (--branch NAME takes another)"
            if others
            else ""
        )
        notes.append(f"taken: {first} ({why or 'the network that gradients train'}){also}")
    return first, notes


def _rank(encoder: Encoder) -> tuple[int, str]:
    return next(((rank, why) for pattern, rank, why in _BRANCHES if pattern.search(encoder.whole)), (_USUAL, ""))


def _order(encoder: Encoder) -> tuple[int, int, int]:
    usual = _PREFERRED.index(encoder.prefix) if encoder.prefix in _PREFERRED else len(_PREFERRED)
    return _rank(encoder)[0], usual, len(encoder.whole)


def _same(one: Encoder, other: Encoder) -> bool:
    """Whether one is another name of the other."""
    stem = {"torchvision": "conv1.weight", "detectron2": "stem.conv1.weight"}
    a, b = (e.part.tensors[e.prefix + stem.get(e.layout, "0.weight")] for e in (one, other))
    return torch.equal(a, b)


def _encoder_at(part: Part, name: str) -> Encoder | None:
    state = part.tensors

    def prefix_if(ending: str, *others: str) -> str | None:
        if not (name == ending or name.endswith("." + ending)):
            return None
        prefix = name[: len(name) - len(ending)]
        return prefix if all(prefix + other in state for other in others) else None

    if (prefix := prefix_if("stem.conv1.weight", "res2.0.conv1.weight")) is not None:
        return Encoder(part=part, prefix=prefix, layout="detectron2")
    if (prefix := prefix_if("conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean")) is not None:
        return Encoder(part=part, prefix=prefix, layout="torchvision")
    # lightly keeps a Sequential of the children: conv, bn, relu, max-pool, four stages; its own small ResNets
    # have neither relu nor pool as modules, so their stages begin at 2.
    if (prefix := prefix_if("0.weight", "1.running_mean", "4.0.conv1.weight", "7.0.conv1.weight")) is not None:
        return Encoder(part=part, prefix=prefix, layout="indexed")
    if (prefix := prefix_if("0.weight", "1.running_mean", "2.0.conv1.weight", "5.0.conv1.weight")) is not None:
        return Encoder(part=part, prefix=prefix, layout="indexed-short")
    return None


def find_timm(parts: Sequence[Part], expected: Collection[str], branch: str | None = None) -> tuple[Part, str]:
    """The state dict and the prefix that hold most of a timm network's tensors; of equals, the branch as above."""
    ends = [name for name in expected if name.endswith(("weight", "cls_token"))][:1] or list(expected)[:1]
    found = [(part, "") for part in parts]
    for part in parts:
        found += [(part, name[: -len(end)]) for end in ends for name in part.tensors if name.endswith("." + end)]
    if branch is not None:
        found = [each for each in found if branch in each[0].place + each[1]] or found

    def fit(each: tuple[Part, str]) -> tuple[int, int, int]:
        part, prefix = each
        encoder = Encoder(part=part, prefix=prefix, layout="torchvision")
        return sum(prefix + name in part.tensors for name in expected), -_rank(encoder)[0], -len(prefix)

    return max(found, key=fit)


# What names of tensors tell of other networks; the first that fits counts.
_OTHERS: tuple[tuple[str, str], ...] = (
    (r"conv1\.0\.weight", "It has a deep stem (ResNet-C or -D): name it, --backbone timm:resnet50d or the like."),
    (r"lora_[AB]|lora_down", "It is a LoRA adapter, which changes another network's weights."),
    (r"(rpn|roi_heads|bbox_head|box_head|class_embed|bbox_embed|cv3\.\d|anchor)", "It is a detector without a ResNet."),
    (r"(decode_head|seg_head|mask_decoder|pixel_decoder)", "It is a segmentation network without a ResNet."),
    (r"(embed_tokens|lm_head|word_embeddings|wte\.|token_embedding)", "It holds a language model or a text encoder."),
    (
        r"relative_position_bias_table",
        "It is a Swin transformer: name it, --backbone timm:swin_tiny_patch4_window7_224.",
    ),
    (r"(patch_embed|cls_token|attn\.qkv|attention\.(self|attention)\.query|attn)", "It is a vision transformer"),
    (r"(dwconv|downsample_layers|conv_dw\.weight.*gamma)", "It is a ConvNeXt: name it, --backbone timm:convnext_tiny."),
    (
        r"(conv_dw|conv_pw|depthwise|_expand_conv|features\.\d+\.conv\.\d\.0\.weight)",
        "It is an EfficientNet or MobileNet",
    ),
    (r"denselayer", "It is a DenseNet: name it, --backbone timm:densenet121 or the like."),
    (r"(time_embed|down_blocks|input_blocks)", "It is a diffusion model's network."),
    (r"(decoder|up\d)\.", "It is an encoder and decoder (a U-Net or the like)"),
    (r"features\.0\.weight", "It is a VGG or AlexNet: name it, --backbone timm:vgg16 or the like."),
    (r"(quant|zero_point|_packed_params)", "Its weights are quantised; give those before quantisation."),
)


def what_else(parts: Sequence[Part]) -> str:
    """What a file without a ResNet holds, as far as its names show."""
    names = [part.place + name for part in parts for name in part.tensors]
    text = "\n".join(names)
    for pattern, words in _OTHERS:
        if re.search(pattern, text):
            return words if words.endswith(".") else f"{words}: name it where timm has it, --backbone timm:NAME."
    shown = ", ".join(names[:4])
    return f"Its tensors begin with {shown}. If timm has the network: --backbone timm:NAME."
