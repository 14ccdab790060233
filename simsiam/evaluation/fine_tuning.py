"""The one runner of supervised trainings: linear heads, fine-tuned networks, segmentors and detectors go through it.

A kind of training brings its network, step, batches and scoring; everything around them stands here: the processes,
the folder, checkpoints and resuming, the estimate, the display, when to score, what is kept, and what a loss that
stops being finite is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from simsiam.backbones import parameter_bytes
from simsiam.engine import distributed
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Diverged, EpochEnd, Plan, Step, Training, fit
from simsiam.engine.logs import Display, MetricsLog
from simsiam.engine.precision import kept_bytes
from simsiam.engine.stopping import Interrupted, StopAsked, StopRequest, stop_requests
from simsiam.errors import UserError
from simsiam.evaluation.place import Place
from simsiam.wording import counted, duration

MEASURED_STEPS = 3  # for the estimate; the first warms up
WORTH_MEASURING = 60  # steps; a shorter training is over before an estimate of it helps
LONG = 2 * 3600.0  # seconds of a training on a CPU, from which a shorter one is named
GIB = 2**30
T = TypeVar("T")


class RateTooHigh(UserError):
    """The training diverged: its loss is no longer a finite number."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The figures of a network as it stands."""

    metrics: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)  # by class, confusion and the like


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The reported scoring, and all of them."""

    metrics: dict[str, float]
    detail: dict[str, Any]  # of the reported scoring, with its epoch or iteration and the history of all


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A scoring as a person follows it: progress is shown, and a wish to stop is granted between two batches."""

    step: int  # of the training
    display: Display
    process: Process
    request: StopRequest

    def over(self, items: Iterable[T], total: int, what: str = "scoring: image", *, each: int = 1) -> Iterator[T]:
        """The items, all of which must be asked for, `each` images apiece.

        Every process must go through its share: at the end all of them agree on stopping.
        """
        for done, item in enumerate(items, 1):
            yield item
            self.display.update(self.step, f"{what} {min(done * each, total):,} of {total:,}")
            if self.request.asked:
                break
        self.check()

    def check(self) -> None:
        """Leave the scoring where any process was asked to stop; all must call it together."""
        if distributed.any_process(self.request.asked, self.process.device):
            raise StopAsked(self.request.signal_number)


@dataclass(frozen=True, kw_only=True)
class Smaller:
    """Another way to train the same that suits a CPU."""

    flag: str  # that takes it
    share: float  # of the time, at most


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """One supervised training, as its kind describes it.

    Args:
        step: called once the state is taken up.
        batches: (epoch, first step) -> the batches of that epoch from there on.
        score: measures the network as it stands; all processes call it together and get the same figures.
        lr: the highest rate, named where the training diverges, as is `cure`.
        scored_every: epochs of the plan from one scoring to the next; the last one is always scored.
        keep: which scoring is reported; best: the highest `metric`.
        module: what the network is called in a checkpoint.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    plan: Plan
    step: Callable[[Training], Step]
    batches: Callable[[int, int], Iterator[Any]]
    score: Callable[[Watch], Scored]
    lr: float
    metric: str
    cure: str = "Lower --lr, or let --lr-sweep try several."
    scored_every: int = 1
    keep: Literal["last", "best"] = "last"
    module: str = "network"
    learns: str = ""  # what, in words for a person
    smaller: Smaller | None = None  # what to take where a CPU needs long; None: fewer steps

    def run(self, place: Place) -> TrainingResult:
        """Train from the folder's last checkpoint, or from the start, to the end.

        Raises:
            RateTooHigh: the loss stopped being finite.
            UserError: the folder belongs to another run.
            engine.stopping.Interrupted: asked to stop, with the state saved.
        """
        process, folder, plan = place.process, place.folder, self.plan
        training = Training(
            modules={self.module: self.network},
            optimizer=self.optimizer,
            recipe=place.identity,
            extra={"history": [], "kept": None},
        )
        checkpoints = Checkpoints(folder / "checkpoints", keep=2)
        stored = self._resume(training, checkpoints, folder)
        display = Display(plan.epochs * plan.steps_per_epoch, shows=process.is_main)
        with closing(MetricsLog(folder, writes=process.is_main)) as log, stop_requests() as request:
            if stored is not None:
                log.rewind(stored["log_offset"])
            step = self.step(training)
            for line in self._estimate(training, step, process):
                display.say(line)
            ends = fit(
                training,
                step=step,
                batches=self.batches,
                plan=plan,
                checkpoints=checkpoints,
                log=log,
                display=display,
                process=process,
            )
            try:
                for end in ends:
                    if end.epoch % self.scored_every == 0 or end.epoch == plan.epochs:
                        watch = Watch(step=end.global_step, display=display, process=process, request=request)
                        self._score(training, end, watch, log, checkpoints)
            except Diverged as error:
                raise RateTooHigh(
                    f"{folder}: diverged ({error}). The learning rate {self.lr:g} is too high for these weights. "
                    f"{self.cure}"
                ) from error
        assert training.extra is not None
        kept = training.extra["kept"]
        return TrainingResult(
            metrics=kept["metrics"],
            detail={**kept["detail"], **kept["at"], "history": training.extra["history"]},
        )

    def _resume(self, training: Training, checkpoints: Checkpoints, folder: Path) -> dict[str, Any] | None:
        stored = checkpoints.latest()
        if stored is None:
            return None
        identity = training.recipe
        if stored["recipe"] != identity:
            differing = [name for name in sorted(identity) if stored["recipe"].get(name) != identity[name]]
            raise UserError(
                f"{folder}: holds the state of another run (different {', '.join(differing or ['recipe'])}). "
                "Give another --out, or --again to start over."
            )
        training.load(stored)
        assert training.extra is not None
        kept = training.extra.get("kept")
        if kept is not None and "at" not in kept:  # as version 0 wrote it
            kept = {**kept, "at": {"epoch": kept["epoch"]}} if "epoch" in kept else None
        training.extra["kept"] = kept
        if kept is None and training.epoch == self.plan.epochs:  # trained to the end, and to be scored once more
            training.epoch, training.step = training.epoch - 1, self.plan.steps_per_epoch
        return stored

    def _score(
        self, training: Training, end: EpochEnd, watch: Watch, log: MetricsLog, checkpoints: Checkpoints
    ) -> None:
        try:
            scored = self.score(watch)
        except StopAsked as asked:
            # Saved as before the scoring: the same command scores these weights again and trains on.
            training.epoch, training.step = end.epoch - 1, self.plan.steps_per_epoch
            if watch.process.is_main:
                checkpoints.save(training.state(log.offset), global_step=end.global_step)
            distributed.barrier()
            saved = f"{checkpoints.folder} at step {end.global_step:,}"
            raise Interrupted(asked.signal_number, saved) from None
        at = {"epoch": end.epoch} if self.plan.schedule_by == "epoch" else {"iteration": end.global_step}
        extra = training.extra
        assert extra is not None
        extra["history"].append({**at, **scored.metrics})
        kept = extra["kept"]
        if self.keep == "last" or kept is None or scored.metrics[self.metric] > kept["metrics"][self.metric]:
            extra["kept"] = {"at": at, "metrics": scored.metrics, "detail": scored.detail}
        place = {"epoch": end.epoch} if "epoch" in at else {"step": end.global_step}
        log.write("evaluation", **place, **scored.metrics)
        shown = "  ".join(f"{name} {value:.2f}" for name, value in scored.metrics.items())
        watch.display.say(f"{' '.join(f'{unit} {number:,}' for unit, number in at.items())}: {shown}")

    def _estimate(self, training: Training, step: Step, process: Process) -> list[str]:
        """What is learnt and what is left to train; where it is long, a few steps are measured.

        Everything is put back as it was.
        """
        plan = self.plan
        left = plan.epochs * plan.steps_per_epoch - (training.epoch * plan.steps_per_epoch + training.step)
        if not left:
            return []
        count = sum(each.numel() for group in self.optimizer.param_groups for each in group["params"])
        said = [f"to be learnt: {self.learns}, {counted(count, 'weight')}"] if self.learns else []
        line = f"{counted(left, 'step')} of {counted(plan.images_per_step, 'image')} on {process.device}"
        if left < WORTH_MEASURING:
            return [*said, line]
        seconds, memory = self._measured(training, step, process.device)
        whole = left * seconds
        done_by = time.strftime("%a %H:%M", time.localtime(time.time() + whole))
        size = f"{memory / GIB:.1f} GiB" if memory >= GIB else f"{memory / 2**20:.0f} MiB"
        said.append(
            f"{line}; {1000 * seconds:,.0f} ms a step measured; {size} of memory at least; about {duration(whole)}, "
            f"scoring not counted: done by {done_by}"
        )
        if process.device.type == "cpu" and whole > LONG:
            fewer = f"--iterations {int(left * LONG / whole):,} would take {duration(LONG)}"
            what = fewer if plan.schedule_by == "step" else "fewer --epochs or a smaller --size shorten it"
            if self.smaller is not None:
                what = f"{self.smaller.flag} takes {duration(whole * self.smaller.share)} at most"
            said.append(f"that is long for a CPU: {what}")
        return said

    def _measured(self, training: Training, step: Step, device: torch.device) -> tuple[float, int]:
        """Seconds of a step, the same number of steps in every process, and the bytes that a step takes."""
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.network.state_dict().items()}
        state = self.optimizer.state_dict()
        moments = {
            row: {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in kept.items()}
            for row, kept in state["state"].items()
        }
        groups = [dict(group) for group in state["param_groups"]]
        epoch = min(training.epoch, self.plan.epochs - 1)
        times: list[float] = []
        kept: dict[int, int] = {}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            stream = self.batches(epoch, 0)
            for number, batch in zip(range(MEASURED_STEPS), stream, strict=False):
                started = time.monotonic()
                with nullcontext() if number else kept_bytes(kept):
                    step(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.monotonic() - started)
        # on the CPU: weights, gradients and momentum, and what the backward pass needs
        memory = 3 * parameter_bytes(self.network) + sum(kept.values())
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        self.optimizer.zero_grad(set_to_none=True)
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        timed = times[1:] or times
        return sum(timed) / len(timed), memory


def share_buffers(network: nn.Module) -> None:
    """Give every process the first one's running statistics: where BatchNorm is not synchronised they differ."""
    if dist.is_available() and dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
