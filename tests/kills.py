"""Kills processes at random moments until each kind of work has had its share: python -m tests.kills pretrain 50.

Every killed command is given again, until it ends; what it leaves must be what the unbroken one leaves, bit for bit.
The signals take turns: SIGKILL, SIGTERM, SIGINT, SIGHUP. The moments are drawn evenly over the time that the unbroken
command takes, so that they fall into checkpoints, scorings and the start of the program too.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests import tiny, tiny_masks, tiny_shapes
from tests.detection_command import FEW, IMAGES

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CPU = "--device cpu --workers 0".split()
WEIGHTS = "random:resnet10"


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of command: its words without the place of the output, and what counts as its outcome."""

    words: list[str]
    out: str  # name of the output within a folder
    outcome: Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came of the kills."""

    kills: dict[str, int]  # by signal
    runs: int  # that were killed at least once and then ended as the unbroken one
    unequal: int


def works(root: Path) -> dict[str, Work]:
    """Every kind, on tiny data that is written below `root`."""
    photos = tiny.flat_folder(root / "photos", images=60, size=24)
    labelled = tiny.folder(root / "labelled", classes=3, images=12, size=32)
    shapes = tiny_shapes.voc_folder(root / "shapes", images=6, side=64)
    masks = tiny_masks.folders(root / "masks")
    often = ["--checkpoint-minutes", "0", *CPU]
    pretrain = (
        f"pretrain {photos} --epochs 3 --batch-size 8 --views.size 16 --model.stem small-stride2 --model.width 8 "
        "--model.backbone resnet10 --model.projector-layers 2 --model.projector-dim 32 --model.predictor-dim 8"
    )
    linear = (
        f"evaluate linear-avgpool {WEIGHTS} --train {labelled} --test {labelled} --size 32 --epochs 6 --batch-size 8"
    )
    detection = (
        f"evaluate detection-folder {WEIGHTS} --data {shapes} --recipe folder_boxes --iterations 4 --batch-size 2"
    )
    segmentation = (
        f"evaluate segmentation-folder {WEIGHTS} --data {masks} --size 32 --iterations 6 --evaluate-every 3 "
        "--batch-size 4 --head-channels 8 --auxiliary-channels 4"
    )
    embed = f"embed {WEIGHTS} {photos} --size 64 --batch-size 2 --cache {{out}}.cache"
    return {
        "pretrain": Work(words=[*pretrain.split(), *often], out="run", outcome=_checkpoint),
        "linear": Work(words=[*linear.split(), *often], out="run", outcome=_checkpoint),
        "detection": Work(
            words=[*detection.split(), "--evaluate-every", "2", *IMAGES, *FEW, *often], out="run", outcome=_checkpoint
        ),
        "segmentation": Work(words=[*segmentation.split(), *often], out="run", outcome=_checkpoint),
        "embedding": Work(words=[*embed.split(), *CPU], out="vectors.npy", outcome=_bytes),
    }


def run(kind: str, kills: int, *, seed: int = 0) -> Tally:
    """Kill commands of a kind until there were so many kills; the last one ends as well."""
    draw = random.Random(seed)
    turns = itertools.cycle(SIGNALS)
    counts = dict.fromkeys((number.name for number in SIGNALS), 0)
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        work = works(Path(place))[kind]
        begun = time.monotonic()
        assert _finish(_start(work, Path(place) / "whole")) in (0, 4)
        whole = time.monotonic() - begun
        expected = work.outcome(Path(place) / "whole" / work.out)
        runs = unequal = 0
        while sum(counts.values()) < kills:
            folder = Path(place) / f"killed{runs}"
            killed = 0
            while True:
                process = _start(work, folder)
                if sum(counts.values()) < kills and _ended_within(process, draw.uniform(0.0, whole)) is None:
                    number = next(turns)
                    process.send_signal(number)
                    counts[number.name] += 1
                    killed += 1
                    code = _finish(process)
                    if code in (-number, 128 + number):
                        continue
                else:
                    code = _finish(process)
                said = (folder / "output.txt").read_text()[-2000:]
                ended_before = code == 2 and "exists already" in said  # killed once all was written
                assert code in (0, 4) or ended_before, f"exit code {code}:\n{said}"
                break
            if killed:
                runs += 1
                unequal += work.outcome(folder / work.out) != expected
        return Tally(kills=counts, runs=runs, unequal=unequal)


def _start(work: Work, folder: Path) -> subprocess.Popen[bytes]:
    out = str(folder / work.out)
    words = [word.replace("{out}", out) for word in work.words]
    folder.mkdir(exist_ok=True)
    with open(folder / "output.txt", "ab") as text:
        return subprocess.Popen(
            [sys.executable, "-m", "simsiam", *words, "--out", out],
            stdout=text,
            stderr=text,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _finish(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=600)


def _checkpoint(run: Path) -> str:
    """Weights and momentum of the last checkpoint."""
    newest = sorted((run / "checkpoints").glob("step-*.pt"))[-1]
    content = torch.load(newest, weights_only=True)
    digest = hashlib.sha256(newest.name.encode())
    for state in content["modules"].values():
        for name, tensor in state.items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for slot in content["optimizer"]["state"].values():
        digest.update(slot["momentum_buffer"].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _bytes(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(sys.argv[1], run(sys.argv[1], int(sys.argv[2])))
