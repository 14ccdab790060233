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
from simsiam.config import Machine, Pretraining
from simsiam.engine import optimizers
from simsiam.engine.fit import Plan
from simsiam.engine.optimizers import Schedule
from simsiam.model import Outputs, SimSiam

Update = Callable[[Tensor], None]
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def train_step(
    network: nn.Module,
    x1: Tensor,
    x2: Tensor,
    *,
    update: Update,
    loss: Loss = simsiam_model.loss,
    targets: Callable[[Outputs], tuple[Tensor, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """One step on two views, each B x 3 x S x S: forward, loss, update; returns loss and spread, detached.

    Args:
        network: gives `Outputs` of the two views.
        loss: of p1, p2 and two targets, B x d each.
        targets: what takes the place of z1 and z2 in the loss, as in `simsiam.pretraining.targets`; None: they do.
    """
    outputs: Outputs = network(x1, x2)  # p1, p2, z1, z2: B x d
    z1, z2 = (outputs.z1, outputs.z2) if targets is None else targets(outputs)
    found = loss(outputs.p1, outputs.p2, z1, z2)
    update(found)
    return {"loss": found.detach(), "spread": simsiam_model.spread(outputs.z1)}


def optimizer_of(recipe: Pretraining, network: SimSiam) -> torch.optim.SGD:
    """The optimiser as a recipe sets it."""
    return simsiam_optimizer(
        network,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        predictor_lr=recipe.predictor_lr,
    )


def plan_of(recipe: Pretraining, machine: Machine, *, steps: int) -> Plan:
    """Length, schedule and checkpoints of a training as a recipe sets them."""
    return Plan(
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        schedule=simsiam_schedule(epochs=recipe.epochs, warmup_epochs=recipe.warmup_epochs),
        schedule_by="epoch" if recipe.schedule == "epoch" else "fraction",
        images_per_step=recipe.batch_size,
        checkpoint_every=recipe.checkpoint_every,
        checkpoint_minutes=machine.checkpoint_minutes,
    )


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
