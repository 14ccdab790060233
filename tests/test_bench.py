"""`simsiam bench`: what it prints and leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from simsiam import cli
from simsiam.model import SimSiam
from simsiam.pretraining import bench
from simsiam.recipes.pretrain import RECIPES


def test_photos_of_ones_own_are_measured_and_the_limit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
    before = {file: file.read_bytes() for file in photos.iterdir()}
    out = tmp_path / "bench"
    words = ["bench", photos, "--recipe", "demo", "--batch-size", 2, "--seconds", 0.001, "--rounds", 1, "--out", out]
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, words), "--epoch", "100"])
    assert not end.value.code
    said = capsys.readouterr().out
    assert "Training step of 2 images" in said
    assert "x1.00" in said
    assert "s an epoch" in said
    assert "Two views of 32 px on one core, photos" in said
    assert "A training makes about" in said
    assert "set" in said.partition("A training makes about")[2]
    found = json.loads((out / "bench.json").read_text())
    assert found["recipe"] == "demo"
    assert {"decoding, one core", "training step, cpu"} <= found["shares"].keys()
    assert found["limits"]["matrix_tflops"] > 0
    assert found["limits"]["copy_gb"] > 0
    with Image.open(out / "where-the-time-goes.png") as picture:
        assert min(picture.size) > 200
    assert {file: file.read_bytes() for file in photos.iterdir()} == before


def test_the_conclusion_names_what_is_slower() -> None:
    limits = bench.Limits(matrix_tflops=1.0, step_tflops=0.5, copy_gb=1.0, memory_gib=None)
    made = {"parts": [], "limits": limits, "shares": {}}
    assert bench.Measured(**made, step=10, views=30).conclusion == (  # type: ignore[arg-type]
        "A training makes about 10 images/s here: the step sets the pace, decoding and views would do 30."
    )
    assert bench.Measured(**made, step=30, views=10).conclusion == (  # type: ignore[arg-type]
        "A training makes about 10 images/s here: decoding and views set the pace, the step would do 30."
    )


def test_the_operations_of_a_step_are_three_times_those_of_two_views() -> None:
    demo = RECIPES["demo"]()
    assert bench._step_flops(demo) == pytest.approx(3 * 2 * one_view(), rel=0.02)


def one_view() -> float:
    """Twice the multiplications of the demo's network on one view, layer by layer."""
    demo = RECIPES["demo"]()
    network = SimSiam(demo.model).eval()
    total = 0.0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += 2 * module.weight[0].numel() * output[0].numel()
        elif isinstance(module, nn.Linear):
            total += 2 * module.weight.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    x = torch.zeros(1, 3, demo.views.size, demo.views.size)
    with torch.no_grad():
        network(x, x)
    return total / 2
