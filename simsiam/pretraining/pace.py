"""Pieces of work timed side by side, in turns; and the memory layout that such a measurement finds faster here."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from simsiam.config import Machine, Pretraining, as_dict, cache_folder
from simsiam.engine import distributed, precision
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Training
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.pretraining.step import optimizer_of, train_step
from simsiam.results import read_json, write_json

MOST_IMAGES = 16  # of a step that chooses a layout
TURNS = 3
WORTH_IT = 300  # steps of a run
PATIENCE = 10.0  # seconds; where one step takes longer, the usual layout is kept
CLEARLY = 1.2  # times as fast in every turn; less may be chance, and is no reason to leave the usual layout
FILE = "layouts.json"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way of doing a piece of work."""

    name: str
    images: int  # that one call handles
    call: Callable[[], object]


def alternate(sides: Sequence[Side], *, seconds: float, rounds: int, device: torch.device) -> dict[str, float]:
    """Images per second of each side: the median of rounds in which they take turns, each at least one call long."""
    pace: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        side.call()
    for _ in range(rounds):
        for side in sides:
            wait(device)
            started, calls = time.perf_counter(), 0
            while not calls or time.perf_counter() - started < seconds:
                side.call()
                calls += 1
            wait(device)  # once, as a training does not wait for each of its steps
            pace[side.name].append(calls * side.images / (time.perf_counter() - started))
    return {name: median(values) for name, values in pace.items()}


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_of(
    recipe: Pretraining, device: torch.device, *, batch: int, channels_last: bool, compiled: bool = False
) -> Callable[[], object]:
    """The recipe's step on random views and a network of its own, as a run makes it."""
    network = SimSiam(recipe.model).to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout)
    size = recipe.views.size
    x1, x2 = (torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout) for _ in range(2))
    scaler = precision.prepare(recipe.precision, device)
    training = Training(modules={}, optimizer=optimizer_of(recipe, network), recipe={}, scaler=scaler)
    forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]

    def step() -> object:
        precision.prepare(recipe.precision, device)  # another side may have set what the device computes in
        with precision.autocast(recipe.precision, device):
            return train_step(forward, x1, x2, update=training.update)

    return step


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Whether images and weights lie channels-last in memory, and why, where it was measured."""

    channels_last: bool = False
    why: str = ""


def choose_layout(recipe: Pretraining, machine: Machine, network: SimSiam, process: Process, *, steps: int) -> Layout:
    """The layout that a person names; else channels-last, but on a CPU channels-first where that is clearly faster.

    The measurement takes seconds, is made for a run of many `steps` only, by the first process for all, and is kept in
    the cache for this processor, torch, network and size. It draws no random number of the run's.
    """
    own = _layout(recipe, machine, network, process.device, steps) if process.is_main else Layout()
    return replace(own, channels_last=distributed.any_process(own.channels_last, process.device))


def _layout(recipe: Pretraining, machine: Machine, network: SimSiam, device: torch.device, steps: int) -> Layout:
    # On a CPU torch's 1x1 convolutions crash channels-last with fewer than 16 channels.
    narrow = any(isinstance(each, nn.Conv2d) and 3 < each.in_channels < 16 for each in network.modules())
    if machine.channels_last != "auto" or device.type != "cpu" or narrow:
        return Layout(channels_last=machine.wants_channels_last(device.type == "cuda"))
    if steps < WORTH_IT:
        return Layout(channels_last=True)
    file, key = cache_folder(machine.cache) / FILE, _key(recipe)
    known: dict[str, float] = {}
    with suppress(OSError, UserError, ValueError, AttributeError):
        known = {name: float(gain) for name, gain in read_json(file).items()}
    measured = key not in known
    if measured:
        known[key] = _channels_last_gain(recipe, device)
        with suppress(OSError):
            write_json(file, known)
    gain = known[key]
    last = gain > 1 / CLEARLY
    why = f"steps are {gain if last else 1 / gain:.2f} times as fast as channels-{'first' if last else 'last'}"
    when = "measured" if measured else "as measured before on this machine"
    return Layout(channels_last=last, why=f"images lie channels-{'last' if last else 'first'}: {why}, {when}")


def _channels_last_gain(recipe: Pretraining, device: torch.device) -> float:
    """How many times as fast a channels-last step is in the best of some turns; 1 where a step takes too long."""
    batch = min(recipe.batch_size, MOST_IMAGES)
    with torch.random.fork_rng(devices=[]):
        last, first = (step_of(recipe, device, batch=batch, channels_last=each) for each in (True, False))
        if _seconds(last) > PATIENCE:
            return 1.0
        first()
        return round(max(_seconds(first) / _seconds(last) for _ in range(TURNS)), 3)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _key(recipe: Pretraining) -> str:
    """What the faster layout depends on."""
    facts = [processor(), torch.__version__, torch.get_num_threads(), as_dict(recipe.model), recipe.views.size]
    text = json.dumps([*facts, recipe.precision, min(recipe.batch_size, MOST_IMAGES)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def processor() -> str:
    """The processor's name, as the system says it."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()
