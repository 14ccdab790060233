"""Schedules against their literal formulas, and the predictor's fixed rate through save and load."""

from __future__ import annotations

import math

import pytest
import torch

from simsiam.engine import optimizers


def test_cosine_is_the_published_formula() -> None:
    for epoch in range(100):
        literal = 0.5 * 0.05 * (1 + math.cos(math.pi * epoch / 100))
        assert 0.05 * optimizers.cosine(epoch, 100) == pytest.approx(literal)
    assert 0.05 * optimizers.cosine(99, 100) == pytest.approx(1.2e-5, rel=0.05)


def test_the_other_schedules() -> None:
    assert [optimizers.steps(epoch, (30, 60, 90)) for epoch in (0, 29, 30, 60, 89)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.01]
    )
    assert optimizers.linear_warmup(0, 100, 0.001) == pytest.approx(0.001)
    assert optimizers.linear_warmup(50, 100, 0.001) == pytest.approx(0.5005)
    assert optimizers.linear_warmup(100, 100, 0.001) == 1
    assert optimizers.polynomial(0, 20_000, 0.9, 0.01) == 1
    assert optimizers.polynomial(20_000, 20_000, 0.9, 0.01) == pytest.approx(0.01)
    assert optimizers.warmup_cosine(0, 100, 9) == pytest.approx(0.1)
    assert optimizers.warmup_cosine(9, 100, 9) == 1


def test_a_fixed_group_keeps_its_rate_through_a_resume() -> None:
    def build() -> torch.optim.SGD:
        first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        groups = [
            optimizers.Group(name="encoder", parameters=first.parameters(), lr=0.1),
            optimizers.Group(name="predictor", parameters=second.parameters(), lr=0.1, schedule="fixed"),
        ]
        return optimizers.sgd(groups, momentum=0.9, weight_decay=1e-4)

    optimizer = build()
    optimizers.set_lr(optimizer, 0.25)
    assert optimizers.rates(optimizer) == pytest.approx({"encoder": 0.025, "predictor": 0.1})
    resumed = build()
    resumed.load_state_dict(optimizer.state_dict())
    optimizers.set_lr(resumed, 0.5)
    assert optimizers.rates(resumed) == pytest.approx({"encoder": 0.05, "predictor": 0.1})


def test_sgd_is_the_literal_update() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1, bias=False)
    optimizer = optimizers.sgd(
        [optimizers.Group(name="all", parameters=layer.parameters(), lr=0.1)], momentum=0.9, weight_decay=0.01
    )
    weight, velocity = layer.weight.detach().clone(), torch.zeros(1, 3)
    for _ in range(4):
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + (torch.ones(1, 3) + 0.01 * weight)
        weight = weight - 0.1 * velocity
        torch.testing.assert_close(layer.weight.detach(), weight)
