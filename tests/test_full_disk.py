"""Disks that are really full: a small tmpfs of this process's own, where the system lets one be mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simsiam.results import Result
from tests import tiny

SIZE = 12 << 10  # KiB of the disk
NETWORK = (
    "--epochs 1 --batch-size 8 --views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone resnet8 "
    "--model.projector-layers 2 --model.projector-dim 32 --model.predictor-dim 8 --checkpoint-minutes 0"
)
CPU = "--device cpu --workers 0"
# What is left free is given to the first call ($FREE KiB); the second has the whole disk. Both say their exit codes.
SCRIPT = """
set -u
mount -t tmpfs -o size={size}k tmpfs "$DISK" || exit 77
head -c $((({size} - FREE) * 1024)) /dev/zero > "$DISK/filler"
"$PYTHON" -m simsiam "$@"; echo "first code $?"
rm "$DISK/filler"
"$PYTHON" -m simsiam "$@"; echo "second code $?"
cp -r "$DISK/." "$KEPT"
"""


def on_a_full_disk(tmp_path: Path, words: str, *, free: int) -> str:
    """A command whose words hold DISK, with `free` KiB of room and then with enough; both outputs in one."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    facts = {"DISK": str(disk), "KEPT": str(kept), "FREE": str(free), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    line = ["bash", "-c", SCRIPT.format(size=SIZE), "bash", *words.replace("DISK", str(disk)).split()]
    try:
        done = subprocess.run(
            ["unshare", "-m", *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **facts},
            timeout=600,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare:" in done.stdout:
        pytest.skip("this system lets nothing be mounted")
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


FREE = [
    0,  # not even the list of files
    pytest.param(100, marks=pytest.mark.slow),  # no checkpoint
    pytest.param(1500, marks=pytest.mark.slow),  # some checkpoints
]


@pytest.mark.parametrize("free", FREE)
def test_a_pre_training_names_the_file_and_resumes(tmp_path: Path, free: int) -> None:
    photos = tiny.flat_folder(tmp_path / "photos", images=40, size=24)
    said = on_a_full_disk(tmp_path, f"pretrain {photos} {NETWORK} {CPU} --out DISK/run", free=free)
    first, second = said.split("first code 2\n")
    assert f"{tmp_path / 'disk' / 'run'}" in first.splitlines()[-1]
    assert "No space left on device. Free some space; the same command resumes" in first.splitlines()[-1]
    assert "second code 0" in second or "second code 4" in second, second
    assert Result.read(tmp_path / "kept" / "run" / "result.json").protocol == "pretrain"
