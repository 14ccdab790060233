"""What a run will take, measured before it starts: steps, time, memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simsiam.backbones import parameter_bytes
from simsiam.engine import distributed
from simsiam.model import SimSiam
from simsiam.wording import counted, duration

MEASURED_STEPS = 4  # the first warms up
LONG_ENOUGH = 20.0  # seconds; a slow machine measures fewer steps
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The estimate of a run."""

    images: int
    steps_per_epoch: int
    epochs: int
    seconds_per_step: float
    memory_gib: float  # per device: weights, gradients, momentum, kept activations

    @property
    def seconds(self) -> float:
        """Of the whole run, evaluations not counted."""
        return self.seconds_per_step * self.steps_per_epoch * self.epochs

    def line(self, device: torch.device) -> str:
        """The estimate as one line for a person."""
        memory = f"{self.memory_gib:.1f} GiB" if self.memory_gib >= 1 else f"{self.memory_gib * 1024:.0f} MiB"
        finish = time.strftime("%a %H:%M", time.localtime(time.time() + self.seconds))
        return (
            f"{counted(self.images, 'image')}, {counted(self.epochs, 'epoch')} x "
            f"{counted(self.steps_per_epoch, 'step')} on {device}; "
            f"about {memory}; {self.seconds_per_step * 1000:,.0f} ms a step measured; "
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
) -> Preflight:
    """Time a few real steps on a copy of the network, so that nothing of the run itself changes.

    Of several processes all make the same number of steps, however slow one of them is.
    """
    probe = copy.deepcopy(network)
    kept: dict[int, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[float] = []
    started = time.monotonic()
    for batch in batches:
        begun = time.monotonic()
        with nullcontext() if times else _kept(kept):
            step(probe, batch, lambda loss: loss.backward())  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.monotonic() - begun)
        # SyncBatchNorm makes the processes meet in every step, so they must all make the same number of them.
        late = distributed.any_process(time.monotonic() - started > LONG_ENOUGH, device)
        if late or len(times) >= MEASURED_STEPS:
            break
    if device.type == "cuda":
        # the run's optimiser adds one momentum buffer to what was seen
        memory = torch.cuda.max_memory_allocated(device) + parameter_bytes(network)
    else:
        memory = 3 * parameter_bytes(network) + sum(kept.values())
    timed = times[1:] or times
    return Preflight(
        images=images,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        seconds_per_step=sum(timed) / len(timed),
        memory_gib=memory / GIB,
    )


def _kept(sizes: dict[int, int]) -> AbstractContextManager[object]:
    """Notes the bytes that autograd keeps for the backward pass, each storage once, by its address."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
