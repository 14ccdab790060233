"""Cases two_runs_one_out and sighup_closing_the_terminal: one folder, one run, and no work lost with a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simsiam import cli
from simsiam.results import read_metrics
from tests import tiny
from tests.processes import Forked, program

SMALL = (
    "--batch-size 16 --model.backbone resnet10 --model.width 8 --views.size 16 --model.stem small-stride2 "
    "--device cpu --workers 0"
).split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures."""
    return tiny.flat_folder(tmp_path_factory.mktemp("data") / "photos", images=40, size=24)


Started = subprocess.Popen[str] | Forked


def started(words: list[str], out: Path, start: Callable[..., Started] = Forked) -> Started:
    """A pre-training in a process of its own, once it has saved a checkpoint."""
    begun = time.time()
    process = start(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while time.time() < begun + 120 and process.poll() is None:
        if any(saved(path) > begun for path in (out / "checkpoints").glob("step-*.pt")):
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    return process


def saved(path: Path) -> float:
    """When a file was written; 0 for one that was removed meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def simsiam(words: list[str]) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    return int(end.value.code or 0)


def test_two_runs_one_out(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two"
    words = ["pretrain", str(photos), "--epochs", "400", *SMALL, "--out", str(out)]
    first = started(words, out)
    assert simsiam(words) == 2
    assert f"another run is writing there (process {first.pid} on {os.uname().nodename})" in capsys.readouterr().err
    first.kill()
    first.communicate()
    second = started(words, out)  # takes over from the dead
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=60) == 128 + signal.SIGTERM
    second.communicate()
    steps = [row["step"] for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "step"]
    assert steps == sorted(set(steps)), "two runs wrote one log"


def test_sighup_closing_the_terminal(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    process = started(["pretrain", str(photos), "--epochs", "400", *SMALL, "--out", str(out)], out, program)
    assert isinstance(process, subprocess.Popen)
    assert process.stdout is not None
    process.stdout.close()  # whoever read the output is gone with the terminal
    before = {path.name for path in (out / "checkpoints").glob("*")}
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert {path.name for path in (out / "checkpoints").glob("step-*.pt")} - before
    assert not list(out.glob(".simsiam.lock"))
