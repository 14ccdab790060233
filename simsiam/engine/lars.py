"""LARS, the optimiser of the published AvgPool linear evaluation, in the two forms that are in use.

Source: You et al. 2017, "Large batch training of convolutional networks". The two public code bases of SimSiam
differ in where the learning rate enters the momentum buffer, which matters once the rate changes between steps:

- `mmselfsup`: buffer <- momentum x buffer + lr x ratio x (gradient + wd x weight);  weight <- weight - buffer
- `larc`:      buffer <- momentum x buffer + ratio x (gradient + wd x weight);       weight <- weight - lr x buffer

with ratio = trust x |weight| / (|gradient| + wd x |weight| + eps), over one tensor at a time, biases included.
Where |weight| or |gradient| is zero the ratio is 1 (and `larc` then leaves out the weight decay, as apex does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from simsiam.errors import UserError

LarsForm = Literal["mmselfsup", "larc"]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling over SGD with momentum.

    Args:
        params: tensors or parameter groups, as for any torch optimiser.
        lr: learning rate before the ratio.
        momentum: of the buffer; 0 for none.
        weight_decay: inside the ratio and the step.
        trust: the trust coefficient, 0.001 as published.
        eps: added to the denominator of the ratio.
        form: `mmselfsup` or `larc`, see the module's head.

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
