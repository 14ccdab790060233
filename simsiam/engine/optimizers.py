"""Optimisers, their parameter groups and schedules. A group that is fixed keeps its rate: SimSiam's predictor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from simsiam.errors import UserError

Schedule = Callable[[float], float]  # position in epochs (or iterations) -> factor in [0, 1]


def cosine(position: float, total: float) -> float:
    """Half a cosine from 1 to 0 (paper, section 3: "cosine decay schedule")."""
    return 0.5 * (1.0 + math.cos(math.pi * min(position, total) / total))


def warmup_cosine(position: float, total: float, warmup: float) -> float:
    """A linear rise over `warmup`, then half a cosine over the rest."""
    if position < warmup:
        return (position + 1.0) / (warmup + 1.0)
    return cosine(position - warmup, total - warmup)


def steps(position: float, milestones: Sequence[float], gamma: float = 0.1) -> float:
    """The factor gamma for every milestone that is reached."""
    return float(gamma ** sum(position >= milestone for milestone in milestones))


def linear_warmup(iteration: int, length: int, ratio: float) -> float:
    """From `ratio` to 1 over `length` iterations (detection: 0.001 over 100 or 1000)."""
    return 1.0 if iteration >= length else 1.0 - (1.0 - iteration / length) * (1.0 - ratio)


def polynomial(position: float, total: float, power: float, floor: float) -> float:
    """(1 - t)^power from 1 down to the fraction `floor` of the initial rate (segmentation)."""
    return float((1.0 - min(position, total) / total) ** power * (1.0 - floor) + floor)


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


LarsForm = Literal["mmselfsup", "larc"]


class LARS(Optimizer):
    """LARS: layer-wise adaptive rate scaling over SGD with momentum (You et al. 2017, arXiv 1708.03888).

    The two public code bases of SimSiam differ in where the learning rate enters the momentum buffer, which matters
    once the rate changes between steps:

    - `mmselfsup`: buffer <- momentum x buffer + lr x ratio x (gradient + wd x weight);  weight <- weight - buffer
    - `larc`:      buffer <- momentum x buffer + ratio x (gradient + wd x weight);       weight <- weight - lr x buffer

    with ratio = trust x |weight| / (|gradient| + wd x |weight| + eps), over one tensor at a time, biases included.
    Where |weight| or |gradient| is zero the ratio is 1 (and `larc` then leaves out the weight decay, as apex does).

    Args:
        params: tensors or parameter groups, as for any torch optimiser.
        lr: learning rate before the ratio.
        momentum: of the buffer; 0 for none.
        weight_decay: inside the ratio and the step.
        trust: the trust coefficient, 0.001 as published.
        eps: added to the denominator of the ratio.
        form: `mmselfsup` or `larc`.

    Raises:
        UserError: a learning rate, momentum, weight decay or trust coefficient below zero.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float = 0.001,
        eps: float = 1e-8,
        form: LarsForm = "mmselfsup",
    ) -> None:
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}.items():
            if value < 0:
                raise UserError(f"LARS: {name} is {value}; it must not be negative.")
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "eps": eps, "form": form,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over every tensor that has a gradient; returns what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_tensor(weight, group)
        return loss

    def _step_tensor(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient = cast(Tensor, weight.grad)
        decay = group["weight_decay"]
        weight_norm, gradient_norm = weight.norm(), gradient.norm()
        # torch.where and not `if`: a branch on a device value would stall the GPU once per tensor and step.
        scaled = (weight_norm > 0) & (gradient_norm > 0)
        ratio = group["trust"] * weight_norm / (gradient_norm + decay * weight_norm + group["eps"])
        ratio = torch.where(scaled, ratio, torch.ones_like(ratio))
        larc = group["form"] == "larc"
        decay_now = torch.where(scaled, decay, 0.0) if larc else decay
        update = (gradient + decay_now * weight) * ratio
        if not larc:
            update = update * group["lr"]

        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(update)
        if larc:
            weight.sub_(group["lr"] * buffer)
        else:
            weight.sub_(buffer)
