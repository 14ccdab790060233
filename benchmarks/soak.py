"""Whether a long training keeps its memory and its file handles: `python -m benchmarks.soak --minutes 60`, `make soak`.

Pre-trains a small network on made-up shapes, with a check of the network and a checkpoint after every epoch and two
data workers, and reads from /proc every ten seconds what the processes hold. The first quarter is warm-up.
"""

from __future__ import annotations

import argparse
import csv
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.shapes import draw_shapes

EVERY = 10.0  # seconds between two samples
SLACK = 0.03  # of the memory: what the last quarter's mean may lie above the second quarter's
RUN = (
    "--epochs 100000 --batch-size 16 --views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone "
    "resnet8 --model.projector-layers 2 --model.projector-dim 32 --model.predictor-dim 8 --monitor-every 1 "
    "--checkpoint-every 1 --device cpu --workers 2"
).split()


def main() -> int:
    """Print a row; 1 where memory or handles grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--samples", type=Path, help="a CSV of every sample")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        photos, out = Path(place) / "photos", Path(place) / "run"
        photos.mkdir()
        rng = np.random.default_rng(0)
        for number in range(options.images):
            draw_shapes(rng, 32).image.save(photos / f"{number:04d}.png")
        command = [sys.executable, "-m", "simsiam", "pretrain", str(photos), *RUN, "--out", str(out)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                samples = watch(process, 60 * options.minutes)
            finally:
                process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=300)
        checks = (out / "metrics.jsonl").read_text().count('"kind": "monitor"')
    if options.samples:
        with open(options.samples, "w", newline="") as file:
            csv.writer(file).writerows([("seconds", "mebibytes", "main_mebibytes", "handles", "processes"), *samples])
    if code != 128 + signal.SIGTERM or samples[-1][0] < 60 * options.minutes - 2 * EVERY:
        print(f"the training ended with {code} after {samples[-1][0]:.0f} s", file=sys.stderr)
        return 1
    return judge(samples, checks)


def watch(process: subprocess.Popen[bytes], seconds: float) -> list[tuple[float, float, float, int, int]]:
    """Every ten seconds: the time, MiB of all processes and of the main one, open files, number of processes."""
    begun = time.monotonic()
    samples: list[tuple[float, float, float, int, int]] = []
    while time.monotonic() - begun < seconds and process.poll() is None:
        time.sleep(EVERY)
        held = [here for pid in (process.pid, *children(process.pid)) if (here := holds(pid)) is not None]
        if held:
            memory, handles = zip(*held, strict=True)
            samples.append((time.monotonic() - begun, sum(memory), memory[0], sum(handles), len(held)))
    return samples


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def holds(pid: int) -> tuple[float, int] | None:
    """MiB of anonymous memory and open files; None for a worker that just ended.

    Pages of files are left out: how many of them count depends on the other programs of the machine.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("\nRssAnon:")[1].split()[0]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (OSError, IndexError):
        return None


def judge(samples: list[tuple[float, float, float, int, int]], checks: int) -> int:
    """Print the row of the table; 1 where the last quarter holds more than the second."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    before, after = (statistics.mean(row[2] for row in part) for part in (second, last))
    handles = [max(row[3] for row in part) for part in (second, last)]
    print(
        "| minutes | checks and checkpoints | MiB, second quarter | MiB, last quarter | handles, then | handles, last |"
    )
    print("|---|---|---|---|---|---|")
    minutes = samples[-1][0] / 60
    print(f"| {minutes:.0f} | {checks:,} | {before:.1f} | {after:.1f} | {handles[0]} | {handles[1]} |")
    return int(after > before * (1 + SLACK) or handles[1] > handles[0])


if __name__ == "__main__":
    sys.exit(main())
