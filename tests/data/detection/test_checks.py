"""Everything that may be wrong with a set, told in one message; and what is left when it is to be dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from simsiam.data.detection.boxes import DifficultLearnt
from simsiam.data.detection.checks import SHOWN, Which, checked, with_objects
from simsiam.data.detection.coco import open_coco
from simsiam.data.detection.voc import open_voc_folder
from simsiam.errors import UserError
from tests.data.detection.test_voc import write
from tests.evaluation.detection.box_cases import Made
from tests.evaluation.detection.box_cases import target as made
from tests.tiny_shapes import coco_folder, voc_folder


def faulty_voc(root: Path) -> Path:
    """One good image, and one with each fault."""
    root.mkdir()
    write(root, "good", [("cat", (1, 2, 4, 5)), ("dog", (0, 0, 10.6, 8))])  # over by less than a pixel
    write(root, "outside", [("cat", (5, 2, 14, 5)), ("cat", (1, 1, 3, 3))])
    write(root, "gone", [("cat", (15, 2, 18, 5)), ("cat", (1, 1, 3, 3))])
    write(root, "empty", [("cat", (4, 2, 4, 5)), ("cat", (5, 2, 4, 6)), ("dog", (1, 1, 3, 3))])
    write(root, "unknown", [("cow", (1, 1, 3, 3)), ("cat", (1, 1, 3, 3))])
    write(root, "no_image", [("cat", (1, 1, 3, 3))], image="no_image.jpg")
    write(root, "resized", [("cat", (1, 1, 3, 3))])
    Image.new("RGB", (20, 16)).save(root / "resized.jpg")
    write(root, "damaged", [("cat", (1, 1, 3, 3))])
    (root / "damaged.jpg").write_bytes(b"no picture")
    write(root, "broken", [("cat", (1, 1, 3, 3))])
    (root / "broken.xml").write_text("<annotation><object>")
    write(root, "words", [("cat", ("one", 1, 3, 3))])  # type: ignore[list-item]
    Image.new("RGB", (9, 9)).save(root / "bare.png")
    return root


def test_all_faults_of_a_folder_in_one_message(tmp_path: Path) -> None:
    source = open_voc_folder(faulty_voc(tmp_path / "set"), ("cat", "dog"))
    with pytest.raises(UserError) as raised:
        checked(source, "stop")
    lines = str(raised.value).splitlines()
    folder = tmp_path / "set"
    assert lines[0].startswith(f"{folder}: 11 things are wrong (")
    assert set(lines[1:-1]) == {
        f"  {folder}/outside.xml, object 1 (cat): box outside the image ((5, 2, 14, 5) on 10 x 8 pixels)",
        f"  {folder}/gone.xml, object 1 (cat): box wholly outside ((15, 2, 18, 5) on 10 x 8 pixels)",
        f"  {folder}/empty.xml, object 1 (cat): empty box ((4, 2, 4, 5) on 10 x 8 pixels)",
        f"  {folder}/empty.xml, object 2 (cat): empty box ((5, 2, 4, 6) on 10 x 8 pixels)",
        f"  {folder}/unknown.xml, object 1 (cow): unknown class ('cow' is not among cat, dog)",
        f"  {folder}/no_image.xml: annotation without image (names 'no_image.jpg', and there is none of its own name; "
        f"looked in {folder})",
        f"  {folder}/resized.jpg: image of another size (20 x 16 pixels, but annotated as 10 x 8)",
        f"  {folder}/damaged.jpg: damaged image (not an image that Pillow can read: a text file)",
        f"  {folder}/broken.xml: unreadable annotation (no readable XML (no element found: line 1, column 20))",
        f"  {folder}/words.xml: unreadable annotation (cat: bndbox needs xmin, ymin, xmax and ymax as numbers, not "
        "['one', '1', '3', '3'])",
        f"  {folder}/bare.png: image without annotation (no bare.xml in {folder})",
    }
    assert lines[-1].endswith("skip these images and objects with --skip-bad.")


def test_what_is_left_of_it(tmp_path: Path) -> None:
    kept = checked(open_voc_folder(faulty_voc(tmp_path / "set"), ("cat", "dog")), "drop")
    found = {kept.source.image(index).file.stem: kept.source.target(index) for index in range(len(kept.source))}
    assert {name: one.boxes.tolist() for name, one in found.items()} == {
        "good": [[1, 2, 4, 5], [0, 0, 10, 8]],
        "outside": [[5, 2, 10, 5], [1, 1, 3, 3]],
        "gone": [[1, 1, 3, 3]],
        "empty": [[1, 1, 3, 3]],
        "unknown": [[1, 1, 3, 3]],
    }
    assert found["empty"].labels.tolist() == [2]
    account = kept.source.inventory
    assert (account.found, account.used) == (8, 5)
    assert sum(each.count for each in account.left_out) == 10
    assert [each.what for each in account.left_out if each.reason.startswith("unreadable annotation;")] == [
        "annotation"
    ]
    [cut] = kept.notes
    assert cut == "set: boxes cut at the edge of their image: 1."
    assert checked(kept.source, "stop").notes == []


def test_a_sound_set_passes_as_it_is(tmp_path: Path) -> None:
    source = open_voc_folder(voc_folder(tmp_path / "set", images=4, side=48))
    kept = checked(source, "stop")
    assert kept.notes == []
    assert kept.source.fingerprint() == source.fingerprint()
    for index in range(4):
        assert torch.equal(kept.source.target(index).boxes, source.target(index).boxes)


def test_a_long_list_is_cut_but_counted(tmp_path: Path) -> None:
    for number in range(SHOWN + 7):
        write(tmp_path, f"{number:03d}", [("cat", (4, 2, 4, 5))])
    with pytest.raises(UserError) as raised:
        checked(open_voc_folder(tmp_path), "stop")
    lines = str(raised.value).splitlines()
    assert len(lines) == SHOWN + 3
    assert lines[-2] == "  and 7 more"
    assert f"(empty box: {SHOWN + 7})" in lines[0]


def test_nothing_left(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (4, 2, 4, 5))])
    with pytest.raises(UserError, match="no image with a usable object is left"):
        checked(open_voc_folder(tmp_path), "drop")


def test_sizes_that_the_annotation_does_not_say(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5)), ("cat", (5, 2, 12, 5))])
    text = (tmp_path / "a.xml").read_text()
    (tmp_path / "a.xml").write_text(text.replace("<width>10</width><height>8</height>", ""))
    with pytest.raises(UserError, match=r"\(5, 2, 12, 5\) on 10 x 8 pixels"):
        checked(open_voc_folder(tmp_path), "stop")
    image = checked(open_voc_folder(tmp_path), "drop").source.image(0)
    assert (image.width, image.height) == (10, 8)


def coco(tmp_path: Path, objects: list[dict[str, Any]]) -> Any:
    """Two images of 10 x 8 pixels, one of which has no file, with these objects on them."""
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": 10, "height": 8} for number, name in enumerate("ab")
        ],
        "annotations": [{"id": number, "category_id": 1, **one} for number, one in enumerate(objects)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    return open_coco(tmp_path / "set.json", tmp_path)


def test_faults_of_masks(tmp_path: Path) -> None:
    box = {"image_id": 0, "bbox": [1, 1, 4, 4]}
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    source = coco(
        tmp_path,
        [
            {**box, "segmentation": square},
            box,
            {**box, "segmentation": {"size": [4, 4], "counts": [4, 4, 8]}},
            {**box, "image_id": 1, "segmentation": square},
            {**box, "segmentation": {"size": [8, 10], "counts": [9, 4, 67]}},
        ],
    )
    with pytest.raises(UserError) as raised:
        checked(source, "stop")
    assert str(raised.value).splitlines()[1:-1] == [
        f"  {tmp_path}/b.png: missing image (no such file)",
        "  set.json, annotation 1 on a.png: object without mask (no segmentation, though others have one)",
        "  set.json, annotation 2 on a.png: mask of another size (4 x 4 on 10 x 8 pixels)",
    ]
    kept = checked(source, "drop").source
    assert len(kept) == 1
    target = kept.target(0)
    assert target.masks is not None
    assert len(target) == len(target.masks) == 2
    assert target.masks.decode()[1].sum() == 4  # the run lengths followed their box


def test_images_without_ordinary_objects_are_not_trained_on(tmp_path: Path) -> None:
    Image.new("RGB", (10, 8)).save(tmp_path / "b.png")
    box = {"bbox": [1, 1, 4, 4]}
    source = coco(tmp_path, [{**box, "image_id": 0, "iscrowd": 1}, {**box, "image_id": 1}])
    assert [image.path for image in source.images] == ["a.png", "b.png"]
    kept = with_objects(source)
    assert len(kept) == 1
    assert kept.image(0).path == "b.png"
    assert len(with_objects(source, "difficult")) == 1
    assert with_objects(source, "any") is source
    whole = open_coco_folder(tmp_path / "whole")
    assert with_objects(whole) is whole


@pytest.mark.parametrize(("which", "kept"), [("ordinary", [0]), ("difficult", [0, 1]), ("any", [0, 1, 2])])
def test_which_images_have_an_object(which: Which, kept: list[int]) -> None:
    box = [(1.0, 1.0, 5.0, 5.0)]
    targets = [made(box * 2, difficult=[True, False]), made(box, difficult=[True]), made(box, crowd=[True]), made([])]
    found = with_objects(Made(targets, ("cat",)), which)
    assert [found.image(row).id for row in range(len(found))] == kept


def test_difficult_objects_can_be_learnt_like_others() -> None:
    box = [(1.0, 1.0, 5.0, 5.0)]
    source = Made(
        [made(box * 3, [1, 2, 1], difficult=[True, False, False], crowd=[False, False, True])], ("cat", "dog")
    )
    learnt = DifficultLearnt(source)
    assert source.target(0).ordinary.tolist() == [False, True, False]
    assert learnt.target(0).ordinary.tolist() == [True, True, False]
    assert learnt.target(0).labels.tolist() == [1, 2, 1]
    assert len(learnt) == 1
    assert learnt.image(0) == source.image(0)
    assert learnt.fingerprint() != source.fingerprint()


def open_coco_folder(root: Path) -> Any:
    coco_folder(root, train=3, test=1, side=48)
    return open_coco(root / "annotations" / "instances_train2017.json", root / "train2017")


@pytest.mark.parametrize(
    "written",
    ["a b.jpg", "images/A b.JPG", "C:\\photos\\A b.JPG", "/home/me/A b.JPG"],
    ids=["letters", "folder", "windows", "home"],
)
def test_an_image_is_found_by_its_name(tmp_path: Path, written: str) -> None:
    root = tmp_path / "images of mine"
    root.mkdir()
    Image.new("RGB", (10, 8)).save(root / "A b.JPG")
    image = {"id": 1, "file_name": written}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert checked(open_coco(tmp_path / "set.json", root), "stop").source.image(0).file == root / "A b.JPG"


def test_a_set_without_any_object(tmp_path: Path) -> None:
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 image and not one annotated object; nothing to learn from"):
        checked(open_coco(tmp_path / "set.json", tmp_path), "drop")
