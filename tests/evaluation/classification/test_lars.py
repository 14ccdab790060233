"""LARS against the literal formulas, written out once more in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from simsiam.engine.optimizers import LARS, LarsForm
from simsiam.errors import UserError


def _literal(
    weight: np.ndarray[Any, Any], gradients: list[np.ndarray[Any, Any]], lrs: list[float], decay: float, form: LarsForm
) -> np.ndarray[Any, Any]:
    weight, buffer = weight.copy(), np.zeros_like(weight)
    for gradient, lr in zip(gradients, lrs, strict=True):
        w, g = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
        if w == 0 or g == 0:
            scaled = gradient if form == "larc" else gradient + decay * weight
        else:
            scaled = 0.001 * w / (g + decay * w + 1e-8) * (gradient + decay * weight)
        if form == "mmselfsup":
            buffer = 0.9 * buffer + lr * scaled
            weight = weight - buffer
        else:
            buffer = 0.9 * buffer + scaled
            weight = weight - lr * buffer
    return weight


@pytest.mark.parametrize("form", ["mmselfsup", "larc"])
@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1])
def test_lars_equals_the_literal_formula(form: LarsForm, decay: float) -> None:
    rng = np.random.default_rng(0)
    start = {"weight": rng.normal(0, 0.01, (7, 5)), "bias": np.zeros(7), "dead": rng.normal(size=3)}
    gradients = {name: [rng.normal(size=value.shape) for _ in range(6)] for name, value in start.items()}
    gradients["dead"][:3] = [np.zeros(3)] * 3  # the ratio is 1 where the gradient vanishes
    lrs = [1.6, 1.6, 1.2, 0.8, 0.4, 0.1]
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    optimizer = LARS(tensors.values(), lr=lrs[0], momentum=0.9, weight_decay=decay, form=form)
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name][step])
        optimizer.step()
    for name, tensor in tensors.items():
        expected = _literal(start[name], gradients[name], lrs, decay, form)
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-10, atol=1e-13)


def test_the_zero_bias_takes_one_unscaled_step_and_the_forms_part_when_the_rate_changes() -> None:
    bias = torch.zeros(2, requires_grad=True)
    bias.grad = torch.tensor([1.0, -2.0])
    LARS([bias], lr=1.6, momentum=0.9, weight_decay=0.0).step()
    assert bias.tolist() == pytest.approx([-1.6, 3.2])

    ends = {}
    for form in ("mmselfsup", "larc"):
        weight = torch.ones(4, requires_grad=True)
        optimizer = LARS([weight], lr=1.0, momentum=0.9, weight_decay=0.0, form=form)
        for lr in (1.0, 0.1):
            optimizer.param_groups[0]["lr"] = lr
            weight.grad = torch.full((4,), 0.5)
            optimizer.step()
        ends[form] = weight.detach()[0].item()
    # The second step: 0.9 of the first at its own rate (mmselfsup) or at the new rate (larc).
    assert ends["mmselfsup"] == pytest.approx(1 - 0.001 - (0.0009 + 0.0001 * 0.999), abs=1e-6)
    assert ends["larc"] == pytest.approx(1 - 0.001 - 0.1 * (0.0009 + 0.001 * 0.999), abs=1e-6)


def test_state_is_restored_and_a_closure_is_called() -> None:
    def run(steps: int, optimizer: LARS, weight: torch.Tensor) -> None:
        for _ in range(steps):
            loss = optimizer.step(lambda: _loss(weight))
            assert loss is not None

    def _loss(weight: torch.Tensor) -> float:
        weight.grad = None
        loss = (weight**2).sum()
        loss.backward()
        return float(loss.detach())

    straight = torch.ones(3, requires_grad=True)
    run(4, LARS([straight], lr=0.5, momentum=0.9, weight_decay=0.0), straight)
    first = torch.ones(3, requires_grad=True)
    optimizer = LARS([first], lr=0.5, momentum=0.9, weight_decay=0.0)
    run(2, optimizer, first)
    second = first.detach().clone().requires_grad_()
    resumed = LARS([second], lr=0.5, momentum=0.9, weight_decay=0.0)
    resumed.load_state_dict(optimizer.state_dict())
    run(2, resumed, second)
    assert torch.equal(straight, second)


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(UserError, match="lr is -1"):
        LARS([torch.zeros(1, requires_grad=True)], lr=-1.0, momentum=0.9, weight_decay=0.0)
