"""Writing a backbone in our own two forms: safetensors with its facts inside, and a plain state dict."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from simsiam.backbones import Backbone, ResNet
from simsiam.config import Pretraining, as_dict
from simsiam.results import write_atomic, write_json
from simsiam.weights.load import BACKBONE_FORMAT, IMPORT_FILE, Loaded, Preprocess

IMPORT_FILES = ("backbone.safetensors", "backbone.pth", "heads.safetensors", IMPORT_FILE)  # of `write_import`


def metadata(backbone: Backbone, recipe: Pretraining | None, preprocess: Preprocess | None = None) -> dict[str, str]:
    """What a backbone.safetensors says of itself, so that it can be loaded by itself.

    Args:
        backbone: the network.
        recipe: of an own run; its views say how images come in.
        preprocess: how images come in where no recipe says it.
    """
    facts = {"format": BACKBONE_FORMAT, "backbone": backbone.name}
    if preprocess is not None:
        facts["preprocess"] = json.dumps(dataclasses.asdict(preprocess))
    if recipe is not None:
        facts["recipe"] = json.dumps(as_dict(recipe))
    if isinstance(backbone, ResNet):
        facts |= {"width": str(backbone.width), "stem": backbone.stem}
        usual = {"imagenet": 3, "small": 1, "small-stride2": 1}[backbone.stem]
        padding = backbone.conv1.padding[0]
        if padding != usual:
            facts["stem_padding"] = str(padding)
    return facts


def write_backbone(
    folder: Path, backbone: Backbone, *, recipe: Pretraining | None, preprocess: Preprocess | None = None
) -> Path:
    """Write backbone.safetensors and backbone.pth (torchvision's names) into a folder, each atomically.

    Returns:
        The path of the safetensors file.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    path = folder / "backbone.safetensors"
    write_tensors(path, state, facts=metadata(backbone, recipe, preprocess))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / "backbone.pth", buffer.getvalue())
    return path


def write_tensors(path: Path, state: Mapping[str, Tensor], *, facts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_atomic(path, save(own, metadata=dict(facts or {})))


def write_import(loaded: Loaded, folder: Path, *, licence: str | None = None) -> Path:
    """Write an imported model as a folder that every command takes: the backbone, the heads and where they came from.

    Args:
        loaded: from `load_backbone`.
        folder: it is made; an earlier import in it is replaced.
        licence: of the weights; None: not known.

    Returns:
        The folder.
    """
    write_backbone(folder, loaded.backbone, recipe=loaded.recipe, preprocess=loaded.preprocess)
    heads = {f"projector.{name}": tensor for name, tensor in (loaded.projector or {}).items()}
    heads |= {f"predictor.{name}": tensor for name, tensor in (loaded.predictor or {}).items()}
    if heads:
        write_tensors(folder / "heads.safetensors", heads)
    else:
        (folder / "heads.safetensors").unlink(missing_ok=True)  # an earlier import's
    write_json(
        folder / IMPORT_FILE,
        {
            "source": Path(loaded.weights.source).name,
            "format": loaded.source_format,
            "sha256": loaded.weights.sha256,
            "licence": licence,
            "projector": loaded.projector is not None,
            "predictor": loaded.predictor is not None,
            "notes": list(loaded.notes),
        },
    )
    return folder
