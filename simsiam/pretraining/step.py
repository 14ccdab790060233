"""One SimSiam step, its optimiser and its schedule (paper, Algorithm 1): what a run repeats.

`simsiam.pretraining.run` calls `train_step` in the loop of `simsiam.engine.fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from simsiam import model as simsiam_model
from simsiam.engine import optimizers
from simsiam.engine.optimizers import Schedule
from simsiam.model import SimSiam

Update = Callable[[Tensor], None]


def train_step(network: nn.Module, x1: Tensor, x2: Tensor, *, update: Update) -> dict[str, Tensor]:
    """One step on two views, each B x 3 x S x S: forward, loss, update; returns loss and spread, detached."""
    outputs = network(x1, x2)  # p1, p2, z1, z2: B x d
    loss = simsiam_model.loss(*outputs)
    update(loss)
    return {"loss": loss.detach(), "spread": simsiam_model.spread(outputs.z1)}


def simsiam_optimizer(
    network: SimSiam, *, lr: float, momentum: float, weight_decay: float, predictor_lr: Literal["fixed", "cosine"]
) -> torch.optim.SGD:
    """SGD on every parameter; the predictor is a group of its own whose rate may stay fixed (paper, Table 1)."""
    groups = network.parameter_groups(lr=lr, predictor_lr=predictor_lr)
    return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)


def simsiam_schedule(*, epochs: int, warmup_epochs: int) -> Schedule:
    """Cosine to zero over the run, after a linear warm-up where the recipe has one; the position is in epochs."""
    if warmup_epochs:
        return partial(optimizers.warmup_cosine, total=float(epochs), warmup=float(warmup_epochs))
    return partial(optimizers.cosine, total=float(epochs))
