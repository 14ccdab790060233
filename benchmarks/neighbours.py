"""Images per second of the demo's training step beside busy programs, with and without `engine/neighbours.py`.

    python benchmarks/neighbours.py             # idle, and beside 1, 2, 3 and 5 busy loops
    python benchmarks/neighbours.py 0 4 --seconds 20

The two sides take turns. Their pace is set beside two notions of a fair share of C cores: an equal part for every
program, C / (1 + N) cores, and an equal part for every thread, C x C / (C + N) cores. The cgroup, nice value and
container that this runs in count: programs of another group are not seen by the list of loops, yet slow both sides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch

from simsiam.engine.neighbours import LOOK_SECONDS, short_waits_when_busy
from simsiam.model import SimSiam
from simsiam.pretraining.step import simsiam_optimizer, train_step
from simsiam.recipes.pretrain import RECIPES


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loops", type=int, nargs="*", default=[0, 1, 2, 3, 5])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    step, batch = demo_step()
    pace(step, 3.0, batch)
    cores = torch.get_num_threads()
    print(f"{cores} cores, load before {os.getloadavg()[0]:.1f}, torch {torch.__version__}; images/s, median of rounds")
    idle = 0.0
    for count in options.loops:
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        found: dict[str, list[float]] = {"long waits": [], "as it follows": []}
        try:
            for _ in range(options.rounds):
                for name, around in zip(found, (nullcontext, short_waits_when_busy), strict=True):
                    with around():
                        pace(step, 2.5 * LOOK_SECONDS, batch)  # until it has seen the neighbours
                        found[name].append(pace(step, options.seconds, batch))
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        usual, follows = (median(values) for values in found.values())
        idle = idle or usual
        by_program, by_thread = idle / (1 + count), idle * cores / (cores + count)
        shares = (
            f"; of an equal part for each program {follows / by_program:.0%}, for each thread {follows / by_thread:.0%}"
        )
        print(
            f"{count} busy loops: {usual:5.0f} with long waits, {follows:5.0f} as it follows, x{follows / usual:.2f}"
            + (shares if count else ""),
            flush=True,
        )


def demo_step() -> tuple[Callable[[], object], int]:
    """The demo's step on random views, and its batch."""
    recipe = RECIPES["demo"]()
    torch.manual_seed(0)
    network = SimSiam(recipe.model).to(memory_format=torch.channels_last)
    size = recipe.views.size
    x1, x2 = (
        torch.randn(recipe.batch_size, 3, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    optimizer = simsiam_optimizer(
        network, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, predictor_lr="fixed"
    )

    def update(loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return lambda: train_step(network, x1, x2, update=update), recipe.batch_size


def pace(step: Callable[[], object], seconds: float, batch: int) -> float:
    """Images per second over so many seconds."""
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
