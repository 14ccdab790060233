"""Images per second of a recipe's training step beside a plain fp32 loop, both measured in one run.

    python benchmarks/pretrain_speed.py --recipe resnet50_8xb32-coslr-100e --batch 256 --precision bf16   # on a GPU
    python benchmarks/pretrain_speed.py --recipe cifar10 --batch 512 --precision bf16 --data --epoch 50000
    python benchmarks/pretrain_speed.py --recipe demo --batch 64

The plain loop is what one would write first: the same network in torch's default memory layout, fp32, a loss.item() a
step. Both get the same random views, made before the clock starts, so that the ratio is of the step alone; --data adds
a row for our loader on images that live decoded on the device, --compile one for torch.compile. The rate of the step
is set beside that of a bare product of two large matrices in the same number format.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from simsiam import model as simsiam_model
from simsiam.config import Pretraining
from simsiam.data.sources import ArraySource
from simsiam.data.two_views.loader import ViewLoader
from simsiam.engine import precision
from simsiam.engine.distributed import pick_device
from simsiam.model import SimSiam
from simsiam.pretraining.step import simsiam_optimizer, train_step
from simsiam.recipes.pretrain import RECIPES


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="resnet50_8xb32-coslr-100e", choices=sorted(RECIPES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="the two sides take turns this often")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", action="store_true", help="also measure with our loader, from decoded images")
    parser.add_argument("--compile", action="store_true", help="also measure under torch.compile")
    parser.add_argument("--epoch", type=int, default=0, help="images of an epoch: also print its seconds")
    options = parser.parse_args()
    device = pick_device(options.device)
    recipe = dataclasses.replace(RECIPES[options.recipe](), batch_size=options.batch, precision=options.precision)
    x1, x2 = (torch.randn(options.batch, 3, recipe.views.size, recipe.views.size, device=device) for _ in range(2))
    sides = {"plain fp32 loop": plain(recipe, x1, x2), "simsiam": ours(recipe, x1, x2, device)}
    if options.data:
        sides["simsiam with its loader"] = with_loader(recipe, device)
    if options.compile:
        sides["simsiam under torch.compile"] = ours(recipe, x1, x2, device, compiled=True)
    pace: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step()
    for _ in range(options.rounds):
        for name, step in sides.items():
            pace[name].append(images_per_second(step, options.steps, options.batch, device))
    print(f"{options.recipe}, batch {options.batch}, {options.precision}, {device}, torch {torch.__version__}")
    base = float(np.median(pace["plain fp32 loop"]))
    for name, values in pace.items():
        rate = float(np.median(values))
        epoch = f"  {options.epoch / rate:.2f} s an epoch" if options.epoch else ""
        print(f"{name:<28} {rate:>9,.1f} images/s  x{rate / base:.2f}{epoch}")
    flops = 6 * step_flops(recipe) * float(np.median(pace["simsiam"])) / 1e12
    peak = matrix_rate(recipe, device)
    print(
        f"the step's convolutions and products: {flops:.2f} TFLOP/s, {flops / peak:.0%} of a bare product's {peak:.1f}"
    )
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


def step_flops(recipe: Pretraining) -> float:
    """Operations of the forward pass of one view; a step has two views, and backward costs twice forward."""
    from torch.utils.flop_counter import FlopCounterMode

    network = SimSiam(recipe.model)
    x = torch.randn(2, 3, recipe.views.size, recipe.views.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, x)
    return counter.get_total_flops() / 2 / 2


def matrix_rate(recipe: Pretraining, device: torch.device, *, side: int = 4096) -> float:
    """TFLOP/s of the product of two square matrices in the recipe's number format."""
    side = side if device.type == "cuda" else 1024
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = recipe.precision == "tf32"
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    a @ b
    wait(device)
    started = time.perf_counter()
    for _ in range(20):
        a @ b
    wait(device)
    return 20 * 2 * side**3 / (time.perf_counter() - started) / 1e12


def images_per_second(step: Callable[[], object], steps: int, batch: int, device: torch.device) -> float:
    """The pace over some steps, waiting for the device at both ends."""
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return steps * batch / (time.perf_counter() - started)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plain(recipe: Pretraining, x1: torch.Tensor, x2: torch.Tensor) -> Callable[[], float]:
    """The loop one would write first."""
    network = SimSiam(recipe.model).to(x1.device)
    optimizer = torch.optim.SGD(network.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)

    def step() -> float:
        if x1.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        loss = simsiam_model.loss(*network(x1, x2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def ours(
    recipe: Pretraining, x1: torch.Tensor, x2: torch.Tensor, device: torch.device, *, compiled: bool = False
) -> Callable[[], object]:
    """`train_step` as a run calls it, on given views."""
    step = prepared(recipe, device, compiled=compiled)
    views = [x.contiguous(memory_format=torch.channels_last) for x in (x1, x2)]
    return lambda: step(*views)


def with_loader(recipe: Pretraining, device: torch.device) -> Callable[[], object]:
    """`train_step` on views that our loader makes from random decoded images."""
    size = recipe.views.size
    pixels = np.random.default_rng(0).integers(0, 255, (max(512, 2 * recipe.batch_size), size, size, 3), dtype=np.uint8)
    loader = ViewLoader(
        ArraySource(pixels, name="random"),
        recipe.views,
        batch_size=recipe.batch_size,
        seed=0,
        engine="batch",
        device=device,
        channels_last=True,
    )
    step = prepared(recipe, device)

    def batches() -> object:
        epoch = 0
        while True:
            yield from loader.epoch(epoch)
            epoch += 1

    stream = iter(batches())  # type: ignore[call-overload]

    def one() -> object:
        batch = next(stream)
        return step(batch.x1, batch.x2)

    return one


def prepared(recipe: Pretraining, device: torch.device, *, compiled: bool = False) -> Callable[..., object]:
    """A step on a fresh network in the recipe's precision and in channels_last."""
    network = SimSiam(recipe.model).to(device).to(memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    scaler = precision.prepare(recipe.precision, device)
    optimizer = simsiam_optimizer(
        network, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, predictor_lr="fixed"
    )

    def update(loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    def step(x1: torch.Tensor, x2: torch.Tensor) -> object:
        if device.type == "cuda":
            tf32 = recipe.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with precision.autocast(recipe.precision, device):
            return train_step(forward, x1, x2, update=update)

    return step


if __name__ == "__main__":
    main()
