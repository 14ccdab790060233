"""Work timed side by side, and the memory layout that the timing chooses."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from simsiam.config import Machine, Model, Pretraining
from simsiam.engine.distributed import Process
from simsiam.model import SimSiam
from simsiam.pretraining import pace
from simsiam.pretraining.pace import FILE, Layout, Side, alternate, choose_layout, step_of
from simsiam.recipes.pretrain import RECIPES

CPU = torch.device("cpu")
ALONE = Process(rank=0, world=1, device=CPU)


@pytest.fixture
def recipe() -> Pretraining:
    found = RECIPES["demo"]()
    model = dataclasses.replace(found.model, backbone="resnet8", width=16, projector_dim=16, projector_hidden=16)
    return dataclasses.replace(
        found, model=model, views=dataclasses.replace(found.views, size=16), batch_size=4, precision="fp32"
    )


def paced(monkeypatch: pytest.MonkeyPatch, *, last: float, first: float) -> list[bool]:
    """Steps that take so many seconds by a clock of the test's; returns which layouts were tried."""
    tried: list[bool] = []
    now = [0.0]

    def steps(recipe: Pretraining, device: torch.device, *, batch: int, channels_last: bool) -> object:
        def step() -> None:
            tried.append(channels_last)
            now[0] += last if channels_last else first

        return step

    monkeypatch.setattr(pace, "step_of", steps)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return tried


def chosen(
    recipe: Pretraining, tmp_path: Path, model: Model | None = None, *, steps: int = 1000, **changes: object
) -> Layout:
    machine = Machine(cache=tmp_path, **changes)  # type: ignore[arg-type]
    return choose_layout(recipe, machine, SimSiam(model or recipe.model), ALONE, steps=steps)


def test_a_clearly_faster_layout_is_chosen_and_remembered(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = paced(monkeypatch, last=0.3, first=0.1)
    found = chosen(recipe, tmp_path)
    assert found == Layout(
        channels_last=False,
        why="images lie channels-first: steps are 3.00 times as fast as channels-last, measured",
    )
    assert list(json.loads((tmp_path / FILE).read_text()).values()) == [pytest.approx(1 / 3, abs=1e-3)]
    count = len(tried)
    again = chosen(recipe, tmp_path)
    assert (again.channels_last, len(tried)) == (False, count)
    assert again.why.endswith("as measured before on this machine")
    other = dataclasses.replace(recipe, views=dataclasses.replace(recipe.views, size=32))
    chosen(other, tmp_path)
    assert len(tried) > count  # another size is measured by itself


@pytest.mark.parametrize(("last", "first"), [(0.1, 0.12), (0.1, 0.1), (0.115, 0.1)])
def test_the_usual_layout_stays_where_the_other_is_not_clearly_faster(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float, first: float
) -> None:
    paced(monkeypatch, last=last, first=first)
    assert chosen(recipe, tmp_path).channels_last


def test_a_step_that_takes_too_long_is_not_repeated(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = paced(monkeypatch, last=pace.PATIENCE + 1, first=0.1)
    assert chosen(recipe, tmp_path).channels_last
    assert tried == [True]


def test_a_short_run_is_not_worth_a_measurement(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = paced(monkeypatch, last=0.3, first=0.1)
    assert chosen(recipe, tmp_path, steps=pace.WORTH_IT - 1).channels_last
    assert tried == []


def test_what_a_person_says_is_not_measured_and_narrow_networks_never_lie_channels_last(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = paced(monkeypatch, last=0.1, first=0.3)
    assert chosen(recipe, tmp_path, channels_last="off") == Layout(channels_last=False)
    assert chosen(recipe, tmp_path, channels_last="on") == Layout(channels_last=True)
    assert not chosen(recipe, tmp_path, dataclasses.replace(recipe.model, width=8)).channels_last
    assert tried == []


def test_a_damaged_or_unwritable_memory_of_layouts_is_no_reason_to_stop(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced(monkeypatch, last=0.1, first=0.3)
    for content in ("{", "[]", '{"a": "b"}'):
        (tmp_path / FILE).write_text(content)
        assert chosen(recipe, tmp_path).channels_last
    (tmp_path / "file").write_text("")
    assert chosen(recipe, tmp_path / "file" / "cache").channels_last


def test_measuring_a_layout_draws_no_random_number_of_the_runs(recipe: Pretraining, tmp_path: Path) -> None:
    network = SimSiam(recipe.model)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    choose_layout(recipe, Machine(cache=tmp_path), network, ALONE, steps=1000)
    assert torch.equal(torch.rand(3), expected)


def test_thirty_steps_differ_by_no_more_than_rounding_between_layouts_and_little_in_bf16(recipe: Pretraining) -> None:
    def losses(precision: str, *, channels_last: bool) -> torch.Tensor:
        torch.manual_seed(0)
        changed = dataclasses.replace(recipe, precision=precision, base_lr=0.05)  # type: ignore[arg-type]
        step = step_of(changed, CPU, batch=8, channels_last=channels_last)
        return torch.stack([step()["loss"] for _ in range(30)])  # type: ignore[index]

    plain = losses("fp32", channels_last=False)
    assert plain[-1] < plain[0] - 0.05  # it trains
    assert (losses("fp32", channels_last=True) - plain).abs().max() < 1e-3
    assert (losses("bf16", channels_last=True) - plain).abs().max() < 0.05


def test_the_pace_counts_images_over_seconds_and_takes_the_median() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.02)

    def quick() -> None:
        calls.append("quick")
        time.sleep(0.002)

    found = alternate(
        [Side(name="slow", images=2, call=slow), Side(name="quick", images=2, call=quick)],
        seconds=0.0,
        rounds=3,
        device=CPU,
    )
    assert calls == ["slow", "quick"] * 4  # once to warm up
    assert found["slow"] < 2 / 0.02
    assert found["slow"] < found["quick"] < 2 / 0.002
