"""How a classifier is trained, as records of the recipe, and the optimiser and schedule that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simsiam import limits
from simsiam.data.classification.transforms import Augmentation
from simsiam.limits import Count, Positive, Share

if TYPE_CHECKING:
    import torch

    from simsiam.engine.optimizers import Group
    from simsiam.engine.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Optimiser, schedule and length of a supervised training; the rate changes between epochs only."""

    optimizer: Literal["sgd", "nesterov", "lars", "larc"]  # sgd, nesterov, or one of two forms of LARS.
    lr: Positive  # Learning rate at --batch-size; it is not scaled.
    momentum: Share  # Momentum of SGD.
    weight_decay: float  # Weight decay, on every parameter that is trained.
    schedule: Literal["steps", "cosine"]  # How the rate falls: in steps at the milestones, or as a cosine.
    milestones: tuple[int, ...]  # Epochs at which the rate falls by gamma, with --schedule steps.
    gamma: Share  # Factor of the rate at a milestone.
    epochs: Count  # Passes over the training images.
    batch_size: Count  # Images in a step, over all devices.

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """The optimiser over the groups, each at its own initial rate."""
        from simsiam.engine import optimizers
        from simsiam.engine.lars import LARS

        if self.optimizer in ("sgd", "nesterov"):
            nesterov = self.optimizer == "nesterov" and self.momentum > 0  # without momentum both are the same
            return optimizers.sgd(groups, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=nesterov)
        return LARS(
            [
                {"params": list(g.parameters), "name": g.name, "lr": g.lr, "initial_lr": g.lr, "schedule": g.schedule}
                for g in groups
            ],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            form="mmselfsup" if self.optimizer == "lars" else "larc",
        )

    def factor(self) -> Schedule:
        """Epochs done -> factor of the initial rate."""
        from simsiam.engine import schedules

        if self.schedule == "cosine":
            return lambda epoch: schedules.cosine(epoch, self.epochs)
        return lambda epoch: schedules.steps(epoch, self.milestones, self.gamma)

    def check(self) -> None:
        """Raise UserError for a number that nothing can be trained with."""
        limits.check(self, prefixes=False)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of a supervised training that is scored on the way."""

    optimisation: Optimisation
    augmentation: Augmentation
    test_resize: Count  # Pixels that a test image's short edge is resized to, before the centre crop.
    evaluate_every: Count  # Epochs from one scoring to the next; the last epoch is always scored.
    # Which epoch is reported: the last, or the best by test accuracy, as main_lincls does.
    keep: Literal["last", "best"]
    precision: Literal["fp32", "tf32", "bf16"]  # Number format of the forward passes; published: fp32.
