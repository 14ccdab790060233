"""`simsiam bench`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say
from simsiam.config import Machine, cache_folder
from simsiam.limits import Count, Positive, Workers

if TYPE_CHECKING:
    from simsiam.pretraining.bench import Measured

OUT = Path("runs/bench")
FILES = ("bench.json", "where-the-time-goes.png", "where-the-time-goes.svg")
USUAL_PHOTO, PHONE_PHOTO = 0.1875, 12.0  # megapixels: 500 x 375 as ImageNet's, and a phone's
SAMPLE = 32  # images of a person's own


@dataclass(frozen=True, kw_only=True)
class Command:
    """Measure how fast this machine trains, makes views, decodes and embeds, beside the plain way of each.

    The sides take turns in one run, so their ratios hold where other programs run too. It takes a minute or two, and
    says what limits a training here. The figures are also written to bench.json, with a picture of where the time goes.
    """

    # Your images; without any, two photographs at 500 x 375 pixels and at 12 megapixels.
    data: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[DATA]")] = None
    recipe: str | None = None  # Whose network and views; by default the one chosen for the data and device.
    batch_size: Count | None = None  # Images in a step; by default the recipe's.
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = None  # Number format; by default the recipe's.
    compile: Literal["on", "off"] = "off"  # Measure torch.compile too, which takes minutes to begin.
    seconds: Positive = 2.0  # Seconds that each side runs in each round.
    rounds: Count = 3  # Rounds, of which the median counts.
    epoch: int = 0  # Images of an epoch: also print how long one takes.
    device: str = "auto"  # Where to compute: auto, cpu, cuda, cuda:N or mps.
    workers: Workers = -1  # Processes that decode images; -1: one fewer than the CPU cores, at most 8.
    out: Path = OUT  # Output folder.


def run(arguments: list[str]) -> int:
    """Measure and print."""
    command = read_line(Command, arguments, prog="simsiam bench")
    import torch

    from simsiam.data.sources import kind_of, open_source
    from simsiam.engine.distributed import pick_device
    from simsiam.pretraining.bench import measure
    from simsiam.pretraining.bench_sides import photographs
    from simsiam.pretraining.library import choose_recipe
    from simsiam.pretraining.pace import processor
    from simsiam.report.plots import time_shares, write_plots
    from simsiam.results import versions, write_json

    device = pick_device(command.device)
    recipe = choose_recipe(command.recipe, command.data, device=command.device, fit=False)
    wanted: dict[str, Any] = {"batch_size": command.batch_size, "precision": command.precision}
    recipe = dataclasses.replace(recipe, **{name: value for name, value in wanted.items() if value is not None})
    read = [Path(command.data)] if command.data is not None and Path(command.data).exists() else []
    with ExitStack() as held:
        held.enter_context(claims.claim(command.out, command="bench", makes=FILES, inputs=read))
        if command.data is None:
            sources = [held.enter_context(photographs(megapixels)) for megapixels in (USUAL_PHOTO, PHONE_PHOTO)]
        else:
            named = command.data == "cifar10"
            source = open_source(
                command.data, kind="cifar10" if named else kind_of(command.data), cache=cache_folder(None)
            )
            sources = [source.subset(range(min(len(source), SAMPLE)))]
        found = measure(
            recipe,
            Machine(workers=command.workers),
            device,
            sources=sources,
            seconds=command.seconds,
            rounds=command.rounds,
            compiled=command.compile == "on",
            say=say,
        )
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        about = {"recipe": recipe.name, "device": name, "threads": torch.get_num_threads(), "versions": versions()}
        write_json(command.out / FILES[0], {**about, **dataclasses.asdict(found)})
        title = f"Where the time goes: {recipe.name}, {recipe.views.size} px"
        write_plots({FILES[1].partition(".")[0]: time_shares(found.shares, title=title)}, command.out)
    print(f"{recipe.name}: {recipe.model.backbone} at {recipe.views.size} px, {recipe.precision}, {device} ({name})")
    _print(found, command.epoch)
    print(f"\nfigures: {command.out / FILES[0]}\npicture: {command.out / FILES[1]}")
    return 0


def _print(found: Measured, epoch: int) -> None:
    for part in found.parts:
        print(f"\n{part.title}")
        for name, ratio in part.ratios().items():
            pace = part.pace[name]
            whole = f"  {epoch / pace:,.1f} s an epoch" if epoch and part is found.parts[0] else ""
            print(f"  {name:<52} {pace:>10,.1f} images/s  x{ratio:.2f}{whole}")
    limits = found.limits
    step, matrix = 1000 * limits.step_tflops, 1000 * limits.matrix_tflops
    print(
        f"\nLimits\n  the step's convolutions and products: {step:,.0f} GFLOP/s, {step / matrix:.0%} of the "
        f"{matrix:,.0f} of a bare matrix product\n  copying memory: {limits.copy_gb:.1f} GB/s"
    )
    if limits.memory_gib is not None:
        print(f"  peak memory of the GPU: {limits.memory_gib:.2f} GiB")
    print(f"\n{found.conclusion}")
    for note in found.notes:
        print(f"note: {note}")
