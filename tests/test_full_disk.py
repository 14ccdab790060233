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


@pytest.mark.slow
def test_a_linear_evaluation_names_the_file_and_resumes(tmp_path: Path) -> None:
    labelled = tiny.folder(tmp_path / "labelled", classes=2, images=8, size=32)
    words = f"evaluate linear-avgpool random:resnet10 --train {labelled} --test {labelled} --size 32 --epochs 2"
    said = on_a_full_disk(tmp_path, f"{words} --batch-size 8 --checkpoint-minutes 0 {CPU} --out DISK/run", free=16)
    first, second = said.split("first code 2\n")
    assert "No space left on device. Free some space" in first.splitlines()[-1]
    assert "second code 0" in second, second


@pytest.mark.slow
def test_embeddings_name_the_file_and_leave_no_half_of_it(tmp_path: Path) -> None:
    photos = tiny.flat_folder(tmp_path / "photos", images=40, size=24)
    words = f"embed random:resnet10 {photos} --size 32 {CPU} --cache DISK/cache --out DISK/vectors.npy"
    said = on_a_full_disk(tmp_path, words, free=40)
    first, second = said.split("first code 2\n")
    assert "the features are not kept for the next command" in first
    assert "No space left on device" in first.splitlines()[-1]
    assert "second code 0" in second, second


@pytest.mark.slow
def test_a_small_shared_memory_hangs_nothing(tmp_path: Path) -> None:
    photos = tiny.flat_folder(tmp_path / "photos", images=40, size=24)
    network = NETWORK.replace("--views.size 16", "--views.size 224").replace("--batch-size 8", "--batch-size 16")
    words = f"pretrain {photos} {network} --device cpu --workers 2 --out {tmp_path / 'run'}"
    script = 'mount -t tmpfs -o size=2m tmpfs /dev/shm || exit 77; exec "$0" -m simsiam "$@"'
    line = ["unshare", "-m", "bash", "-c", script, sys.executable, *words.split()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system lets nothing be mounted")
    assert done.returncode in (0, 4), done.stderr
    assert done.stderr.count("shared memory (/dev/shm) is full") == 1


@pytest.mark.parametrize("verb", ["pretrain", "embed random:resnet10"])
def test_a_disk_that_may_only_be_read_is_named_at_once(tmp_path: Path, verb: str) -> None:
    photos, disk = tiny.flat_folder(tmp_path / "photos", images=8, size=24), tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o ro tmpfs "$0" || exit 77; exec "$@"'
    out = disk / ("run" if verb == "pretrain" else "vectors.npy")
    words = [sys.executable, "-m", "simsiam", *verb.split(), str(photos), *CPU.split(), "--out", str(out)]
    line = ["unshare", "-m", "bash", "-c", script, str(disk), *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system lets nothing be mounted")
    assert done.returncode == 2
    assert f"nothing can be written in {disk} (Read-only file system). Give another --out." in done.stderr
