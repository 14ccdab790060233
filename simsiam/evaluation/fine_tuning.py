"""What every supervised training of an evaluation has around it: processes, checkpoints, log, display, scoring."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from simsiam.engine import distributed
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Diverged, EpochEnd, Plan, Step, Training, fit
from simsiam.engine.logs import Display, MetricsLog
from simsiam.errors import UserError
from simsiam.wording import plural

Evaluate = Callable[[EpochEnd, MetricsLog, Display], None]


class RateTooHigh(UserError):
    """The loss is no longer a finite number."""


@contextmanager
def run_processes(device: str) -> Iterator[Process]:
    """This process among those of the run: joined here, or by the caller before."""
    if dist.is_available() and dist.is_initialized():
        yield Process(rank=dist.get_rank(), world=dist.get_world_size(), device=distributed.pick_device(device))
        return
    with distributed.processes(device) as process:
        yield process


@contextmanager
def run_folder(out: Path | None) -> Iterator[Path]:
    """The folder of checkpoints and logs; a passing one where the caller keeps nothing."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="simsiam-") as folder:
        yield Path(folder)


def share_buffers(network: nn.Module) -> None:
    """Give every process the first one's running statistics: where BatchNorm is not synchronised they differ."""
    if dist.is_available() and dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def rates_were(rates: Sequence[float]) -> str:
    """The beginning of a sentence on the rates of a search: `rates 0.1, 0.2 were`."""
    named = ", ".join(f"{lr:g}" for lr in rates)
    return f"{plural(len(rates), 'rate')} {named} {plural(len(rates), 'was', 'were')}"


def train_and_evaluate(
    training: Training,
    *,
    make_step: Callable[[], Step],
    batches: Callable[[int, int], Iterator[Any]],
    evaluate: Evaluate,
    plan: Plan,
    folder: Path,
    process: Process,
    lr: float,
    cure: str = "Lower --lr.",
) -> None:
    """Train from the folder's last checkpoint, or from the start, to the end.

    Args:
        training: as at the start; its `recipe` says what the run is, and another run's state is refused.
        make_step: called once the state is taken up.
        batches: (epoch, first step) -> the batches of that epoch from there on.
        evaluate: called after every epoch of the plan.
        folder: of checkpoints and logs.
        lr: the highest rate, named where the loss runs away, as is `cure`.

    Raises:
        RateTooHigh: the loss stopped being finite.
        UserError: the folder belongs to another run.
        engine.stopping.Interrupted: asked to stop, with the state saved.
    """
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    stored = _resume(training, checkpoints, folder)
    display = Display(plan.epochs * plan.steps_per_epoch, shows=process.is_main)
    with closing(MetricsLog(folder, writes=process.is_main)) as log:
        if stored is not None:
            log.rewind(stored["log_offset"])
        ends = fit(
            training,
            step=make_step(),
            batches=batches,
            plan=plan,
            checkpoints=checkpoints,
            log=log,
            display=display,
            process=process,
        )
        try:
            for end in ends:
                evaluate(end, log, display)
        except Diverged as error:
            raise RateTooHigh(
                f"{folder}: the {error}; the learning rate {lr:g} is too high for these weights. {cure}"
            ) from error


def _resume(training: Training, checkpoints: Checkpoints, folder: Path) -> dict[str, Any] | None:
    stored = checkpoints.latest()
    if stored is None:
        return None
    identity = training.recipe
    if stored["recipe"] != identity:
        differing = [name for name in sorted(identity) if stored["recipe"].get(name) != identity[name]] or ["recipe"]
        raise UserError(
            f"{folder}: holds the state of another run (different {', '.join(differing)}). "
            "Give another --out, or --again to start anew."
        )
    training.load(stored)
    return stored
