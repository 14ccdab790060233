"""`simsiam evaluate detection-cityscapes` on shapes in Cityscapes' layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.results import Result
from tests.detection_command import NARROW, SIDE, evaluate
from tests.detection_command import weights as weights
from tests.tiny_shapes import draw_shapes


def shapes(root: Path) -> Path:
    """Circles are persons, squares cars and triangles bicycles, on a road."""
    number = 0
    for split, count in (("train", 6), ("val", 2)):
        for _ in range(count):
            number += 1
            drawn = draw_shapes(np.random.default_rng(number), SIDE)
            ids = np.full((SIDE, SIDE), 7, np.uint16)
            for place, (label, mask) in enumerate(zip(drawn.labels.tolist(), drawn.masks, strict=True)):
                ids[mask] = {1: 24, 2: 26, 3: 33}[label] * 1000 + place
            for folder, end, image in (
                ("leftImg8bit", "leftImg8bit", drawn.image),
                ("gtFine", "gtFine_instanceIds", Image.fromarray(ids)),
            ):
                file = root / folder / split / "ulm" / f"ulm_{number:06d}_000019_{end}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                image.save(file)
    return root


def test_from_instance_ids_to_a_result(tmp_path: Path, weights: Path) -> None:
    city = shapes(tmp_path / "cityscapes")
    words = "--iterations 2 --evaluate-every 2 --batch-size 2 --lr 0.02".split()
    out = tmp_path / "out"
    assert evaluate("cityscapes", weights, "--data", city, "--out", out, *words, *NARROW) == 0
    result = Result.read(out / "result.json")
    assert result.protocol == "detection_cityscapes_instances"
    assert result.recipe["name"].startswith("mask_rcnn_r50_fpn_24k_cityscapes")
    assert {"box_ap", "mask_ap"} <= set(result.metrics)
    assert set(result.detail["per_class"]["mask_ap"]) <= {"person", "car", "bicycle"}
    assert result.data.name == "cityscapes-instances"
    assert result.data.images == 8
    assert not any("classes; the published" in note for note in result.notes)
    assert (out / "report.html").is_file()


def test_a_folder_that_is_not_cityscapes(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert evaluate("cityscapes", weights, "--data", tmp_path / "data", "--out", tmp_path / "out") == 2
    assert "Give the folder that holds leftImg8bit and gtFine" in capsys.readouterr().err
