"""A detector trained from random weights on synthetic shapes, scored on images that it never saw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simsiam.results import Result

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "detection_shapes.py"


def held_out(folder: Path, *words: object) -> dict[str, float]:
    """The metrics after training by the benchmark's script."""
    command = [sys.executable, str(SCRIPT), "--out", str(folder), "--device", "cpu", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Result.read(folder / "result" / "result.json").metrics


@pytest.mark.slow
def test_a_short_training_finds_half_of_what_it_never_saw(tmp_path: Path) -> None:
    """Fewer shapes, half the resolution and a quarter of the iterations: three minutes."""
    words = "--train 400 --most 2 --stem imagenet --iterations 800 --evaluate-every 800 --lr 0.3".split()
    metrics = held_out(tmp_path, *words)
    assert metrics["box_ap50"] > 40
    assert metrics["mask_ap50"] > 40


@pytest.mark.slow
def test_boxes_and_masks_of_unseen_images_are_found(tmp_path: Path) -> None:
    """Ten to fifteen minutes; 94.1 and 92.3 when it was written."""
    metrics = held_out(tmp_path)
    assert metrics["box_ap50"] > 90
    assert metrics["mask_ap50"] > 90
