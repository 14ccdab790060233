"""The COCO reader: ids with gaps, three forms of masks, crowds; masks against pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from simsiam.data.detection.checks import checked
from simsiam.data.detection.coco import open_coco, open_coco2017
from simsiam.data.detection.files import Shapes
from simsiam.data.detection.instance_masks import InstanceMasks, Polygons, Rle, encode, from_runs
from simsiam.errors import UserError
from tests.tiny_shapes import CATEGORY_IDS, coco_folder, draw_shapes, runs

SIDE = 64

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_folder(tmp_path_factory.mktemp("coco"), train=11, test=4, side=SIDE)


def test_everything_in_the_file_arrives(folder: Path) -> None:
    splits = open_coco2017(folder)
    assert (len(splits.train), len(splits.test)) == (11, 4)
    source = splits.train
    truth = coco_of(folder / "annotations" / "instances_train2017.json")
    assert source.classes == ("square", "circle", "triangle")  # by rising id
    assert source.has_masks
    crowds = 0
    for index in range(11):
        image, target = source.image(index), source.target(index)
        expected = truth.imgToAnns[image.id]
        assert len(target) == len(expected)
        assert target.masks is not None
        for row, one in enumerate(expected):
            x, y, width, height = one["bbox"]
            assert target.boxes[row].tolist() == pytest.approx([x, y, x + width, y + height])
            assert source.classes[int(target.labels[row]) - 1] == truth.cats[one["category_id"]]["name"]
            assert bool(target.crowd[row]) == bool(one["iscrowd"])
            assert float(target.area[row]) == one["area"]
            assert np.array_equal(target.masks.decode()[row].numpy(), truth.annToMask(one).astype(bool))
            crowds += one["iscrowd"]
    assert crowds > 0
    assert len(source.shapes.rles) > crowds  # type: ignore[union-attr]  # covered shapes too


def test_training_objects_without_extent_are_left_out(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, train=2, test=2, side=SIDE)
    before = open_coco2017(root)
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"][3] = 0
        file.write_text(json.dumps(content))
    after = open_coco2017(root)
    assert len(after.train.objects.labels) == len(before.train.objects.labels) - 1
    assert torch.equal(after.train.target(0).boxes, before.train.target(0).boxes[1:])
    assert after.train.target(0).masks is not None
    checked(after.train, "stop")
    with pytest.raises(UserError, match="empty box: 1"):  # the score must be of the whole set
        checked(after.test, "stop")


def test_polygons_cover_what_was_drawn(folder: Path) -> None:
    source = open_coco2017(folder).test
    for index in range(4):
        drawn = draw_shapes(np.random.default_rng([0, 11 + index]), SIDE)
        target = source.target(index)
        assert target.masks is not None
        ours = target.masks.decode().numpy()
        for row in range(len(drawn.labels)):
            both, either = (ours[row] & drawn.masks[row]).sum(), (ours[row] | drawn.masks[row]).sum()
            assert both / either > 0.85  # the COCO tools fill a polygon half a pixel wider


def test_random_polygons_as_pycocotools_fills_them() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        height, width = (int(side) for side in random.integers(5, 80, 2))
        parts = tuple(np.round(random.uniform(-5, 85, (random.integers(3, 9), 2)), 1) for _ in range(2))
        ours = InstanceMasks(height=height, width=width, shapes=(Polygons(parts=parts),)).decode()[0]
        packed = coco_mask.frPyObjects([part.reshape(-1).tolist() for part in parts], height, width)
        assert np.array_equal(ours.numpy(), coco_mask.decode(coco_mask.merge(packed)).astype(bool))


def test_run_lengths_both_ways() -> None:
    pixels = np.random.default_rng(1).random((5, 9, 7)) < 0.4
    for mask, rle in zip(pixels, encode(pixels), strict=True):
        assert np.array_equal(rle.decode(), mask)
        assert from_runs(runs(mask), height=9, width=7) == rle
        assert np.array_equal(coco_mask.decode(rle.as_coco()).astype(bool), mask)
    assert encode(np.zeros((0, 4, 4), bool)) == ()


def test_a_line_is_no_polygon() -> None:
    """Four numbers would be taken for a box by the COCO tools."""
    line = Polygons(parts=(np.array([[1.0, 1.0], [5.0, 5.0]]),))
    assert not InstanceMasks(height=8, width=8, shapes=(line,)).decode().any()


def test_select_keeps_boxes_and_masks_together(folder: Path) -> None:
    source = open_coco2017(folder).train
    target = next(one for one in map(source.target, range(11)) if len(one) > 2)
    rows = torch.zeros(len(target), dtype=torch.bool)
    rows[[0, 2]] = True
    picked = target.select(rows)
    assert picked.masks is not None
    assert target.masks is not None
    assert torch.equal(picked.boxes, target.boxes[[0, 2]])
    assert torch.equal(picked.masks.decode(), target.masks.decode()[[0, 2]])


def test_masks_packed_and_picked_again() -> None:
    random = np.random.default_rng(2)
    shapes: list[Polygons | Rle] = []
    for number in range(40):
        parts = tuple(random.random((int(random.integers(3, 6)), 2)) for _ in range(int(random.integers(0, 4))))
        shapes.append(Polygons(parts=parts) if number % 5 else encode(random.random((1, 4, 4)) < 0.5)[0])
    packed = Shapes.of(shapes)
    rows = random.permutation(40)[:25]
    for taken, number in ((packed, None), (packed.select(rows), rows)):
        for row, old in enumerate(range(40) if number is None else number):
            one, other = taken[row], shapes[old]
            if isinstance(other, Rle):
                assert one == other
            else:
                assert isinstance(one, Polygons)
                assert len(one.parts) == len(other.parts)
                assert all(np.array_equal(a, b) for a, b in zip(one.parts, other.parts, strict=True))
    assert packed.select(np.array([], np.int64)).points.shape == (0, 2)
    empty = [isinstance(shape, Polygons) and not shape.parts for shape in shapes]
    assert packed.missing.tolist() == empty


def test_subsets(folder: Path) -> None:
    source = open_coco2017(folder).train
    part = source.subset([7, 2])
    assert part.image(0) == source.image(7)
    assert torch.equal(part.target(1).boxes, source.target(2).boxes)
    assert part.read(1).image.size == (SIDE, SIDE)
    assert part.fingerprint() != source.subset([2, 7]).fingerprint()
    assert part.classes == source.classes


def test_boxes_alone_and_no_area(tmp_path: Path) -> None:
    source = made(tmp_path, [{"bbox": [1, 2, 3, 4], "category_id": 5}])
    assert not source.has_masks
    assert source.target(0).masks is None
    assert source.target(0).area.tolist() == [12.0]
    assert source.target(0).boxes.tolist() == [[1, 2, 4, 6]]


def test_the_area_of_a_mask_without_one(tmp_path: Path) -> None:
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    source = made(tmp_path, [{"bbox": [1, 1, 4, 4], "category_id": 5, "segmentation": square}])
    packed = coco_mask.merge(coco_mask.frPyObjects(square, 8, 10))
    assert source.target(0).area.tolist() == [float(coco_mask.area(packed))]


def test_the_box_of_a_mask_without_one(tmp_path: Path) -> None:
    run = {"size": [8, 10], "counts": [9, 4, 67]}  # column 1, rows 1 to 4
    source = made(tmp_path, [{"category_id": 5, "segmentation": run}])
    assert source.target(0).boxes.tolist() == [[1, 1, 2, 5]]
    assert source.target(0).area.tolist() == [4.0]
    assert [one.kind for one in made(tmp_path, [{"category_id": 5}]).problems] == ["unreadable annotation"]


@pytest.mark.parametrize("nothing", [None, [], [[]], [[1, 1, 5, 5]]])
def test_segmentations_without_an_inside_are_none(tmp_path: Path, nothing: Any) -> None:
    box = {"bbox": [1, 1, 4, 4], "category_id": 5}
    assert not made(tmp_path, [{**box, "segmentation": nothing}]).has_masks
    both = made(tmp_path, [{**box, "segmentation": nothing}, {**box, "segmentation": [[1, 1, 5, 1, 5, 5]]}])
    assert both.has_masks
    with pytest.raises(UserError, match="object without mask: 1"):
        checked(both, "stop")


def test_chosen_classes_and_their_order(tmp_path: Path) -> None:
    objects = [{"bbox": [1, 2, 3, 4], "category_id": 5}, {"bbox": [1, 2, 3, 4], "category_id": 2}]
    source = made(tmp_path, objects, classes=("dog", "cat"))
    assert source.target(0).labels.tolist() == [1, 2]
    alone = made(tmp_path, objects, classes=("cat",))
    assert alone.target(0).labels.tolist() == [1]
    with pytest.raises(UserError, match="unknown class: 1"):
        checked(alone, "stop")


def test_entries_of_the_wrong_form_are_told_one_by_one(tmp_path: Path) -> None:
    objects = [
        {"bbox": [1, 2, 3], "category_id": 5},
        {"bbox": [1, 2, 3, 4], "category_id": 77},
        {"bbox": [1, 2, 3, 4], "category_id": 5, "image_id": 999},
        {"bbox": [1, 2, 3, 4], "category_id": 5, "segmentation": {"size": [8, 10], "counts": [5, 5]}},
        {"bbox": [1, 2, 3, 4], "category_id": 5},
    ]
    source = made(tmp_path, objects)
    assert len(source.objects.labels) == 1
    kinds = sorted(problem.kind for problem in source.problems)
    assert kinds == ["annotation without image", "unknown class", "unreadable annotation", "unreadable annotation"]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"bbox": None}, "bbox must be four numbers, x, y, width and height, not None"),
        ({"bbox": [1, 2, 3]}, "bbox must be four numbers"),
        ({"segmentation": [[1, 1, 5, 1, 5]]}, "a polygon of 5 numbers; it takes pairs"),
        ({"category_id": "7"}, "category_id '7' is none of the categories' ids: 2 (cat), 5 (dog)"),
    ],
)
def test_the_message_says_what_the_field_should_hold(tmp_path: Path, entry: dict[str, Any], what: str) -> None:
    [problem] = made(tmp_path, [{"bbox": [1, 2, 3, 4], "category_id": 5, **entry}]).problems
    assert what in problem.what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([], "lacks images, annotations, categories"),
        ({"images": [], "categories": []}, "lacks annotations"),
        ({"images": [], "annotations": [], "categories": []}, "no category at all"),
        ({"images": [{"file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, "KeyError"),
        (
            {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "occurs twice",
        ),
    ],
)
def test_no_coco_file(tmp_path: Path, content: Any, what: str) -> None:
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=what):
        open_coco(tmp_path / "set.json", tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        open_coco(tmp_path / "set.json", tmp_path)
    with pytest.raises(UserError, match="no such folder of images"):
        open_coco(tmp_path / "set.json", tmp_path / "none")


def made(tmp_path: Path, objects: list[dict[str, Any]], *, classes: tuple[str, ...] | None = None) -> Any:
    """A set of one image of 10 x 8 pixels with these objects."""
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 31, "file_name": "a.png", "width": 10, "height": 8}],
        "annotations": [{"id": number, "image_id": 31, **one} for number, one in enumerate(objects)],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    return open_coco(tmp_path / "set.json", tmp_path, classes)


def coco_of(file: Path) -> COCO:
    """pycocotools' view of a file, without its chatter."""
    truth = COCO()
    truth.dataset = json.loads(file.read_text())
    truth.createIndex()
    assert {one["id"] for one in truth.dataset["categories"]} == set(CATEGORY_IDS.values())
    return truth
