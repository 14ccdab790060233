"""Tiny pictures whose class is their colour, the command line, and what it measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.cli import main

WEIGHTS = "random:resnet10"
CPU = ["--size", "32", "--workers", "0", "--device", "cpu"]


def picture(file: Path, hue: int, *, seed: int = 0, of: int = 12) -> Path:
    """One noisy picture of a hue, numbered from 0 to `of`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([hue, seed])
    noise = random.integers(-30, 31, (24, 24, 3))
    solid = np.asarray(Image.new("HSV", (24, 24), (255 * hue // of, 255, 200)).convert("RGB"), np.int64)
    Image.fromarray(np.clip(solid + noise, 0, 255).astype(np.uint8)).save(file)
    return file


def folders(root: Path, hues: dict[str, int], *, images: int = 4, seed: int = 0) -> Path:
    """A folder for each class, of so many pictures of its hue."""
    for name, hue in hues.items():
        for number in range(images):
            picture(root / name / f"{number}.png", hue, seed=seed + number)
    return root


def table(file: Path, rows: Iterable[tuple[str, str]], *, separator: str = ",", header: str = "path,label\n") -> Path:
    """A CSV of path and label."""
    file.write_text(header + "".join(f"{path}{separator}{label}\n" for path, label in rows))
    return file


def simsiam(*words: object) -> int:
    """Run the command line; returns its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def evaluate(name: str, out: Path, *words: object) -> dict[str, Any]:
    """The result of an evaluation that must succeed; few-labels with its folds drawn once."""
    once = ["--repeats", "1"] if name == "few-labels" else []
    assert simsiam("evaluate", name, WEIGHTS, *words, *once, *CPU, "--out", out) == 0
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result
