"""Trained models as programs, loaded by the lines of their own README, which know nothing of this package."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from simsiam import cli
from simsiam.data.detection.transforms import BoxTransform
from simsiam.data.preprocess import Preprocess
from simsiam.evaluation.classification.inference import TrainedClassifier, save_classifier
from simsiam.evaluation.detection.inference import TrainedDetector, find_on, load_detector, save_detector
from tests import tiny
from tests.evaluation.detection.small_detectors import backbone, detector

GREY = (0.5, 0.5, 0.5)


def exported(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the README's own lines leave, run beside the file on photo.jpg."""
    (folder / "result.json").write_text("{}")
    load = functools.cache(torch.export.load)  # its check and the README read the same file, for seconds each
    monkeypatch.setattr(torch.export, "load", lambda file: load(Path(file).resolve()))
    with pytest.raises(SystemExit) as end:
        cli.main(["export", str(folder), "--to", to, "--out", str(folder / "out")])
    assert end.value.code == 0
    monkeypatch.chdir(folder / "out")
    tiny.shape("circle", seed=3, size=(150, 110)).save("photo.jpg")
    text = Path("README.md").read_text()
    assert "differ from ours by at most" in text
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert "simsiam" not in lines
    left: dict[str, object] = {}
    with torch.no_grad():
        exec(compile(lines, "README.md", "exec"), left)
    return left


@pytest.mark.parametrize(("kind", "to"), [("c4", "pt2"), pytest.param("fpn masks", "onnx", marks=pytest.mark.slow)])
def test_a_detector_finds_the_same_boxes_without_this_package(
    kind: str, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = BoxTransform(short_sides=(64,), long_side=100, flip_probability=0.0)
    one = TrainedDetector(
        detector=detector(kind, backbone("resnet10")),
        classes=("cat", "dog", "owl"),
        images=images,
        mean=GREY,
        std=GREY,
        score=0.2,
    )
    save_detector(tmp_path, one)
    left = exported(tmp_path, to, monkeypatch)
    boxes, scores, labels = (left[name] for name in ("boxes", "scores", "labels"))
    ours = find_on(load_detector(tmp_path), Image.open("photo.jpg"))
    assert len(ours.labels) > 3
    assert torch.equal(torch.as_tensor(labels), ours.labels)
    assert torch.allclose(torch.as_tensor(scores), ours.scores, atol=1e-4)
    assert torch.allclose(torch.as_tensor(boxes) / left["scale"], ours.boxes, atol=0.5)  # sides are rounded apart


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_a_classifier(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = backbone("resnet10").eval()
    one = TrainedClassifier(
        backbone=network,
        weight=torch.randn(3, network.features),
        bias=torch.randn(3),
        classes=("cat", "dog", "owl"),
        preprocess=Preprocess(kind="center", resize=40, size=32, mean=GREY, std=GREY),
        unit=True,
    )
    save_classifier(tmp_path, one)
    left = exported(tmp_path, to, monkeypatch)
    ours = one.probabilities(Image.open("photo.jpg"))
    assert torch.allclose(torch.as_tensor(left["found"])[0], ours, atol=1e-5)


def test_what_is_no_program_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text(json.dumps({}))
    for to, message in (("timm", "is written as onnx or pt2"), ("pt2", "holds no trained detector")):
        with pytest.raises(SystemExit) as end:
            cli.main(["export", str(tmp_path), "--to", to])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
