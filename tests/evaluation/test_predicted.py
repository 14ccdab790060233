"""The files of predictions, read back by this program's own readers of annotations."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data.detection.formats import recognise
from simsiam.data.detection.instance_masks import encode
from simsiam.evaluation import predicted
from simsiam.evaluation.predicted import Seen, Thing

CLASSES = ("cat", "dog")
BOXES = ((4.0, 6.0, 24.0, 26.0), (30.0, 2.0, 58.0, 40.0))


@pytest.fixture
def seen(tmp_path: Path) -> list[Seen]:
    """A photo with two objects and one without."""
    made, photos = [], tmp_path / "images"
    photos.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 48)).save(photos / f"{name}.png")
        things = tuple(Thing(label=1 - n, score=0.9 - n / 10, box=box) for n, box in enumerate(BOXES))
        here = photos / f"{name}.png"
        made.append(Seen(file=here, name=name, width=64, height=48, things=things if name == "a" else ()))
    return made


def boxes_and_classes(place: Path) -> list[tuple[str, list[float]]]:
    found = recognise(place)
    (part,) = found.parts.values()
    (image,) = [image for image in part.images if Path(image.path).stem == "a"]
    target = part.target(part.images.index(image))
    return [(part.classes[k - 1], box.tolist()) for k, box in zip(target.labels, target.boxes, strict=True)]


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_boxes_come_back(form: predicted.Form, seen: list[Seen], tmp_path: Path) -> None:
    predicted.write(form, seen, CLASSES, tmp_path)
    found = boxes_and_classes(tmp_path / "coco.json" if form == "coco" else tmp_path)
    assert [name for name, _ in found] == ["dog", "cat"]
    assert np.allclose([box for _, box in found], BOXES, atol=1e-3)


def test_masks_come_back(seen: list[Seen], tmp_path: Path) -> None:
    ids = np.zeros((48, 64), np.uint8)
    ids[5:20, 10:30] = 1
    ids[22:44, 3:9] = ids[30:40, 40:60] = 2  # in two parts
    things = predicted.regions_of(ids, [0])
    assert [(thing.label, thing.box) for thing in things] == [
        (1, (10.0, 5.0, 30.0, 20.0)),
        (2, (3.0, 22.0, 60.0, 44.0)),
    ]
    one = Seen(file=seen[0].file, name="a", width=64, height=48, things=things)
    content = predicted.as_coco([one], ("background", *CLASSES))
    assert [each["area"] for each in content["annotations"]] == [300, 332]
    lines = predicted.as_yolo(one).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "2"]
    outline = np.array(lines[0].split()[1:], float).reshape(-1, 2) * [64, 48]
    corners = [*outline.min(0), *outline.max(0)]
    assert corners == pytest.approx([10.5, 5.5, 29.5, 19.5], abs=1e-3)  # centres of its pixels
    assert set(np.unique(predicted.painted(one)).tolist()) == {0, 2, 3}


def test_surer_masks_lie_on_top(seen: list[Seen]) -> None:
    whole, part = np.ones((48, 64), bool), np.zeros((48, 64), bool)
    part[:10] = True
    masks = encode(np.stack([part, whole]))
    things = tuple(Thing(label=n, score=0.9 - n / 10, mask=mask) for n, mask in enumerate(masks))
    ids = predicted.painted(Seen(file=seen[0].file, name="a", width=64, height=48, things=things))
    assert (ids[:10] == 1).all()
    assert (ids[10:] == 2).all()


def test_table_and_json(seen: list[Seen], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(predicted.as_csv(seen, CLASSES))))
    assert [(row["class"], row["score"], row["x2"]) for row in rows] == [
        ("dog", "0.9", "24.0"),
        ("cat", "0.8", "58.0"),
        ("", "", ""),  # nothing found there is said
    ]
    predicted.write("json", seen, CLASSES, tmp_path)
    first, second = json.loads((tmp_path / "predictions.json").read_text())
    assert first["objects"][0] == {"class": "dog", "score": 0.9, "box": list(BOXES[0])}
    assert second["objects"] == []
