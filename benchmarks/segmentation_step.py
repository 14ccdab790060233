"""Seconds, images a second and peak memory of the training step of a segmentation recipe, at its published size.

    python benchmarks/segmentation_step.py --recipe segmentation-voc12aug --batch 2              # CPU: 512 x 512
    python benchmarks/segmentation_step.py --recipe segmentation-cityscapes --batch 2            # CPU: 769 x 769
    python benchmarks/segmentation_step.py --recipe segmentation-voc12aug --batch 16 --device cuda

On a GPU fp32 and bf16 with channels_last take turns in one run. A ResNet-50 with random weights on random pixels: the
step is the same. Data loading is not in it; `--data DIR` also times the crops of one worker (a VOC2012 or Cityscapes
folder). One recipe a run, since the peak memory of a process never falls.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from simsiam.backbones import build_backbone
from simsiam.data.segmentation.transforms import augment
from simsiam.engine import optimizers, precision
from simsiam.engine.distributed import pick_device
from simsiam.engine.optimizers import Group
from simsiam.evaluation.segmentation.segmentor import Segmentor, segmentation_loss
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.recipes.segmentation import find


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What a step took; on a machine that other programs use too, the CPU time says more."""

    passed: float
    busy: float  # of this process's threads together


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="segmentation-voc12aug", choices=("segmentation-voc12aug", "segmentation-cityscapes")
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each round")
    parser.add_argument("--rounds", type=int, default=1, help="the number formats take turns this often")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="also time the random crops of this data set")
    options = parser.parse_args()
    device = pick_device(options.device)
    settings = find(options.recipe, None).segmentation
    formats = {"fp32": False} if device.type == "cpu" else {"fp32": False, "bf16, channels_last": True}
    print(f"{options.recipe}, crop {settings.augmentation.crop}, batch {options.batch}, {_named(device)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    steps: dict[str, Callable[[], None]] = {}
    seconds: dict[str, list[Seconds]] = {name: [] for name in formats}
    memory = dict.fromkeys(formats, 0.0)
    for _ in range(options.rounds):
        for name, fast in formats.items():
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            step = make_step(settings, options.batch, device, fast=fast)
            step()  # allocates, and on a GPU chooses the convolutions
            steps[name] = step
            seconds[name] += timed(step, options.steps, device)
            memory[name] = max(memory[name], peak_gigabytes(device))
            steps.clear()
            del step
    for name, values in seconds.items():
        middle = statistics.median(each.passed for each in values)
        busy = statistics.median(each.busy for each in values)
        worked = f" ({busy:.1f} s of CPU time)" if device.type == "cpu" else ""
        print(
            f"{name:<20} {middle:8.3f} s a step{worked}  {options.batch / middle:8.2f} images/s  "
            f"peak memory {memory[name]:.2f} GB"
        )
    if options.data is not None:
        time_crops(options.recipe, settings, options.data)


def make_step(settings: Segmentation, batch: int, device: torch.device, *, fast: bool) -> Callable[[], None]:
    """A training step as the protocol takes it, on pixels that are on the device."""
    torch.manual_seed(0)
    number_format: precision.Precision = "bf16" if fast else "fp32"
    precision.prepare(number_format, device)
    classes, side = settings.expected_classes or 21, settings.augmentation.crop
    network = Segmentor(build_backbone("resnet50"), classes, settings.design).to(device).train()
    images = torch.randn(batch, 3, side, side, device=device)
    if fast:
        network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    masks = torch.randint(0, classes, (batch, side, side), device=device)
    course = settings.course
    group = Group(name="network", parameters=network.parameters(), lr=course.lr)
    optimizer = optimizers.sgd([group], momentum=course.momentum, weight_decay=course.weight_decay)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast(number_format, device):
            scores = network(images)
        main, auxiliary = (
            segmentation_loss(network.scores_at(part, (side, side)), masks, mean_over=course.mean_over)
            for part in (scores.main, scores.auxiliary)
        )
        (main + course.auxiliary_weight * auxiliary).backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], steps: int, device: torch.device) -> list[Seconds]:
    """Seconds of each step."""
    found = []
    for _ in range(steps):
        started, worked = time.perf_counter(), time.process_time()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(Seconds(passed=time.perf_counter() - started, busy=time.process_time() - worked))
    return found


def peak_gigabytes(device: torch.device) -> float:
    """Of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def time_crops(recipe: str, settings: Segmentation, data: Path) -> None:
    """Random crops a second of one process, decoding included."""
    from simsiam.data.segmentation.cityscapes import open_cityscapes
    from simsiam.data.segmentation.voc12aug import open_voc12aug

    source = (open_voc12aug(data) if recipe.endswith("voc12aug") else open_cityscapes(data)).train
    started, count = time.perf_counter(), min(50, len(source))
    for index in range(count):
        augment(source.read(index), source.mask(index), settings.augmentation, np.random.default_rng(index))
    print(f"one process makes {count / (time.perf_counter() - started):.1f} crops a second")


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
