"""The one runner of supervised trainings, on a linear network whose every weight can be compared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.config import Machine
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Plan, Training
from simsiam.engine.optimizers import Group, sgd
from simsiam.engine.stopping import Interrupted
from simsiam.errors import UserError
from simsiam.evaluation import fine_tuning
from simsiam.evaluation.fine_tuning import FineTuning, Scored, Smaller, TrainingResult, Watch
from simsiam.evaluation.place import Place
from simsiam.evaluation.rate_search import best, sweep_note, try_cells
from tests.evaluation.classification.labelled_subjects import subject

STEPS = 4


def place(folder: Path) -> Place:
    process = Process(rank=0, world=1, device=torch.device("cpu"))
    return Place(
        subject=subject(), machine=Machine(device="cpu"), process=process, folder=folder, identity={"protocol": "toy"}
    )


def training_of(
    network: nn.Module, *, epochs: int = 4, lr: float = 0.1, score: Callable[[Watch], Scored] | None = None, **how: Any
) -> FineTuning:
    """Batches are a function of their place alone; the step draws from torch's generator, as dropout does."""
    optimizer = sgd([Group(name="all", parameters=network.parameters(), lr=lr)], momentum=0.9, weight_decay=1e-3)

    def batches(epoch: int, first: int) -> Iterator[Tensor]:
        for step in range(first, STEPS):
            yield torch.randn(6, 3, generator=torch.Generator().manual_seed(100 * epoch + step))

    def step_of(training: Training) -> Callable[[Tensor], dict[str, Tensor]]:
        network.train()

        def step(batch: Tensor) -> dict[str, Tensor]:
            torch.manual_seed(training.epoch * STEPS + training.step)
            loss = functional.dropout(network(batch), 0.5).square().mean()
            training.update(loss)
            return {"loss": loss.detach()}

        return step

    def passes(watch: Watch) -> Scored:
        seen = sum(1 for _ in watch.over(range(5), 5))
        return Scored(metrics={"top1": float(seen)}, detail={"seen": seen})

    plan = Plan(epochs=epochs, steps_per_epoch=STEPS, schedule=lambda _: 1.0, schedule_by="epoch", images_per_step=6)
    return FineTuning(
        network=network,
        optimizer=optimizer,
        plan=plan,
        step=step_of,
        batches=batches,
        score=score or passes,
        lr=lr,
        metric="top1",
        **how,
    )


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


def weights(folder: Path) -> dict[str, Tensor]:
    stored = Checkpoints(folder / "checkpoints", keep=1).latest()
    assert stored is not None
    return {**stored["modules"]["network"], "momentum": stored["optimizer"]["state"][0]["momentum_buffer"]}


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_measured_steps_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training_of(network()).run(place(tmp_path / "plain"))
    assert "16 steps of 6 images on cpu\n" in capsys.readouterr().err
    monkeypatch.setattr(fine_tuning, "WORTH_MEASURING", 1)
    training_of(network(), epochs=2).run(place(tmp_path / "measured"))
    told = capsys.readouterr().err
    assert "8 steps of 6 images on cpu; " in told
    assert " ms a step measured; 0 MiB of memory at least; about 0 s, scoring not counted: done by " in told
    assert "long for a CPU" not in told
    training_of(network()).run(place(tmp_path / "measured"))  # with momentum and statistics to put back
    assert "8 steps of 6 images on cpu; " in capsys.readouterr().err
    assert same(tmp_path / "plain", tmp_path / "measured")


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ({}, "that is long for a CPU: fewer --epochs or a smaller --size shorten it\n"),
        ({"smaller": Smaller(flag="--recipe small", share=0.5)}, "that is long for a CPU: --recipe small takes 0 s at"),
    ],
)
def test_what_takes_long_is_said_with_what_does_not(
    how: dict[str, Any], cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fine_tuning, "WORTH_MEASURING", 1)
    monkeypatch.setattr(fine_tuning, "LONG", 0.0)
    training_of(network(), epochs=1, learns="3 classes (cat, dog, owl)", **how).run(place(tmp_path))
    told = capsys.readouterr().err
    assert "to be learnt: 3 classes (cat, dog, owl), 18 weights\n" in told
    assert cure in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_within_a_scoring_and_the_rest_is_as_if_it_never_came(
    tmp_path: Path, number: signal.Signals
) -> None:
    whole = training_of(network()).run(place(tmp_path / "whole"))
    looked: list[int] = []

    def interrupted(watch: Watch) -> Scored:
        for image in watch.over(range(5), 5):
            looked.append(image)
            if watch.step == 2 * STEPS and image == 2:
                os.kill(os.getpid(), number)
        return Scored(metrics={"top1": 5.0}, detail={"seen": 5})

    with pytest.raises(Interrupted) as stopped:
        training_of(network(), score=interrupted).run(place(tmp_path / "cut"))
    assert stopped.value.signal_number == number
    assert looked == [0, 1, 2, 3, 4, 0, 1, 2]  # not one image more
    resumed = training_of(network()).run(place(tmp_path / "cut"))
    assert resumed == whole
    assert same(tmp_path / "whole", tmp_path / "cut")
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count('"evaluation"') for name in ("whole", "cut")]
    assert lines == [4, 4]


def test_scoring_every_so_many_epochs_keeping_the_best(tmp_path: Path) -> None:
    figures = {2: 10.0, 4: 30.0, 5: 20.0}

    def falls(watch: Watch) -> Scored:
        return Scored(metrics={"top1": figures[watch.step // STEPS]}, detail={"of": watch.step // STEPS})

    result = training_of(network(), epochs=5, score=falls, scored_every=2, keep="best").run(place(tmp_path / "best"))
    assert result.metrics == {"top1": 30.0}
    assert (result.detail["epoch"], result.detail["of"]) == (4, 4)
    assert result.detail["history"] == [{"epoch": epoch, "top1": value} for epoch, value in figures.items()]
    last = training_of(network(), epochs=5, score=falls, scored_every=2).run(place(tmp_path / "last"))
    assert (last.metrics["top1"], last.detail["epoch"]) == (20.0, 5)


def test_a_finished_training_of_an_earlier_version_is_scored_once_more(tmp_path: Path) -> None:
    whole = training_of(network()).run(place(tmp_path))
    file = max((tmp_path / "checkpoints").glob("step-*.pt"))
    content = torch.load(file, weights_only=True)
    history = [{"step": 4, "top1": 5.0}]
    torch.save({**content, "extra": {"history": history, "last": {"metrics": {"top1": 5.0}, "per_class": {}}}}, file)
    again = training_of(network()).run(place(tmp_path))
    assert again.metrics == whole.metrics
    assert again.detail["seen"] == 5


def test_one_rate_that_diverges_is_recorded_and_the_others_train(tmp_path: Path) -> None:
    def train(cell: dict[str, float]) -> TrainingResult:
        return training_of(network(), lr=cell["lr"]).run(place(tmp_path / f"{cell['lr']:g}"))

    with pytest.raises(UserError, match=r"1e\+30: diverged \(loss (nan|inf).*learning rate 1e\+30 is too high"):
        train({"lr": 1e30})
    trials = try_cells([{"lr": 1e30}, {"lr": 0.1}], train, metric="top1", flag="--rates", facts={"images": 7})
    assert [trial.row for trial in trials] == [
        {"lr": 1e30, "images": 7, "top1": None, "outcome": "diverged"},
        {"lr": 0.1, "images": 7, "top1": 5.0},
    ]
    assert best(trials, "top1").cell == {"lr": 0.1}
    assert sweep_note(trials, 20, choice="best", lr=0.1) == (
        "rates 1e+30, 0.1 were tried for 20 iterations on held-out training images (the best was taken); trained at "
        "0.1; diverged: lr 1e+30"
    )
    with pytest.raises(UserError, match=r"--rates 1e\+30: every rate is too high"):
        try_cells([{"lr": 1e30}], train, metric="top1", flag="--rates")
