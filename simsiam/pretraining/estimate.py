"""What a run will take, measured before it starts: steps, time, memory."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simsiam.backbones import parameter_bytes
from simsiam.config import Machine, Pretraining
from simsiam.data.two_views.loader import Batch, ViewLoader
from simsiam.engine import distributed, precision
from simsiam.engine.distributed import Process
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.pretraining.inputs import Inputs, open_loader, open_monitor, start_network, workers
from simsiam.pretraining.step import train_step
from simsiam.wording import counted, duration

MEASURED_STEPS = 4  # the first warms up
LONG_ENOUGH = 20.0  # seconds; a slow machine measures fewer steps
CHECKS_AT_THE_END = 6  # what comparison, pictures and report take, in checks of the monitor
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The estimate of a run."""

    images: int
    steps_per_epoch: int
    epochs: int
    seconds_per_step: float
    memory_gib: float  # per device: weights, gradients, momentum, kept activations
    steps: int  # that were made to measure it
    first_seconds_per_step: float = 0.0  # of the first epoch, where it decodes photos for those that follow

    @property
    def extra(self) -> float:
        """Seconds that the first epoch takes more than another."""
        return max(0.0, self.first_seconds_per_step - self.seconds_per_step) * self.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Of the whole run, evaluations not counted."""
        return self.seconds_per_step * self.steps_per_epoch * self.epochs + self.extra

    def line(self, device: torch.device) -> str:
        """The estimate as one line for a person."""
        memory = f"{self.memory_gib:.1f} GiB" if self.memory_gib >= 1 else f"{self.memory_gib * 1024:.0f} MiB"
        first = f" ({self.first_seconds_per_step * 1000:,.0f} in the first epoch)" if self.extra else ""
        finish = time.strftime("%a %H:%M", time.localtime(time.time() + self.seconds))
        return (
            f"{counted(self.images, 'image')}, {counted(self.epochs, 'epoch')} x "
            f"{counted(self.steps_per_epoch, 'step')} on {device}; "
            f"about {memory}; {self.seconds_per_step * 1000:,.0f} ms a step measured{first}; "
            f"about {duration(self.seconds)}, done by {finish}"
        )


def measure(
    network: SimSiam,
    batches: Iterator[Any],
    step: Callable[[SimSiam, Any, Callable[[Tensor], None]], dict[str, Tensor]],
    *,
    images: int,
    steps_per_epoch: int,
    epochs: int,
    device: torch.device,
    queued: int = 0,
) -> Preflight:
    """Time a few real steps, waiting for data included, on a copy of the network: nothing of the run itself changes.

    The first `queued` batches after the first were made while nothing trained, and do not count where others do.
    Of several processes all make the same number of steps, however slow one of them is.
    """
    probe = copy.deepcopy(network)
    kept: dict[int, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[float] = []
    started = time.monotonic()
    begun = started
    for batch in batches:
        with nullcontext() if times else precision.kept_bytes(kept):
            step(probe, batch, lambda loss: loss.backward())  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.monotonic()
        times.append(now - begun)
        begun = now
        # SyncBatchNorm makes the processes meet in every step, so they must all make the same number of them.
        late = distributed.any_process(time.monotonic() - started > LONG_ENOUGH, device)
        if late or len(times) >= MEASURED_STEPS + queued:
            break
    if device.type == "cuda":
        # the run's optimiser adds one momentum buffer to what was seen
        memory = torch.cuda.max_memory_allocated(device) + parameter_bytes(network)
    else:
        memory = 3 * parameter_bytes(network) + sum(kept.values())
    timed = times[1 + queued :] or times[1:] or times
    return Preflight(
        images=images,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        seconds_per_step=sum(timed) / len(timed),
        memory_gib=memory / GIB,
        steps=len(times),
    )


def of_loader(
    network: SimSiam,
    loader: ViewLoader,
    step: Callable[[SimSiam, Any, Callable[[Tensor], None]], dict[str, Tensor]],
    *,
    epochs: int,
    first: int = 0,
    queued: int = 0,
) -> Preflight:
    """The estimate by a loader's batches from step `first` on; where photos are decoded once, by them again as well."""
    about: dict[str, Any] = {"images": len(loader.source), "steps_per_epoch": loader.steps, "epochs": epochs}
    found = measure(network, loader.epoch(0, first), step, device=loader.device, queued=queued, **about)
    if loader.source.photos is None:
        return found
    again = [loader.request(0, first + number) for number in range(found.steps)]
    later = measure(network, loader.batches(again), step, device=loader.device, **about)
    return dataclasses.replace(later, first_seconds_per_step=found.seconds_per_step)


def of_recipe(recipe: Pretraining, inputs: Inputs, machine: Machine, process: Process) -> Preflight:
    """The estimate of a whole run, by a network and a loader of its own."""
    network = start_network(recipe, None).network.to(process.device)
    loader = open_loader(recipe, machine, inputs, process, channels_last=False)

    def step(network: nn.Module, batch: Batch, update: Callable[[Tensor], None]) -> dict[str, Tensor]:
        with precision.autocast(recipe.precision, process.device):
            return train_step(network, batch.x1, batch.x2, update=update)

    queued = 2 * workers(machine, inputs.train, process.world)
    # by the last steps: the run measures the first ones, whose photos shall not be decoded by then
    first = max(0, loader.steps - MEASURED_STEPS - queued)
    found = of_loader(network, loader, step, epochs=recipe.epochs, first=first, queued=queued)
    loader.close()
    return found


def fitted(recipe: Pretraining, inputs: Inputs, machine: Machine, process: Process, *, minutes: float) -> Pretraining:
    """The recipe with as many epochs as `minutes` hold, the checks and the end of the run included.

    The demo takes fewer images than there are where that fills the time better than whole epochs of them all do.

    Raises UserError where not one epoch fits.
    """
    begun = time.monotonic()
    pace = of_recipe(recipe, inputs, machine, process)
    checked = time.monotonic()
    if process.is_main:
        monitor, network = open_monitor(recipe, machine, inputs, process), start_network(recipe, None).network
        for _ in range(1 if inputs.photo_side is None else 2):  # the first decodes the photos
            checked = time.monotonic()
            monitor.check(network.to(process.device))
    now = time.monotonic()
    epoch, check, spent, extra = (
        max(distributed.gathered([each]))
        for each in (pace.seconds_per_step * pace.steps_per_epoch, now - checked, now - begun, pace.extra)
    )
    # the run measures steps and start once more
    left = 60 * minutes - 2 * spent - extra - CHECKS_AT_THE_END * check

    def checked_every(epochs: int) -> int:
        return max(1, epochs // 20)

    def takes(epochs: int) -> float:
        return epochs * epoch + math.ceil(epochs / checked_every(epochs)) * check

    epochs = next((each for each in range(int(left / epoch), 0, -1) if takes(each) <= left), 0)
    images = len(inputs.train)
    if recipe.data_kind == "demo":  # one epoch more, of fewer images, fills the time
        part = (left - takes(epochs + 1)) / ((epochs + 1) * epoch) + 1
        if part * images >= recipe.batch_size:
            epochs, images, epoch = epochs + 1, int(part * images), part * epoch
            recipe = dataclasses.replace(recipe, train_images=images)
    if not epochs:
        least = math.ceil((60 * minutes - left + takes(1)) / 60)
        raise UserError(
            f"--minutes {minutes:g}: too few for one epoch, which takes about {duration(epoch)} here, with the checks "
            f"and the end. Give --minutes {least} or more, or fewer images with --train-images."
        )
    if process.is_main:
        length = f"{counted(epochs, 'epoch')} of {counted(images, 'image')}"
        text = f"--minutes {minutes:g}: {length}, about {duration(epoch)} each as measured"
        print(f"{text}; the rest is for checks and the end of the run", file=sys.stderr)
    return dataclasses.replace(
        recipe, epochs=epochs, monitor_every=checked_every(epochs), checkpoint_every=max(1, epochs // 50)
    )
