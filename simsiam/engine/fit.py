"""The one training loop. Each kind of training brings a `step`; the caller's own code runs at each epoch's end.

    for end in fit(training, step=step, batches=loader.epoch, plan=plan, ...):
        ...  # evaluate, decide; `break` stops the run

Everything random in a step is a function of seed, epoch and step, so a run that was killed anywhere resumes from
its last checkpoint to the same weights, bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simsiam.engine import distributed, optimizers
from simsiam.engine.checkpoints import Checkpoints, Position
from simsiam.engine.logs import Display, MetricsLog
from simsiam.engine.optimizers import Schedule
from simsiam.engine.stopping import Interrupted, StopRequest, stop_requests


class Diverged(Exception):
    """The loss, or a weight, is no longer a finite number."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, at which rates, and how often to write.

    `schedule` maps a position to a factor of the initial rate; `schedule_by` says whether the position is the
    number of whole epochs done, the fractional epoch, or the global step.
    """

    epochs: int
    steps_per_epoch: int
    schedule: Schedule
    schedule_by: str  # "epoch", "fraction" or "step"
    images_per_step: int  # over all devices
    log_every: int = 10  # steps
    checkpoint_every: int = 1  # epochs
    checkpoint_minutes: float = 5.0  # within an epoch


@dataclass
class Training:
    """Everything that changes while training, and nothing else: what a checkpoint holds."""

    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    recipe: dict[str, Any]
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch under way
    extra: dict[str, Any] | None = None  # JSON-like facts of the caller's, kept in checkpoints

    def state(self, log_offset: int) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "recipe": self.recipe,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "epoch": self.epoch,
            "step": self.step,
            "log_offset": log_offset,
            "extra": self.extra or {},
            "torch": str(torch.__version__),
        }

    def load(self, content: dict[str, Any]) -> Position:
        """Take up the state of a checkpoint; shapes and names must agree in full."""
        for name, module in self.modules.items():
            module.load_state_dict(content["modules"][name], strict=True)
        self.optimizer.load_state_dict(content["optimizer"])
        if self.scaler is not None and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.step, self.extra = content["epoch"], content["step"], content["extra"]
        return Position(epoch=self.epoch, step=self.step)

    def finite(self) -> bool:
        """Whether every weight and running statistic is a finite number."""
        values = [value for module in self.modules.values() for value in module.state_dict().values()]
        return bool(torch.stack([torch.isfinite(value).all() for value in values]).all()) if values else True

    def update(self, loss: Tensor) -> None:
        """One optimiser step down the gradient of `loss`."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What `fit` tells at the end of an epoch."""

    epoch: int  # whole epochs done
    global_step: int
    means: dict[str, float]  # of what `step` returned, over the logged stretches of this epoch
    images_per_second: float
    data_wait: float  # share of the time spent waiting for data, 0 to 1


Step = Callable[[Any], dict[str, Tensor]]  # a batch -> detached scalars, "loss" among them


def fit(
    training: Training,
    *,
    step: Step,
    batches: Callable[[int, int], Iterator[Any]],
    plan: Plan,
    checkpoints: Checkpoints,
    log: MetricsLog,
    display: Display,
    process: distributed.Process,
) -> Iterator[EpochEnd]:
    """Train from where `training` stands to the last epoch, yielding after each.

    Args:
        step: trains on one batch.
        batches: (epoch, first step) -> the batches of that epoch from there on.

    Raises:
        Interrupted: asked to stop (engine/stopping.py); the state is saved.
        Diverged: the loss is not finite, or the weights are not at the end of an epoch.
    """
    total = plan.steps_per_epoch
    display.start(training.epoch * total + training.step)
    saver = _Saver(training, checkpoints, log, plan, process)
    try:
        with stop_requests() as request:
            while training.epoch < plan.epochs:
                meter = _Meter(plan, process)
                stream = batches(training.epoch, training.step)
                while training.step < total:
                    batch = meter.wait_for(stream)
                    optimizers.set_lr(training.optimizer, _factor(plan, training))
                    meter.add(step(batch))
                    training.step += 1
                    done = training.epoch * total + training.step
                    if training.step % plan.log_every == 0 or training.step == total:
                        row = meter.row()
                        _record(row, training, plan, log, display, done)
                    saver.after_step(request, done)
                if distributed.any_process(not training.finite(), process.device):
                    raise Diverged((training.epoch + 1) * total, "weights that are not finite")
                training.epoch, training.step = training.epoch + 1, 0
                yield meter.end(training.epoch, training.epoch * total)
                saver.after_epoch(request, training.epoch * total)
    finally:
        display.stop()


def _factor(plan: Plan, training: Training) -> float:
    position = {
        "epoch": float(training.epoch),
        "fraction": training.epoch + training.step / plan.steps_per_epoch,
        "step": float(training.epoch * plan.steps_per_epoch + training.step),
    }[plan.schedule_by]
    return plan.schedule(position)


def _record(
    row: dict[str, float], training: Training, plan: Plan, log: MetricsLog, display: Display, done: int
) -> None:
    """One row of numbers to the log and the display; raises Diverged when the loss is not finite."""
    lrs = optimizers.rates(training.optimizer)
    names = {f"{name}_lr" if position else "lr": lr for position, (name, lr) in enumerate(lrs.items())}
    epoch = training.epoch + training.step / plan.steps_per_epoch
    log.write("step", epoch=round(epoch, 4), step=done, **row, **names)
    text = f"epoch {training.epoch + 1}/{plan.epochs} step {training.step}/{plan.steps_per_epoch}  "
    text += "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key not in _PACE)
    text += f"  {row['images_per_second']:,.0f} images/s  waiting for data {row['data_wait']:.0%}"
    display.update(done, text)
    if not math.isfinite(row["loss"]):
        raise Diverged(done, f"loss {row['loss']}")


_PACE = ("images_per_second", "data_wait")


class _Meter:
    """Sums of what the steps return (on the device, so that no step waits for another) and of time."""

    def __init__(self, plan: Plan, process: distributed.Process) -> None:
        self._plan, self._process = plan, process
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._waited, self._since = 0.0, time.monotonic()
        self._rows: list[tuple[int, float, dict[str, float]]] = []

    def wait_for(self, stream: Iterator[Any]) -> Any:
        before = time.monotonic()
        batch = next(stream)
        self._waited += time.monotonic() - before
        return batch

    def add(self, numbers: dict[str, Tensor]) -> None:
        for key, value in numbers.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value.clone()
        self._count += 1

    def row(self) -> dict[str, float]:
        """The means since the last row, over all processes, and the pace."""
        stacked = torch.stack([value.float() for value in self._sums.values()]) / self._count
        means = distributed.mean_over_processes(stacked).tolist()
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        row = dict(zip(self._sums, means, strict=True))
        row["images_per_second"] = round(self._count * self._plan.images_per_step / seconds, 2)
        row["data_wait"] = round(min(self._waited / seconds, 1.0), 4)
        self._rows.append((self._count, seconds, row))
        self._sums, self._count, self._waited, self._since = {}, 0, 0.0, now
        return row

    def end(self, epoch: int, global_step: int) -> EpochEnd:
        steps = sum(count for count, _, _ in self._rows)
        seconds = sum(part for _, part, _ in self._rows)
        keys = [key for key in (self._rows[0][2] if self._rows else {}) if key not in _PACE]
        return EpochEnd(
            epoch=epoch,
            global_step=global_step,
            means={key: sum(c * row[key] for c, _, row in self._rows) / steps for key in keys},
            images_per_second=steps * self._plan.images_per_step / seconds if seconds else 0.0,
            data_wait=sum(part * row["data_wait"] for _, part, row in self._rows) / seconds if seconds else 0.0,
        )


class _Saver:
    """When to write a checkpoint, and how a wish to stop is granted."""

    def __init__(
        self,
        training: Training,
        checkpoints: Checkpoints,
        log: MetricsLog,
        plan: Plan,
        process: distributed.Process,
    ) -> None:
        self._training, self._checkpoints, self._log = training, checkpoints, log
        self._plan, self._process = plan, process
        self._last = time.monotonic()

    def after_step(self, request: StopRequest, done: int) -> None:
        # On GPUs processes agree on stopping every tenth step only: the exchange costs a wait for the device.
        quick = self._process.world == 1 or self._process.device.type == "cpu"
        if not quick and done % 10 and self._training.step < self._plan.steps_per_epoch:
            return
        if self._training.step == self._plan.steps_per_epoch:
            return  # the epoch's end saves after the caller's evaluation
        minutes = (time.monotonic() - self._last) / 60
        if distributed.any_process(request.asked, self._process.device):
            self._stop(request, done)
        if distributed.any_process(minutes >= self._plan.checkpoint_minutes, self._process.device):
            self._save(done)

    def after_epoch(self, request: StopRequest, done: int) -> None:
        if distributed.any_process(request.asked, self._process.device):
            self._stop(request, done)
        last = self._training.epoch == self._plan.epochs
        if last or self._training.epoch % self._plan.checkpoint_every == 0:
            self._save(done)

    def _save(self, done: int) -> str:
        if self._process.is_main:
            self._checkpoints.save(self._training.state(self._log.offset), global_step=done)
        self._last = time.monotonic()
        return f"{self._checkpoints.folder} at step {done:,}"

    def _stop(self, request: StopRequest, done: int) -> None:
        where = self._save(done)
        distributed.barrier()
        raise Interrupted(request.signal_number, where)
