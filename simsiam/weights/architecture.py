"""Which network a state dict belongs to, inferred from its tensors, and loading it without a gap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck

from simsiam.backbones import BLOCKS, TIMM, Backbone, ResNet, build_backbone
from simsiam.config import Stem
from simsiam.errors import UserError
from simsiam.wording import plural

_ROWS = 20  # of a list of disagreements; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What `build_backbone` needs, and the stem's padding where another program pads otherwise."""

    backbone: str
    width: int
    stem: Stem
    stem_padding: int | None = None  # None: as the stem has it


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Parts of an architecture that the user or the file itself states; None: to be inferred."""

    backbone: str | None = None
    width: int | None = None
    stem: Stem | None = None
    stem_padding: int | None = None

    def over(self, other: Choice) -> Choice:
        """This choice, and the other's where this one is silent."""
        return Choice(
            backbone=self.backbone or other.backbone,
            width=self.width or other.width,
            stem=self.stem or other.stem,
            stem_padding=other.stem_padding if self.stem_padding is None else self.stem_padding,
        )


def infer(state: Mapping[str, Tensor], choice: Choice, path: Path) -> Architecture:
    """The ResNet whose tensors these are; what `choice` states is taken as it stands.

    The stride of a 3x3 stem leaves no trace in the tensors: stride 1 without max-pool (the CIFAR stem) is taken.
    Raises UserError where the tensors belong to none of the ResNets here.
    """
    name = choice.backbone or _name(state, path)
    if choice.backbone is None:
        _refuse_variants(state, path)
    conv1 = state.get("conv1.weight")
    if conv1 is None or name.startswith(TIMM):
        return Architecture(backbone=name, width=choice.width or 64, stem=choice.stem or "imagenet")
    stems: dict[int, Stem] = {7: "imagenet", 3: "small"}
    kernel = int(conv1.shape[-1])
    if choice.stem is None and kernel not in stems:
        raise UserError(f"{path}: its first convolution is {kernel}x{kernel}; only 7x7 and 3x3 stems are known here.")
    return Architecture(
        backbone=name,
        width=choice.width or int(conv1.shape[0]),
        stem=choice.stem or stems[kernel],
        stem_padding=choice.stem_padding,
    )


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """The ResNet here that has the blocks of these tensors, if there is one."""
    block, depths = _blocks(state)
    return next((name for name, (kind, blocks) in BLOCKS.items() if kind is block and blocks == depths), None)


def _blocks(state: Mapping[str, Tensor]) -> tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]:
    blocks = [re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", name) for name in state]
    stages = [int(match[1]) for match in blocks if match]
    depths = tuple(stages.count(stage) for stage in range(1, max([0, *stages]) + 1))
    return Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock, depths


def _refuse_variants(state: Mapping[str, Tensor], path: Path) -> None:
    """ResNeXt, Wide ResNet and squeeze-excitation have a ResNet's names, and are other networks."""
    variant = ""
    if any(".se." in name or ".se_module." in name for name in state):
        variant = "a ResNet with squeeze-excitation: --backbone timm:seresnet50, or timm:legacy_seresnet50"
    second, conv1 = state.get("layer1.0.conv2.weight"), state.get("conv1.weight")
    if second is not None and conv1 is not None and "layer1.0.conv3.weight" in state and second.ndim == conv1.ndim == 4:
        planes, inputs = second.shape[:2]
        if inputs and planes > inputs:
            variant = f"a ResNeXt ({planes // inputs} groups): --backbone timm:resnext50_32x4d or the like"
        elif planes == 2 * conv1.shape[0]:
            variant = "a Wide ResNet: --backbone timm:wide_resnet50_2 or the like"
    if variant:
        raise UserError(f"{path}: {variant}. It is not one of {', '.join(BLOCKS)}.")


def _name(state: Mapping[str, Tensor], path: Path) -> str:
    if (name := recognised(state)) is not None:
        return name
    block, depths = _blocks(state)
    raise UserError(
        f"{path}: a ResNet of {block.__name__} blocks with depths {depths}, which is none of {', '.join(BLOCKS)}. "
        "If timm has it, name it: --backbone timm:NAME."
    )


def fill(architecture: Architecture, state: Mapping[str, Tensor], path: Path, origin: str) -> Backbone:
    """The network with exactly these tensors, in evaluation mode.

    It is built without storage, so no tensor can keep a random start. Raises UserError with both sides' names and
    shapes where the tensors do not fit one to one.
    """
    if architecture.backbone.startswith(TIMM):
        network = build_backbone(architecture.backbone)  # timm has buffers that are not in its state dicts
    else:
        with torch.device("meta"):
            network = build_backbone(architecture.backbone, width=architecture.width, stem=architecture.stem)
    expected = network.state_dict()
    complete = {name: _plain(tensor) for name, tensor in state.items()}
    for name in expected.keys() - complete.keys():
        if name.endswith("num_batches_tracked"):  # absent from files older than torch 0.4.1 and from detectron2's
            complete[name] = torch.tensor(0)
    _refuse_mismatch(expected, complete, architecture, path, origin)
    for name, tensor in complete.items():
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{path}: tensor {name} holds whole numbers ({kind}), as quantised weights do; their scales are not in "
                "a state dict. Give the weights before quantisation."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path}: these weights diverged: tensor {name} holds NaN or infinity. Take an earlier checkpoint of "
                "the training, or train again with a lower learning rate."
            )
    network.load_state_dict(complete, assign=True)
    if architecture.stem_padding is not None and isinstance(network, ResNet):
        network.conv1.padding = (architecture.stem_padding, architecture.stem_padding)
    return network.eval()


@torch.no_grad()
def check_forward(network: Backbone, path: Path) -> list[str]:
    """What a pass over two noise images shows: UserError where it overflows, a note where they look alike."""
    if isinstance(network, ResNet):
        size = 64 if network.stem == "imagenet" else 32
    else:  # transformers take one size alone
        size = int(getattr(network.get_submodule("net"), "default_cfg", {}).get("input_size", (3, 224, 224))[-1])
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = network(images)
    if not bool(torch.isfinite(features).all()):
        raise UserError(f"{path}: these weights diverged: the features of an image are NaN or infinite.")
    if bool((features[0] - features[1]).abs().max() <= 1e-6 * features.abs().max()):
        return ["two different images have the same features: the network has collapsed, or was never trained"]
    return []


def _plain(tensor: Tensor) -> Tensor:
    """A copy of its own, in float32 where it is a floating number."""
    copied = tensor.detach().clone(memory_format=torch.contiguous_format)
    return copied.float() if copied.is_floating_point() else copied


def _refuse_mismatch(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], architecture: Architecture, path: Path, origin: str
) -> None:
    rows = []
    for name in sorted(expected.keys() | found.keys()):
        here, there = _shape(found.get(name), "missing"), _shape(expected.get(name), "unexpected")
        if here != there:
            rows.append((name, here, there))
    if not rows:
        return
    name_width = max(len(name) for name, _, _ in rows[:_ROWS])
    lines = [f"  {'tensor':{name_width}}  {'in the file':16}  in the network"]
    lines += [f"  {name:{name_width}}  {here:16}  {there}" for name, here, there in rows[:_ROWS]]
    if len(rows) > _ROWS:
        lines.append(f"  ... and {len(rows) - _ROWS} more")
    target = f"{architecture.backbone} (width {architecture.width}, stem {architecture.stem})"
    raise UserError(
        f"{path}: recognised as {origin}, but {len(rows)} of {len(expected)} tensors "
        f"{plural(len(rows), 'does', 'do')} not fit {target}:\n"
        + "\n".join(lines)
        + "\nNothing was loaded. Name the right network (--backbone, --width, --stem), or give the file that "
        "holds the whole backbone."
    )


def _shape(tensor: Tensor | None, absent: str) -> str:
    if tensor is None:
        return absent
    return "x".join(str(n) for n in tensor.shape) or "scalar"
