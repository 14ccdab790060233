"""Small networks as other programs build them, with their own forward pass, to save and to compare against."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

DIM, HIDDEN = 24, 10  # of the heads


@dataclass(frozen=True, kw_only=True)
class Trio:
    """Backbone (pooled features out), projector and predictor in evaluation mode."""

    backbone: nn.Module
    projector: nn.Module
    predictor: nn.Module

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            features = self.backbone(images)
            z = self.projector(features)
            return features, z, self.predictor(z)


def shake(module: nn.Module) -> nn.Module:
    """Weights and BatchNorm statistics away from their starting values, so that a lost tensor shows."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            part.num_batches_tracked.fill_(7)
            if part.affine:
                part.weight.data.copy_(torch.rand(part.num_features, generator=generator) * 0.5 + 0.3)
                part.bias.data.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
    return module.eval()


def resnet(name: str = "resnet18", *, small: int | None = None) -> nn.Module:
    """A torchvision ResNet without classifier; `small`: a 3x3 stem with this padding, no max-pool."""
    return copy.deepcopy(_resnet(name, small))


@functools.cache
def _resnet(name: str, small: int | None) -> nn.Module:
    torch.manual_seed(1)
    network = getattr(torchvision.models, name)()
    network.fc = nn.Identity()
    if small is not None:
        network.conv1 = nn.Conv2d(3, 64, 3, 1, small, bias=False)
        network.maxpool = nn.Identity()
    return shake(network)


def projector(features: int, *, biases: tuple[bool, bool, bool], affine: bool = False) -> nn.Sequential:
    """Three layers; which Linears have a bias, and whether the last BatchNorm has a scale, differ by program."""
    torch.manual_seed(2)
    head = nn.Sequential(
        nn.Linear(features, DIM, bias=biases[0]),
        nn.BatchNorm1d(DIM),
        nn.ReLU(),
        nn.Linear(DIM, DIM, bias=biases[1]),
        nn.BatchNorm1d(DIM),
        nn.ReLU(),
        nn.Linear(DIM, DIM, bias=biases[2]),
        nn.BatchNorm1d(DIM, affine=affine),
    )
    shake(head)
    if affine:
        head[7].weight.data[::3] *= -1
    return head


def predictor(*, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(4)
    head = nn.Sequential(nn.Linear(DIM, HIDDEN, bias=bias), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))
    shake(head)
    return head


def trio(name: str = "resnet18", *, small: int | None = None, biased: str = "none") -> Trio:
    backbone = resnet(name, small=small)
    features = 512 if name in ("resnet18", "resnet34") else 2048
    biases = {"none": (False, False, False), "last": (False, False, True), "all": (True, True, True)}[biased]
    return Trio(
        backbone=backbone,
        projector=projector(features, biases=biases, affine=biased == "all"),
        predictor=predictor(bias=biased == "all"),
    )


def prefixed(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in module.state_dict().items()}


def mm_names(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """OpenMMLab's head names: Linear k is fck, BatchNorm k is bnk."""
    renamed = {}
    for name, tensor in head.state_dict().items():
        index, what = name.split(".")
        layer, kind = divmod(int(index), 3)
        renamed[f"{prefix}{('fc', 'bn')[kind]}{layer}.{what}"] = tensor.clone()
    return renamed


def indexed(backbone: nn.Module) -> nn.Sequential:
    """lightly's way to drop the classifier: a Sequential of the children."""
    return nn.Sequential(*list(backbone.children())[:-1], nn.Flatten())


def detectron2_names(backbone: nn.Module) -> OrderedDict[str, Tensor]:
    """detectron2's ResNet names, written out from its module structure (stem, res2 to res5, norm, shortcut)."""
    renamed: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in backbone.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("conv1", "bn1"):
            renamed[f"stem.conv1.{'norm.' if parts[0] == 'bn1' else ''}{parts[1]}"] = tensor
            continue
        stage, block, rest = f"res{int(parts[0][-1]) + 1}", parts[1], parts[2:]
        if rest[0] == "downsample":
            middle = "shortcut" if rest[1] == "0" else "shortcut.norm"
        elif rest[0].startswith("bn"):
            middle = f"conv{rest[0][-1]}.norm"
        else:
            middle = rest[0]
        renamed[f"{stage}.{block}.{middle}.{rest[-1]}"] = tensor
    return renamed
