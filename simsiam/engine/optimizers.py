"""SGD with named parameter groups. A group whose `schedule` is "fixed" keeps its rate: SimSiam's predictor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that share a learning rate."""

    name: str
    parameters: Iterable[nn.Parameter]
    lr: float
    schedule: Literal["scheduled", "fixed"] = "scheduled"

    def options(self) -> dict[str, Any]:
        """As torch's optimisers take a group; the initial rate goes with it, so the fixed one survives every resume."""
        return {
            "params": list(self.parameters),
            "name": self.name,
            "lr": self.lr,
            "initial_lr": self.lr,
            "schedule": self.schedule,
        }


def sgd(groups: list[Group], *, momentum: float, weight_decay: float, nesterov: bool = False) -> torch.optim.SGD:
    """SGD over the groups."""
    return torch.optim.SGD(
        [group.options() for group in groups],
        lr=groups[0].lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every scheduled group `factor` times its initial rate; fixed groups keep theirs."""
    for group in optimizer.param_groups:
        if group["schedule"] == "scheduled":
            group["lr"] = group["initial_lr"] * factor


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The current rate of each group by name."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
