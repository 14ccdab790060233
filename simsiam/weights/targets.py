"""The forms that state dicts leave in: names and containers of torchvision, timm, OpenMMLab and detectron2."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from simsiam.backbones import BLOCKS, TIMM, ResNet
from simsiam.config import Stem
from simsiam.errors import UserError
from simsiam.results import write_atomic, write_json
from simsiam.weights.load import Loaded, load_backbone
from simsiam.weights.save import metadata, write_tensors

STEMS = get_args(Stem)
_MM_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What a written file gives when its target library, or this program in its place, loads it."""

    run: Callable[[Tensor], Tensor]  # B x 3 x H x W to B x features
    library: str  # with its version


def require_resnet(
    loaded: Loaded, target: str, *, stems: tuple[str, ...], widths: str, names: tuple[str, ...]
) -> ResNet:
    """The backbone as a ResNet that the target can build; raises UserError that names a target which can."""
    network = loaded.backbone
    reason = ""
    if not isinstance(network, ResNet):
        reason = f"{network.name} is no ResNet of this program"
    elif network.name not in names:
        reason = f"it has no {network.name}"
    elif network.stem not in stems:
        reason = f"it has no stem {network.stem!r}"
    elif widths == "64" and network.width != 64:
        reason = f"its networks are 64 channels wide at the stem, this one {network.width}"
    if reason or not isinstance(network, ResNet):
        raise UserError(f"--to {target}: {reason}. Use --to safetensors, onnx or pt2, which take every backbone.")
    return network


def plain_state(loaded: Loaded) -> OrderedDict[str, Tensor]:
    """The backbone's tensors under torchvision's (or the timm model's own) names."""
    prefix = "net." if loaded.backbone.name.startswith(TIMM) else ""
    state = loaded.backbone.state_dict().items()
    return OrderedDict((name.removeprefix(prefix), t.detach().cpu().contiguous().clone()) for name, t in state)


def save_torch(content: Any, path: Path) -> None:
    """torch.save, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def give_small_stem(network: nn.Module, backbone: ResNet) -> None:
    """Replace the 7x7 stem of another library's ResNet by this backbone's 3x3 stem."""
    if backbone.stem == "imagenet":
        return
    ours = backbone.conv1
    stride, padding = ours.stride[0], int(ours.padding[0])
    network.conv1 = nn.Conv2d(3, 64, 3, stride, padding, bias=False)
    network.maxpool = nn.Identity()


def write_torchvision(loaded: Loaded, out: Path) -> Path:
    """A plain state dict; `fc` is absent."""
    require_resnet(loaded, "torchvision", stems=STEMS, widths="64", names=tuple(BLOCKS))
    path = out / "backbone-torchvision.pth"
    save_torch(plain_state(loaded), path)
    return path


def read_torchvision(loaded: Loaded, path: Path) -> Reader:
    """torchvision's ResNet with the written tensors."""
    import torchvision

    backbone = loaded.backbone
    assert isinstance(backbone, ResNet)
    block, depths = BLOCKS[backbone.name]
    network: nn.Module = torchvision.models.ResNet(block, list(depths))
    network.fc = nn.Identity()
    give_small_stem(network, backbone)
    network.load_state_dict(torch.load(path, weights_only=True))
    return Reader(run=network.eval(), library=f"torchvision {version('torchvision')}")


def write_timm(loaded: Loaded, out: Path) -> Path:
    """A safetensors file for `timm.create_model(..., checkpoint_path=...)`."""
    if not loaded.backbone.name.startswith(TIMM):
        require_resnet(loaded, "timm", stems=STEMS, widths="64", names=tuple(_MM_DEPTHS))
    path = out / "backbone-timm.safetensors"
    write_tensors(path, plain_state(loaded), facts={"format": "pt"})
    return path


def read_timm(loaded: Loaded, path: Path) -> Reader:
    """timm's network with the written tensors, or our own reading where timm is absent."""
    try:
        import timm
    except ImportError:
        return read_back(loaded, path, absent="timm")
    from safetensors.torch import load_file

    network = timm.create_model(loaded.backbone.name.removeprefix(TIMM), pretrained=False, num_classes=0)
    if isinstance(loaded.backbone, ResNet):
        give_small_stem(network, loaded.backbone)
    network.load_state_dict(load_file(path))
    return Reader(run=network.eval(), library=f"timm {timm.__version__}")


def detectron2_name(name: str) -> str:
    """A torchvision ResNet tensor's name in detectron2."""
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}.", name)
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return re.sub(r"bn(\d)\.", r"conv\1.norm.", name)


def write_detectron2(loaded: Loaded, out: Path) -> Path:
    """A pickle of numpy arrays, which detectron2 matches by name."""
    require_resnet(loaded, "detectron2", stems=("imagenet",), widths="any", names=tuple(_MM_DEPTHS))
    state = plain_state(loaded)
    arrays = {detectron2_name(n): t.numpy() for n, t in state.items() if not n.endswith("num_batches_tracked")}
    path = out / "backbone-detectron2.pkl"
    content = {"model": arrays, "__author__": "simsiam", "matching_heuristics": True}
    write_atomic(path, pickle.dumps(content, protocol=4))
    return path


def write_mm(loaded: Loaded, out: Path, *, target: str, prefix: str) -> Path:
    """An OpenMMLab checkpoint, for the init_cfg of a backbone with this prefix, or without one where it is empty."""
    require_resnet(loaded, target, stems=("imagenet", "small"), widths="any", names=tuple(_MM_DEPTHS))
    path = out / f"backbone-{target}.pth"
    state = OrderedDict((prefix + name, tensor) for name, tensor in plain_state(loaded).items())
    save_torch({"meta": {"source": "simsiam"}, "state_dict": state}, path)
    return path


def read_mm(loaded: Loaded, path: Path) -> Reader:
    """mmpretrain's ResNet with the written tensors, or our own reading where it is absent."""
    try:
        models: Any = importlib.import_module("mmpretrain.models")
    except (ImportError, AssertionError):  # it asserts the version of mmcv
        return read_back(loaded, path, absent="mmpretrain")
    backbone = loaded.backbone
    assert isinstance(backbone, ResNet)
    build = models.ResNet if backbone.stem == "imagenet" else models.ResNet_CIFAR
    network = build(
        depth=_MM_DEPTHS[backbone.name], stem_channels=backbone.width, base_channels=backbone.width, style="pytorch"
    )
    state = torch.load(path, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in state.items()})
    network.eval()
    return Reader(run=lambda x: network(x)[-1].mean((2, 3)), library=f"mmpretrain {version('mmpretrain')}")


def write_safetensors(loaded: Loaded, out: Path) -> Path:
    """Our own exchange file: the tensors, and how to build the network, inside."""
    path = out / "backbone.safetensors"
    write_tensors(path, loaded.backbone.state_dict(), facts=metadata(loaded.backbone, loaded.recipe, loaded.preprocess))
    return path


def write_huggingface(loaded: Loaded, out: Path) -> Path:
    """A folder as a hub shows it; `timm` loads it where timm has the network, this program always does."""
    path = out / "model.safetensors"
    state = plain_state(loaded) if _timm_builds(loaded) else loaded.backbone.state_dict()
    write_tensors(path, state, facts=metadata(loaded.backbone, loaded.recipe, loaded.preprocess))
    facts, backbone = loaded.preprocess, loaded.backbone
    pictures = {"input_size": [3, facts.size, facts.size], "mean": list(facts.mean), "std": list(facts.std)}
    parts = {"num_classes": 0, "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc"}
    config: dict[str, Any] = {"architecture": backbone.name.removeprefix(TIMM), "num_classes": 0}
    config["num_features"] = backbone.features
    config["pretrained_cfg"] = {**pictures, "interpolation": "bilinear", "crop_pct": 0.875, **parts}
    if isinstance(backbone, ResNet):
        config["simsiam"] = {"width": backbone.width, "stem": backbone.stem}
    write_json(out / "config.json", config)
    return path


def _timm_builds(loaded: Loaded) -> bool:
    backbone = loaded.backbone
    if not isinstance(backbone, ResNet):
        return True
    return backbone.stem == "imagenet" and backbone.width == 64 and backbone.name in _MM_DEPTHS


def read_huggingface(loaded: Loaded, path: Path) -> Reader:
    """timm from the folder where it can build the network, else this program."""
    if not _timm_builds(loaded):
        return read_back(loaded, path)
    try:
        import timm
    except ImportError:
        return read_back(loaded, path, absent="timm")
    architecture = json.loads((path.parent / "config.json").read_text())["architecture"]
    network = timm.create_model(architecture, num_classes=0, checkpoint_path=str(path))
    return Reader(run=network.eval(), library=f"timm {timm.__version__}")


def read_back(loaded: Loaded, path: Path, *, absent: str | None = None) -> Reader:
    """This program's own import of what it wrote."""
    backbone = loaded.backbone
    facts: dict[str, Any] = {}
    if isinstance(backbone, ResNet):
        facts = {"width": backbone.width, "stem": backbone.stem}
    network = load_backbone(path, backbone=backbone.name, **facts).backbone
    if isinstance(backbone, ResNet) and isinstance(network, ResNet):
        network.conv1.padding = backbone.conv1.padding
    missing = f" in place of {absent}" if absent else ""
    return Reader(run=network, library=f"simsiam {version('simsiam')}{missing}")
