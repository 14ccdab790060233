"""The loop itself: the rate at every step, means over an epoch, checkpoints, and a loss that is no number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from simsiam.engine import optimizers
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Diverged, EpochEnd, Plan, Training, fit
from simsiam.engine.logs import Display, MetricsLog
from simsiam.results import read_metrics

EPOCHS, STEPS, LR = 3, 4, 0.8


class Toy:
    """A line that is fitted to nothing, and what was seen on the way."""

    def __init__(self, root: Path, *, schedule_by: str = "epoch", losses: dict[int, float] | None = None) -> None:
        torch.manual_seed(0)
        net = nn.Linear(1, 1)
        groups = [optimizers.Group(name="all", parameters=net.parameters(), lr=LR)]
        optimizer = optimizers.sgd(groups, momentum=0.9, weight_decay=0.0)
        self.root, self.losses = root, losses or {}
        self.training = Training(modules={"net": net}, optimizer=optimizer, recipe={})
        total = {"epoch": EPOCHS, "fraction": EPOCHS, "step": EPOCHS * STEPS}[schedule_by]
        self.plan = Plan(
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            schedule=partial(optimizers.cosine, total=float(total)),
            schedule_by=schedule_by,
            images_per_step=10,
            log_every=3,
        )
        self.rates: list[float] = []
        self.batches: list[tuple[int, int]] = []

    def stream(self, epoch: int, first: int) -> Iterator[tuple[int, int]]:
        return iter([(epoch, step) for step in range(first, STEPS)])

    def step(self, batch: tuple[int, int]) -> dict[str, Tensor]:
        self.batches.append(batch)
        self.rates.append(optimizers.rates(self.training.optimizer)["all"])
        number = batch[0] * STEPS + batch[1]
        self.training.update(self.training.modules["net"](torch.tensor([[0.1]])).sum())
        return {"loss": torch.tensor(self.losses.get(number, float(number)))}

    def run(self) -> Iterator[EpochEnd]:
        log = MetricsLog(self.root)
        checkpoints = Checkpoints(self.root / "checkpoints", keep=2)
        if (saved := checkpoints.latest()) is not None:
            self.training.load(saved)
        log.rewind(saved["log_offset"] if saved else 0)
        with closing(log):
            yield from fit(
                self.training,
                step=self.step,
                batches=self.stream,
                plan=self.plan,
                checkpoints=checkpoints,
                log=log,
                display=Display(EPOCHS * STEPS, shows=False),
                process=Process(rank=0, world=1, device=torch.device("cpu")),
            )


@pytest.mark.parametrize("schedule_by", ["epoch", "fraction", "step"])
def test_the_rate_of_every_step(schedule_by: str, tmp_path: Path) -> None:
    toy = Toy(tmp_path, schedule_by=schedule_by)
    list(toy.run())
    literal = []
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            done = epoch if schedule_by == "epoch" else epoch + step / STEPS
            literal.append(LR * (1 + math.cos(math.pi * done / EPOCHS)) / 2)
    assert toy.rates == pytest.approx(literal)
    assert toy.batches == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]


def test_what_an_epoch_tells_and_what_is_logged(tmp_path: Path) -> None:
    ends = list(Toy(tmp_path).run())
    assert [(end.epoch, end.global_step) for end in ends] == [(1, 4), (2, 8), (3, 12)]
    assert [end.means["loss"] for end in ends] == pytest.approx([1.5, 5.5, 9.5])  # the mean step number
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [3, 4, 7, 8, 11, 12]
    assert [row["loss"] for row in rows] == pytest.approx([1, 3, 5, 7, 9, 11])  # of steps 0-2, 3, 4-6, 7, ...
    assert [row["epoch"] for row in rows] == pytest.approx([0.75, 1, 1.75, 2, 2.75, 3])
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"step-000000008.pt", "step-000000012.pt"}


@pytest.mark.parametrize("stopped_at", [1, 5, 8, 11])
def test_a_run_that_was_cut_off_sees_the_same_batches_at_the_same_rates(stopped_at: int, tmp_path: Path) -> None:
    whole, first, second = (Toy(tmp_path / name, schedule_by="fraction") for name in ("whole", "cut", "cut"))
    list(whole.run())
    first.plan = replace(first.plan, checkpoint_minutes=0.0)  # one after every step

    def until_cut(batch: tuple[int, int]) -> dict[str, Tensor]:
        if len(first.batches) == stopped_at:
            raise KeyboardInterrupt
        return Toy.step(first, batch)

    first.step = until_cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    list(second.run())
    assert first.batches + second.batches == whole.batches
    assert first.rates + second.rates == whole.rates
    ends = [toy.training.modules["net"].state_dict()["weight"] for toy in (second, whole)]
    assert torch.equal(*ends)
    assert [row["step"] for row in read_metrics(tmp_path / "cut" / "metrics.jsonl")] == [3, 4, 7, 8, 11, 12]


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="loss nan at step 7") as stopped:
        list(Toy(tmp_path, losses={4: math.nan}).run())
    assert stopped.value.step == 7  # rows are of three steps: 4 to 6 are looked at together


def test_weights_that_are_no_numbers_at_the_end_of_an_epoch_end_the_run(tmp_path: Path) -> None:
    """The last loss of an epoch can be finite and its update not."""
    toy = Toy(tmp_path)

    def last_step(batch: tuple[int, int]) -> dict[str, Tensor]:
        numbers = Toy.step(toy, batch)
        if batch == (1, STEPS - 1):
            with torch.no_grad():
                toy.training.modules["net"].weight.fill_(math.inf)  # type: ignore[union-attr, operator]
        return numbers

    toy.step = last_step  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="weights that are not finite at step 8"):
        list(toy.run())
