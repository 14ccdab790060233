"""Several learning rates tried one after the other, in folders of their own: sweeps and grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from simsiam.errors import UserError
from simsiam.evaluation.fine_tuning import RateTooHigh, TrainingResult
from simsiam.wording import counted, plural

MOST_HELD_OUT = 500  # training images that the rates of a sweep are compared on


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one cell of a grid reached."""

    cell: dict[str, float]  # its settings by name
    result: TrainingResult | None  # None: it diverged
    row: dict[str, Any]  # for the result file


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The rate to train at, and what the result says of the others."""

    lr: float
    detail: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def try_cells(
    cells: Sequence[dict[str, float]],
    train: Callable[[dict[str, float]], TrainingResult],
    *,
    metric: str,
    flag: str,
    facts: Mapping[str, int] = MappingProxyType({}),
) -> list[Trial]:
    """Train every cell; one that diverges is recorded as such, and the others train all the same.

    Args:
        flag: of the rates; the error names it where every cell diverged.
        facts: that every row of the result shall carry.
    """
    trials = []
    for cell in cells:
        try:
            result = train(cell)
        except RateTooHigh:
            trials.append(Trial(cell=cell, result=None, row={**cell, **facts, metric: None, "outcome": "diverged"}))
        else:
            trials.append(Trial(cell=cell, result=result, row={**cell, **facts, **result.metrics}))
    if trials and all(trial.result is None for trial in trials):
        rates = " ".join(f"{lr:g}" for lr in dict.fromkeys(cell["lr"] for cell in cells))
        raise UserError(f"{flag} {rates}: every rate is too high for these weights (each diverged). Try lower ones.")
    return trials


def best(trials: Sequence[Trial], metric: str) -> Trial:
    """The first of those that scored highest."""
    return max((trial for trial in trials if trial.result is not None), key=lambda trial: float(trial.row[metric]))


def sweep(
    rates: Sequence[float],
    train: Callable[[float], TrainingResult],
    *,
    lr: float,
    choice: Literal["report", "best"],
    metric: str,
    iterations: int,
    held_out: int,
) -> Sweep:
    """Train at each rate for some iterations, scored on held-out training images.

    Args:
        lr: the rate of the recipe, taken where `choice` is to report only.
        metric: by which the best is known.
        held_out: how many images were.
    """
    facts = {"iterations": iterations, "held_out_images": held_out}
    cells = [{"lr": rate} for rate in rates]
    trials = try_cells(cells, lambda cell: train(cell["lr"]), metric=metric, flag="--lr-sweep", facts=facts)
    taken = best(trials, metric).cell["lr"] if choice == "best" else lr
    note = sweep_note(trials, iterations, choice=choice, lr=taken)
    return Sweep(lr=taken, detail={"lr_sweep": [trial.row for trial in trials]}, notes=[note])


def sweep_note(trials: Sequence[Trial], iterations: int, *, choice: str, lr: float) -> str:
    """What a reader must know of a sweep on held-out images."""
    rates = ", ".join(f"{trial.cell['lr']:g}" for trial in trials)
    how = "the best was taken" if choice == "best" else "for the record only"
    return (
        f"{plural(len(trials), 'rate')} {rates} {plural(len(trials), 'was', 'were')} tried for "
        f"{counted(iterations, 'iteration')} on held-out training images ({how}); trained at {lr:g}"
        + diverged_note(trials, before="; ")
    )


def diverged_note(trials: Sequence[Trial], before: str = "") -> str:
    """Which cells diverged, as a part of a sentence; empty where none did."""
    lost = [
        " with ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in trial.cell.items())
        for trial in trials
        if trial.result is None
    ]
    return f"{before}diverged: {', '.join(lost)}" if lost else ""
