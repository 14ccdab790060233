"""Other targets than the step's own projections: the alternations of the paper's hypothesis (section 5.2).

There an image's representation eta is a variable of its own, assigned in turn with the weights. SimSiam assigns it anew
at every step; `Alternation` keeps the weights that assign it for k steps, `MovingAverage` averages it over visits.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.config import TargetsBy
from simsiam.data.two_views.loader import Batch
from simsiam.engine import distributed
from simsiam.model import Outputs, SimSiam

MOMENTUM = 0.8  # of the moving average (paper, section 5.2)


class Targets(nn.Module, ABC):
    """What the loss takes in place of z1 and z2; a module, so that checkpoints hold its state."""

    @abstractmethod
    def forward(self, batch: Batch, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The targets of both views, each B x d, without a gradient."""


class Alternation(Targets):
    """Targets by the weights of the last multiple of `every` steps (paper, "Multi-step alternation").

    The paper computes and caches them ahead for the k steps to come. In training mode, with statistics of each batch,
    the same weights give the same targets later, so a copy of the encoder serves.
    """

    def __init__(self, network: SimSiam, *, every: int, steps: int) -> None:
        super().__init__()
        self.encoder = _encoder(network)
        self._live = (network,)  # in a tuple: it is not a part of this module
        self.every, self.steps = every, steps

    @torch.no_grad()
    def forward(self, batch: Batch, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Projections of both views by the weights that were kept."""
        if (batch.epoch * self.steps + batch.step) % self.every == 0:
            live = nn.Sequential(self._live[0].backbone, self._live[0].projector)
            self.encoder.load_state_dict(live.state_dict())
        return self.encoder(batch.x1), self.encoder(batch.x2)


class MovingAverage(Targets):
    """Targets by each image's moving average of unit projections, the current one included (paper, section 5.2).

    An image's average starts at its projection by the network before training. Of the symmetrised loss either view's
    target takes in the other view, and the average then both. Memory: images x d floats.
    """

    def __init__(self, network: SimSiam, *, images: int, dim: int) -> None:
        super().__init__()
        self.start = _encoder(network)
        self.register_buffer("average", torch.zeros(images, dim, device=next(network.parameters()).device))
        self.average: Tensor

    @torch.no_grad()
    def forward(self, batch: Batch, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """0.8 of the average and 0.2 of each view's projection, which the average then takes in."""
        rows = batch.indices.to(self.average.device)
        z1, z2 = _unit(outputs.z1), _unit(outputs.z2)
        before = self.average[rows]
        if bool((new := (before == 0).all(1)).any()):
            first = (_unit(self.start(batch.x1)) + _unit(self.start(batch.x2))) / 2
            before = torch.where(new[:, None], first, before)
        targets1, targets2 = (MOMENTUM * before + (1 - MOMENTUM) * z for z in (z1, z2))
        for indices, means in distributed.gathered([(rows, (targets1 + targets2) / 2)]):
            self.average[indices.to(self.average.device)] = means.to(self.average.device)
        return targets1, targets2


def open_targets(
    kind: TargetsBy,
    network: SimSiam,
    *,
    steps: int,
    images: int,
    dim: int,
) -> Targets | None:
    """What `Pretraining.targets` names; None for the step's own projections.

    Args:
        network: the one that is trained, at its start and on its device.
        steps: of an epoch.
        images: in the training set.
        dim: width of the projections.
    """
    if kind == "step":
        return None
    if kind == "moving-average":
        return MovingAverage(network, images=images, dim=dim)
    every = {"10-steps": 10, "100-steps": 100, "epoch": steps}[kind]
    return Alternation(network, every=every, steps=steps)


def _encoder(network: SimSiam) -> nn.Sequential:
    """A copy of backbone and projector that is never trained."""
    return copy.deepcopy(nn.Sequential(network.backbone, network.projector)).requires_grad_(False).train()


def _unit(z: Tensor) -> Tensor:
    return functional.normalize(z.float(), dim=1)
