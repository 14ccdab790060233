"""How fast this machine trains, makes views, decodes and embeds, beside the plain way of each, and what limits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from simsiam.config import Machine, Pretraining, loader_workers
from simsiam.data.source import Source
from simsiam.engine import precision
from simsiam.model import SimSiam
from simsiam.pretraining.bench_sides import (
    OTHER,
    TO_SCALE,
    USED,
    decoding_sides,
    embedding_sides,
    step_sides,
    view_sides,
)
from simsiam.pretraining.pace import Side, alternate


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of work: images per second by way of doing it, the plain way first."""

    title: str
    pace: dict[str, float]

    def ratios(self) -> dict[str, float]:
        """Each pace as a multiple of the first."""
        first = next(iter(self.pace.values()))
        return {name: pace / first for name, pace in self.pace.items()}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the hardware gives to the simplest program."""

    matrix_tflops: float  # product of two square matrices in the recipe's number format
    step_tflops: float  # convolutions and products of the step, at its fastest pace
    copy_gb: float  # bytes read and written by copying a large tensor, GB a second
    memory_gib: float | None  # peak of a GPU's memory


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A whole measurement."""

    parts: list[Part]
    limits: Limits
    shares: dict[str, float]  # milliseconds that one image takes at each stage of its way
    step: float  # images per second of the fastest step in the recipe's precision
    views: float  # images per second that all decoding processes make together
    notes: list[str] = field(default_factory=list)

    @property
    def conclusion(self) -> str:
        """The pace of a training here, and what sets it."""
        if self.step <= self.views:
            limit = f"the step sets the pace, decoding and views would do {self.views:,.0f}"
        else:
            limit = f"decoding and views set the pace, the step would do {self.step:,.0f}"
        return f"A training makes about {min(self.step, self.views):,.0f} images/s here: {limit}."


def measure(
    recipe: Pretraining,
    machine: Machine,
    device: torch.device,
    *,
    sources: Sequence[Source],
    seconds: float,
    rounds: int,
    compiled: bool,
    say: Callable[[str], None],
) -> Measured:
    """Time every part.

    Args:
        sources: sets of images to make views of; the first counts for the conclusion.
        seconds: of each side in each round.
        compiled: time torch.compile as well.
        say: is given a line at the beginning of each part.
    """
    notes: list[str] = []
    cpu = torch.device("cpu")
    timed = partial(alternate, seconds=seconds, rounds=rounds)
    say(f"a training step of {recipe.batch_size} images on {device}")
    sides = step_sides(recipe, device, compiled=compiled, notes=notes)
    parts = [Part(title=f"Training step of {recipe.batch_size} images", pace=timed(sides, device=device))]
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    threads = torch.get_num_threads()
    for source in sources:
        say(f"decoding and views: {source.name}")
        torch.set_num_threads(1)
        try:
            decoding = timed(decoding_sides(recipe.views, source), device=cpu)
            parts.append(Part(title=f"Decoding on one core, {source.name}", pace=decoding))
            views = timed(view_sides(recipe.views, source), device=cpu)
            parts.append(Part(title=f"Two views of {recipe.views.size} px on one core, {source.name}", pace=views))
        finally:
            torch.set_num_threads(threads)
    say("embedding, and the limits of the hardware")
    parts.append(Part(title="Embedding", pace=timed(embedding_sides(recipe, device), device=device)))
    step = max(pace for name, pace in parts[0].pace.items() if name.startswith("simsiam") and OTHER not in name)
    read, made = (next(part.pace[name] for part in parts if name in part.pace) for name in (TO_SCALE, USED))
    return Measured(
        parts=parts,
        limits=Limits(
            matrix_tflops=_matrix_flops(recipe, device, seconds) / 1e12,
            step_tflops=_step_flops(recipe) * step / 1e12,
            copy_gb=_copied_bytes(device, seconds) / 1e9,
            memory_gib=memory,
        ),
        shares={
            "decoding, one core": 1000 / read,
            "crops and colours, one core": 1000 * max(0.0, 1 / made - 1 / read),
            f"training step, {device}": 1000 / step,
        },
        step=step,
        views=made * max(1, loader_workers(machine)),
        notes=notes,
    )


def _step_flops(recipe: Pretraining) -> float:
    """Operations of a step on one image: forward of two views, and backward, which costs twice as much."""
    from torch.utils.flop_counter import FlopCounterMode

    network = SimSiam(recipe.model)
    x = torch.randn(2, 3, recipe.views.size, recipe.views.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, x)
    return 3 * float(counter.get_total_flops()) / len(x)


def _matrix_flops(recipe: Pretraining, device: torch.device, seconds: float) -> float:
    """Operations a second of the product of two square matrices in the recipe's number format."""
    side = 4096 if device.type == "cuda" else 1024
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
    precision.prepare(recipe.precision, device)
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return float(2 * side**3) * _a_second(lambda: a @ b, device, seconds)


def _copied_bytes(device: torch.device, seconds: float) -> float:
    """Bytes a second that copying a large tensor reads and writes."""
    whole = torch.zeros(2**26, device=device)  # 256 MiB
    other = torch.empty_like(whole)
    return 2 * whole.numel() * whole.element_size() * _a_second(lambda: other.copy_(whole), device, seconds)


def _a_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    side = Side(name="", images=1, call=call)
    return alternate([side], seconds=seconds / 4, rounds=3, device=device)[""]
