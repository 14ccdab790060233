"""Seconds, images a second and peak memory of the training step of a detection recipe, at its published size.

    python benchmarks/detection_step.py --recipe faster_rcnn_r50_c4_mstrain_24k_voc0712 --batch 1       # CPU
    python benchmarks/detection_step.py --recipe mask_rcnn_r50_fpn_mstrain_1x_coco --batch 16 --device cuda

On a GPU fp32 and bf16 with channels_last take turns in one run. A ResNet-50 with random weights, on random pixels of
the recipe's largest training size with eight objects an image: the step is the same. Data loading is not in it
(benchmarks/detection_data.py times that). One recipe a run, since the peak memory of a process never falls.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

from simsiam.backbones import build_backbone
from simsiam.data.detection.boxes import LearnTarget
from simsiam.engine import optimizers, precision
from simsiam.engine.distributed import pick_device
from simsiam.engine.optimizers import Group
from simsiam.evaluation.detection.detector import build_detector
from simsiam.evaluation.detection.protocol import Detection
from simsiam.recipes import detection as recipes

RECIPES = (
    recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712,
    recipes.mask_rcnn_r50_fpn_mstrain_1x_coco,
    recipes.mask_rcnn_r50_c4_mstrain_1x_coco,
)
OBJECTS = 8  # an image


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=RECIPES[0].__name__, choices=[make.__name__ for make in RECIPES])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each round")
    parser.add_argument("--rounds", type=int, default=1, help="the number formats take turns this often")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = pick_device(options.device)
    settings = next(make() for make in RECIPES if make.__name__ == options.recipe)
    height, width = largest(settings)
    formats = {"fp32": False} if device.type == "cpu" else {"fp32": False, "bf16, channels_last": True}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{settings.name}, {width} x {height}, batch {options.batch}, {name}, torch {torch.__version__}")
    seconds: dict[str, list[float]] = {each: [] for each in formats}
    memory = dict.fromkeys(formats, 0.0)
    for _ in range(options.rounds):
        for each, fast in formats.items():
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            step = make_step(settings, options.batch, device, fast=fast)
            step()  # allocates, and on a GPU chooses the convolutions
            seconds[each] += [_timed(step, device) for _ in range(options.steps)]
            memory[each] = max(memory[each], _peak_gigabytes(device))
            del step
    for each, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{each:<20} {median:8.3f} s a step (from {min(times):.3f} to {max(times):.3f}, {len(times)} steps)  "
            f"{options.batch / median:7.2f} images/s  peak {memory[each]:.2f} GB"
        )


def largest(settings: Detection) -> tuple[int, int]:
    """Height and width of the largest training image, 3:4 as photos are, padded as batches are."""
    short = max(settings.train_images.short_sides)
    long = min(settings.train_images.long_side, short * 4 // 3)
    return -(-short // 32) * 32, -(-long // 32) * 32


def make_step(settings: Detection, batch: int, device: torch.device, *, fast: bool) -> Callable[[], None]:
    """One training step of the recipe as `simsiam evaluate` makes it; `fast`: bf16 on channels-last memory."""
    torch.manual_seed(0)
    number_format: precision.Precision = "bf16" if fast else "fp32"
    precision.prepare(number_format, device)
    detector = build_detector(settings.architecture, build_backbone("resnet50"), settings.expected_classes or 20)
    detector.to(device).train()
    layout = torch.channels_last if fast else torch.contiguous_format
    detector.to(memory_format=layout)
    group = Group(name="detector", parameters=list(detector.parameters()), lr=1e-4)
    optimizer = optimizers.sgd([group], momentum=settings.momentum, weight_decay=settings.weight_decay)
    height, width = largest(settings)
    images = torch.randn(batch, 3, height, width, device=device).contiguous(memory_format=layout)
    targets = [objects(height, width, device, masks=settings.architecture.masks is not None) for _ in range(batch)]
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast(number_format, device):
            losses = detector(images, [(height, width)] * batch, targets, generator)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def objects(height: int, width: int, device: torch.device, *, masks: bool) -> LearnTarget:
    """Rectangles of a twentieth to a half of each side."""
    corner = torch.rand(OBJECTS, 2) * 0.5
    extent = torch.tensor([width, height])
    boxes = torch.cat([corner, corner + 0.05 + torch.rand(OBJECTS, 2) * 0.45], 1) * extent.repeat(2)
    drawn = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(drawn, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return LearnTarget(
        boxes=boxes.to(device),
        labels=torch.randint(1, 21, (OBJECTS,), device=device),
        masks=drawn.to(device) if masks else None,
    )


def _timed(step: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_gigabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
