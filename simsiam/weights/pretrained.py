"""From what a person names to what a protocol evaluates: weights of any kind, or an untrained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simsiam.results import WeightsId

if TYPE_CHECKING:
    from torch import nn

    from simsiam.backbones import Backbone
    from simsiam.weights.load import Loaded

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """What is evaluated: a backbone, how its images were normalised, where its weights come from, and the seed."""

    backbone: Backbone
    size: int  # pixels; the side of the images that it was trained on
    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]
    weights: WeightsId
    seed: int  # of everything random in a protocol


def subject_of(
    weights: str | Path | nn.Module | PretrainedBackbone, *, seed: int, size: int | None, backbone: str | None
) -> PretrainedBackbone:
    """What is evaluated, of whatever names or holds it: a source as `open_subject` takes it, a module, or itself."""
    if isinstance(weights, PretrainedBackbone):
        return weights
    if isinstance(weights, str | Path):
        return open_subject(str(weights), seed=seed, backbone=backbone)
    return _of_module(weights, seed=seed, size=size)


def _of_module(module: nn.Module, *, seed: int, size: int | None) -> PretrainedBackbone:
    """A copy of a module as what is evaluated: a backbone, or a whole SimSiam network, of which the backbone is taken.

    Args:
        module: as `backbones.as_backbone` takes it.
        seed: of everything random in the protocols.
        size: pixels of the images that it was trained on; None: 224. They are normalised by ImageNet's mean; for
            others make the `PretrainedBackbone` yourself.

    Raises UserError where it gives no pooled features.
    """
    import copy

    from simsiam.backbones import Backbone, as_backbone
    from simsiam.config import IMAGENET_MEAN, IMAGENET_STD
    from simsiam.weights.load import fingerprint

    inner = getattr(module, "backbone", None)
    network = as_backbone(copy.deepcopy(inner if isinstance(inner, Backbone) else module), size=size or 224)
    return PretrainedBackbone(
        backbone=network.eval(),
        size=size or 224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights=WeightsId(source=f"module {network.name}", sha256=fingerprint(network.state_dict())),
        seed=seed,
    )


def open_subject(source: str, *, seed: int, backbone: str | None = None, size: int | None = None) -> PretrainedBackbone:
    """The backbone that a source names, with the pre-processing that belongs to it.

    Args:
        source: whatever `load_backbone` takes; `random` for an untrained ResNet-50 at 224 pixels, `random:resnet18`
            for another network, `random:SOURCE` for the untrained network of a run or file, with its pre-processing.
        seed: of an untrained network's weights, and of everything random in the protocols.
        backbone: the network, if it cannot be inferred from the tensors (`timm:NAME` needs it).
        size: pixels of the images; None: the side that the weights were trained at.

    Raises UserError as `load_backbone` does: weights load in full or not at all.
    """
    import sys
    from dataclasses import replace

    loaded = load_any(source, seed=seed, backbone=backbone)
    for note in loaded.notes:
        if note.startswith("taken: "):  # of several networks in the file; the rest is what `simsiam import` says
            print(f"{source}: {note}", file=sys.stderr)
    if size is not None:
        loaded = replace(loaded, preprocess=replace(loaded.preprocess, size=size))
    return PretrainedBackbone(
        backbone=loaded.backbone,
        size=loaded.preprocess.size,
        mean=loaded.preprocess.mean,
        std=loaded.preprocess.std,
        weights=loaded.weights,
        seed=seed,
    )


def load_any(source: str, *, seed: int, backbone: str | None = None) -> Loaded:
    """`load_backbone`, and untrained networks by the names that `open_subject` explains."""
    from simsiam.backbones import check_known
    from simsiam.weights.load import load_backbone

    kind, _, rest = source.partition(":")
    if kind != RANDOM:
        return load_backbone(source, backbone=backbone)
    if backbone is not None:
        check_known(backbone)
    return untrained(rest or backbone or "resnet50", seed=seed, backbone=backbone)


def untrained(like: str, *, seed: int, backbone: str | None = None) -> Loaded:
    """A freshly initialised network: by backbone name at 224 pixels, or the same one as a run's or file's.

    Raises UserError if it is neither; `backbone` names the network of a file that does not tell.
    """
    import torch

    from simsiam.backbones import BLOCKS, TIMM, ResNet, build_backbone
    from simsiam.config import IMAGENET_MEAN, IMAGENET_STD
    from simsiam.errors import UserError, did_you_mean
    from simsiam.weights.load import Loaded, Preprocess, fingerprint, load_backbone, locate

    preprocess = Preprocess(size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, origin="assumed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if like in BLOCKS or like.startswith(TIMM):
            network = build_backbone(like)
        elif not locate(like).exists():
            raise UserError(
                f"{RANDOM}:{like}: {like} is neither a network nor weights that are here."
                f"{did_you_mean(like, BLOCKS)} Networks: {', '.join(BLOCKS)} or timm:NAME."
            )
        else:
            model = load_backbone(like, backbone=backbone)
            preprocess = model.preprocess
            if isinstance(model.backbone, ResNet):
                network = build_backbone(model.backbone.name, width=model.backbone.width, stem=model.backbone.stem)
            else:
                network = build_backbone(model.backbone.name)
    network.eval()
    return Loaded(
        backbone=network,
        recipe=None,
        weights=WeightsId(source=f"{RANDOM}:{like}", sha256=fingerprint(network.state_dict())),
        projector=None,
        predictor=None,
        source_format="untrained",
        preprocess=preprocess,
    )
