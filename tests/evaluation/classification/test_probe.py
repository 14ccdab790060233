"""The fast linear probe: its gradient and optimiser against torch, the cache, the choice without the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from simsiam.data.splits import Splits
from simsiam.engine import optimizers
from simsiam.errors import UserError
from simsiam.evaluation.classification.probe import LinearProbe
from simsiam.evaluation.classification.probe_heads import Features, HeadStack, Setting
from simsiam.recipes.linear import linear_probe
from tests.evaluation.classification.labelled_subjects import avgpool, machine, splits, subject

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _probe(**changes: object) -> LinearProbe:
    return replace(linear_probe(32), **{"copies": 2, "epochs": 20, "batch_size": 32, **changes})  # type: ignore[arg-type]


def test_each_head_of_the_stack_is_torchs_sgd_with_its_own_setting() -> None:
    rng = np.random.default_rng(0)
    copies = [rng.normal(size=(50, 8)).astype(np.float32) for _ in range(3)]
    labels = np.arange(50) % 4
    settings = [
        Setting(lr=0.1, weight_decay=0.0),
        Setting(lr=1.0, weight_decay=0.01),
        Setting(lr=3.0, weight_decay=0.1),
    ]
    stack = HeadStack(settings, classes=4, width=8, momentum=0.9, seed=5, device=CPU)
    start = stack.weight[0].clone()
    features = Features(copies, labels, CPU, rows=np.ones(50, bool))
    stack.train(features, epochs=4, batch_size=16, seed=9)

    for number, setting in enumerate(settings):
        layer = nn.Linear(8, 4)
        layer.weight.data.copy_(start)
        layer.bias.data.zero_()
        sgd = torch.optim.SGD(layer.parameters(), lr=setting.lr, momentum=0.9, weight_decay=setting.weight_decay)
        for epoch in range(4):
            order = np.random.default_rng((9, epoch)).permutation(50)
            for step, first in enumerate(range(0, 50, 16)):
                rows = order[first : first + 16]
                batch = np.stack([copies[(row + epoch) % 3][row] for row in rows])
                sgd.param_groups[0]["lr"] = setting.lr * optimizers.cosine(epoch + step / 4, 4)
                sgd.zero_grad()
                nn.functional.cross_entropy(layer(torch.from_numpy(batch)), torch.from_numpy(labels[rows])).backward()
                sgd.step()
        assert torch.allclose(stack.weight[number], layer.weight, rtol=1e-3, atol=1e-5)
        assert torch.allclose(stack.bias[number], layer.bias, rtol=1e-3, atol=1e-5)


def test_large_features_are_read_batch_by_batch_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    copies = [rng.normal(size=(40, 6)).astype(np.float16) for _ in range(2)]
    labels, wanted = np.arange(40) % 3, np.arange(40) % 20 != 7
    memory = Features(copies, labels, CPU, rows=wanted)
    monkeypatch.setattr("simsiam.evaluation.classification.probe_heads.IN_MEMORY", 0)
    mapped = Features(copies, labels, CPU, rows=wanted)
    assert len(memory) == len(mapped) == 38
    chosen, copy = torch.tensor([0, 37, 12, 12]), torch.tensor([0, 1, 1, 0])
    assert torch.equal(memory.batch(chosen, copy), mapped.batch(chosen, copy))


def test_the_probe_reports_its_sweep_and_agrees_with_the_exact_protocol(tmp_path: Path) -> None:
    data = splits(train=300, test=120)
    result = _probe().run(subject(), data, machine=machine(tmp_path, cache=tmp_path / "cache"))
    exact = avgpool(epochs=8, lr=1.0).run(subject(), data, machine=machine())
    sweep = result.detail["sweep"]
    assert len(sweep) == 14
    assert result.detail["validation_images"] == 30
    best = min(sweep, key=lambda row: row["validation_loss"])
    assert result.detail["chosen"] == {"lr": best["lr"], "weight_decay": best["weight_decay"]}
    assert result.metrics["top1"] > 60  # chance is 17
    assert result.metrics["top1"] >= exact.metrics["top1"] - 8
    again = _probe().run(subject(), data, machine=machine(cache=tmp_path / "cache"))
    assert again.metrics == result.metrics
    assert again.detail["seconds"]["features"] < result.detail["seconds"]["features"]


def test_the_test_set_has_no_say_in_the_choice(tmp_path: Path) -> None:
    data, settings = splits(), machine(cache=tmp_path)
    other = Splits(train=data.train, test=splits(test=24).test.subset(np.arange(24)[::-1].copy()))
    one, two = (_probe().run(subject(), each, machine=settings) for each in (data, other))
    assert one.detail["chosen"] == two.detail["chosen"]
    assert one.detail["sweep"] == two.detail["sweep"]


def test_diverging_rates_are_left_out_and_all_diverging_is_an_error(tmp_path: Path) -> None:
    settings = machine(cache=tmp_path)
    result = _probe(lrs=(1.0, 1e38), weight_decays=(0.0,)).run(subject(), splits(), machine=settings)
    assert [row["validation_top1"] is None for row in result.detail["sweep"]] == [False, True]
    assert "at the edge of the sweep" in result.notes[0]
    with pytest.raises(UserError, match="every learning rate"):
        _probe(lrs=(1e38,), weight_decays=(0.0,)).run(subject(), splits(), machine=settings)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="runs in one process"):
        _probe().run(subject(), splits(), machine=machine(cache=tmp_path))
