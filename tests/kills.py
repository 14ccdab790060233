"""Kills processes until each kind of work has had its share: python -m tests.kills [pretrain 50], as `make kills`.

Every killed command is given again, until it ends; what it leaves must be what the unbroken one leaves, bit for bit.
The signals take turns: SIGKILL, SIGTERM, SIGINT, SIGHUP. The moments are drawn evenly over the processor's time that
the unbroken command takes, so that they fall into scorings and the start of the program too; every second round of the
signals waits from there until a file is half written, a checkpoint for the most part. Most commands are run by a
process that has the libraries loaded already, as loading them takes longer than the tiny work; every fifth is a fresh
program.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import torch

from simsiam import cli
from tests import tiny, tiny_masks, tiny_shapes
from tests.detection_command import FEW, IMAGES
from tests.processes import loaded

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CPU = "--device cpu --workers 0".split()
WEIGHTS = "random:resnet10"
Started = subprocess.Popen[bytes] | BaseProcess
OUTPUT, READY = "output.txt", b"-- started\n"


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of command: its words without the place of the output, and what counts as its outcome."""

    words: list[str]
    out: str  # name of the output within a folder
    outcome: Callable[[Path], str]


@dataclass(kw_only=True)
class Tally:
    """What came of the kills."""

    kills: Counter[str] = field(default_factory=Counter)  # by signal
    writing: int = 0  # of them, while a file was half written
    runs: int = 0  # that were killed at least once and then ended
    unequal: int = 0  # of them, with another outcome than the unbroken run's

    def __str__(self) -> str:
        """A row of the table."""
        signals = " | ".join(str(self.kills[number.name]) for number in SIGNALS)
        return f"{self.kills.total()} | {signals} | {self.writing} | {self.runs} | {self.unequal}"


def works(root: Path) -> dict[str, Work]:
    """Every kind, on tiny data that is written below `root`."""
    photos = tiny.flat_folder(root / "photos", images=60, size=24)
    large = tiny.folder(root / "large", classes=2, images=15, size=(300, 240))
    labelled = tiny.folder(root / "labelled", classes=3, images=12, size=32)
    shapes = tiny_shapes.voc_folder(root / "shapes", images=6, side=64)
    masks = tiny_masks.folders(root / "masks")
    often = ["--checkpoint-minutes", "0", *CPU]
    pretrain = (
        f"pretrain {photos} --epochs 2 --batch-size 8 --views.size 16 --model.stem small-stride2 --model.width 8 "
        "--model.backbone resnet10 --model.projector-layers 2 --model.projector-dim 32 --model.predictor-dim 8"
    )
    linear = (
        f"evaluate linear-avgpool {WEIGHTS} --train {labelled} --test {labelled} --size 32 --epochs 4 --batch-size 8"
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
        "photos": Work(  # decoded once: each command finds what the killed ones kept
            words=[*pretrain.replace(str(photos), str(large)).split(), "--cache", "{out}.cache", *often],
            out="run",
            outcome=_checkpoint,
        ),
        "linear": Work(words=[*linear.split(), *often], out="run", outcome=_checkpoint),
        "detection": Work(
            words=[*detection.split(), "--evaluate-every", "2", *IMAGES, *FEW, *often], out="run", outcome=_checkpoint
        ),
        "segmentation": Work(words=[*segmentation.split(), *often], out="run", outcome=_checkpoint),
        "embedding": Work(words=[*embed.split(), *CPU], out="vectors.npy", outcome=_bytes),
    }


def run(kind: str, kills: int, *, seed: int = 0) -> Tally:
    """Kill commands of a kind until there were so many kills; the last one ends as well."""
    draw, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        work = works(Path(place))[kind]
        whole = {fresh: _end(work, Path(place) / f"whole{fresh}", fresh=fresh) for fresh in (False, True)}
        expected = work.outcome(Path(place) / "wholeFalse" / work.out)
        assert work.outcome(Path(place) / "wholeTrue" / work.out) == expected
        for attempt in itertools.count():
            if tally.kills.total() == kills:
                return tally
            folder = Path(place) / f"killed{attempt}"
            before = tally.kills.total()
            while tally.kills.total() < kills:
                fresh = tally.kills.total() % 5 == 4
                if not _killed(_start(work, folder, fresh=fresh), folder, draw.uniform(0.0, whole[fresh]), tally):
                    break
            _end(work, folder)
            if tally.kills.total() > before:
                tally.runs += 1
                tally.unequal += work.outcome(folder / work.out) != expected
            shutil.rmtree(folder)
            print(f"{kind}: {tally.kills.total()} of {kills} kills", file=sys.stderr, flush=True)
    raise AssertionError


def _killed(process: Started, folder: Path, moment: float, tally: Tally) -> bool:
    """Kill a process once it has worked so many seconds; False where it ended before, or did not heed the signal."""
    turn = tally.kills.total()
    number = SIGNALS[turn % len(SIGNALS)]
    code, _ = _watch(process, lambda: _worked(process) >= moment)
    writing = False
    if turn // len(SIGNALS) % 2 and code is None:
        code, _ = _watch(process, lambda: any(folder.rglob(".*.part")))
        writing = code is None
    if code is None:
        assert process.pid is not None
        os.kill(process.pid, number)
        tally.kills[number.name] += 1
        tally.writing += writing
        code = _wait(process, 600)
        if code in (-number, 128 + number):
            return True
    _require_end(code, folder)
    return False


def _end(work: Work, folder: Path, *, fresh: bool = False) -> float:
    """Give a command until it ends by itself; the seconds of a processor that it took."""
    code, worked = _watch(_start(work, folder, fresh=fresh), lambda: False)
    _require_end(code, folder)
    return worked


def _require_end(code: int | None, folder: Path) -> None:
    said = (folder / OUTPUT).read_text()
    ended_before = code == 2 and "exists already" in said  # killed once all was written
    assert code in (0, 4) or ended_before, f"exit code {code}:\n{said[-8000:]}"


def _start(work: Work, folder: Path, *, fresh: bool) -> Started:
    out = str(folder / work.out)
    words = [*(word.replace("{out}", out) for word in work.words), "--out", out]
    folder.mkdir(exist_ok=True)
    begun = _ready(folder)
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        if fresh:
            with open(folder / OUTPUT, "ab") as text:
                return subprocess.Popen([sys.executable, "-m", "simsiam", *words], stdout=text, stderr=text)
        process = loaded(_work, words, folder)
    while _ready(folder) == begun:
        time.sleep(0.001)
    return process


def _work(words: list[str], folder: Path) -> None:
    """The command in a process of its own that has the libraries already."""
    try:
        with open(folder / OUTPUT, "ab", buffering=0) as text:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
            text.write(READY)
        cli.main(words)
    except KeyboardInterrupt:  # once `main` is left
        sys.exit(128 + signal.SIGINT)


def _ready(folder: Path) -> int:
    """How many processes have come as far as the command."""
    file = folder / OUTPUT
    return file.read_bytes().count(READY) if file.exists() else 0


def _wait(process: Started, seconds: float) -> int | None:
    """The exit code of a process; None where it still runs after so many seconds."""
    if isinstance(process, BaseProcess):
        process.join(seconds)
        return process.exitcode
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _watch(process: Started, reached: Callable[[], bool]) -> tuple[int | None, float]:
    """Wait until a process has reached something (None) or ended (its exit code), and the seconds that it worked."""
    worked = 0.0
    while (code := _wait(process, 0.001)) is None:
        worked = max(worked, _worked(process))
        if reached():
            break
    return code, worked


def _worked(process: Started) -> float:
    """Seconds of a processor, which a busy machine does not change as it does those of the clock; 0 once it ended."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    kinds = ("pretrain", "photos", "linear", "embedding", "detection", "segmentation")
    names = " | ".join(number.name for number in SIGNALS)
    print(f"| work | kills | {names} | while writing | runs | unequal |\n|{'---|' * 9}", flush=True)
    for each in sys.argv[1:2] or kinds:
        print(f"| {each} | {run(each, int(sys.argv[2]) if len(sys.argv) > 2 else 50)} |", flush=True)
