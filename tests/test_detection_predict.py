"""`simsiam predict` with a detector: from its file to drawings and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from simsiam.evaluation.detection.inference import load_detector
from tests import tiny_shapes
from tests.detection_command import SIDE, predict
from tests.detection_command import coco as coco
from tests.detection_command import done as done
from tests.detection_command import done_with_masks as done_with_masks
from tests.detection_command import voc as voc
from tests.detection_command import weights as weights


def test_a_detector_comes_back_from_its_file(done_with_masks: Path) -> None:
    trained = load_detector(done_with_masks)
    assert trained.classes == ("square", "circle", "triangle")  # by COCO's category ids
    assert trained.images.short_sides == (SIDE,)
    assert trained.detector.architecture.masks is not None
    state = load_file(done_with_masks / "detector.safetensors")
    assert all(torch.equal(tensor, state[name]) for name, tensor in trained.detector.state_dict().items())


def test_predict_draws_and_writes_what_it_finds(
    done_with_masks: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    words = [
        done_with_masks,
        *sorted((coco / "val2017").iterdir())[:2],
        tmp_path / "broken.jpg",
        "--out",
        tmp_path / "out",
        "--threshold",
        "0.05",
    ]
    assert predict(*words) == 1
    printed = capsys.readouterr().out
    assert "left out: " in printed
    assert "broken.jpg" in printed
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(found) == 2
    for each in found:
        name = Path(each["image"]).stem
        with Image.open(tmp_path / "out" / f"{name}.jpg") as picture:
            assert picture.width >= SIDE
        for thing in each["objects"]:
            assert thing["class"] in tiny_shapes.CLASSES
            assert thing["score"] >= 0.05
            assert len(thing["box"]) == 4
            assert thing["mask"]["size"] == [SIDE, SIDE]


def test_every_form_and_a_pattern(
    done_with_masks: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, forms = tmp_path / "out", "coco yolo csv masks json pictures".split()
    assert predict(done_with_masks, coco / "val2017" / "*[!x].jpg", "--out", out, "--write", *forms) == 0
    result = json.loads((done_with_masks / "result.json").read_text())
    chosen = result["detail"]["threshold"]
    printed = capsys.readouterr().out
    if chosen is None:
        assert load_detector(done_with_masks).score is None
    else:
        assert f"score {chosen['score']:g} or more: the threshold with the best F1" in printed
    assert any(note.startswith(("predict shows detections of", "no detection on the test")) for note in result["notes"])
    names = sorted(file.stem for file in (coco / "val2017").iterdir())
    written = json.loads((out / "coco.json").read_text())
    assert sorted(Path(each["file_name"]).stem for each in written["images"]) == names
    for name in names:
        assert (out / f"{name}.jpg").exists()
        assert (out / "labels" / f"{name}.txt").exists()
        with Image.open(out / "masks" / f"{name}.png") as mask:
            assert mask.size == (SIDE, SIDE)
    assert (out / "classes.txt").read_text().split() == ["background", *load_detector(done_with_masks).classes]
    objects = sum(len(each["objects"]) for each in json.loads((out / "predictions.json").read_text()))
    assert len(written["annotations"]) == objects


def test_a_thicket_is_thinned_and_told(
    done: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted((voc / "VOC2007" / "JPEGImages").iterdir())[:2]
    drawn = []
    for most in (1, 1000):
        out = tmp_path / str(most)
        assert predict(done, *pictures, "--out", out, "--threshold", 0, "--most", most) == 0
        drawn.append([(out / f"{picture.stem}.jpg").read_bytes() for picture in pictures])
        printed = capsys.readouterr().out
        counts = [len(each["objects"]) for each in json.loads((out / "predictions.json").read_text())]
        assert min(counts) > 1  # all are written, however few are drawn
        told = "more than 1 object in 2 images: there the surest is drawn (--most)" in printed
        assert told == (most == 1), printed
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_rates_still_being_compared_are_no_model(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid" / "lr0.1").mkdir(parents=True)
    assert predict(tmp_path, voc) == 2
    assert "is not finished (rates are still being compared). Give the `simsiam evaluate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name an evaluation's folder and at least one image"),
        (["nowhere", "a.jpg"], "nowhere: no such folder"),
        (["EMPTY", "a.jpg"], "holds no trained detector"),
        (["DONE", "a.jpg", "b"], "a.jpg: no such image or folder\nb: no such image or folder"),
        (["DONE", "EMPTY"], "no image in it or below it"),
        (["DONE", "VOC", "--threshold", "2"], "a score is between 0 and 1"),
        (["DONE", "VOC", "--most", "0"], "--most 0: one detection or more"),
    ],
)
def test_predict_tells_mistakes(
    words: list[str], message: str, done: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"DONE": str(done), "VOC": str(voc), "EMPTY": str(tmp_path)}
    assert predict(*[given.get(word, word) for word in words]) == 2
    assert message in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_photos_are_neither_written_over_nor_joined_by_pictures(
    done: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for picture in sorted((voc / "VOC2007" / "JPEGImages").iterdir())[:2]:
        (photos / picture.name).write_bytes(picture.read_bytes())
    before = contents(photos)
    for places, out in (([photos], photos), (list(photos.iterdir()), photos), ([photos], photos / "drawn")):
        assert predict(done, *places, "--out", out) == 2
        assert "with --out." in capsys.readouterr().err
        assert contents(photos) == before
    # One's own files stay, also where they have a picture's name and are not read.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / next(iter(before))).write_bytes(b"not this program's")
    assert predict(done, photos, "--out", tmp_path / "mine") == 2
    assert "is not written over" in capsys.readouterr().err
    assert contents(tmp_path / "mine") == {next(iter(before)): b"not this program's"}


def test_pictures_of_an_earlier_call_are_no_photos(
    done: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo,) = sorted((voc / "VOC2007" / "JPEGImages").iterdir())[:1]
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    for _ in range(3):  # from a folder that holds the output: each call sees the one photo
        assert predict(done, tmp_path / "a.jpg", "--out", tmp_path / "drawn") == 0
        assert predict(done, tmp_path, "--out", tmp_path.parent / f"{tmp_path.name}-out") == 0
        assert "in 1 image: " in capsys.readouterr().out
    assert sorted(contents(tmp_path / "drawn")) == [".simsiam.json", "a.jpg", "predictions.json"]
