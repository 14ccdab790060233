"""Annotations as people have them: every oddity is read right, or refused and named; never silently wrong."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.data.detection.checks import Checked, checked
from simsiam.data.detection.coco import open_coco
from simsiam.data.detection.files import BoxFiles
from simsiam.data.detection.formats import recognise
from simsiam.data.detection.voc import open_voc_folder
from simsiam.data.images import AS_STORED
from simsiam.data.segmentation.checks import absent_classes, mask_problems
from simsiam.data.segmentation.class_list import read_classes
from simsiam.data.segmentation.folders import open_mask_tree
from simsiam.data.segmentation.masks import IGNORE, MaskSource
from simsiam.errors import UserError
from tests.data.detection.test_voc import write

CASES = Path(__file__).parent


def voc(folder: Path) -> Checked:
    return checked(open_voc_folder(folder), "stop")


def test_side_files_of_macos_are_passed_over() -> None:
    found = voc(CASES / "apple_double_in_detection_folder/d")
    assert len(found.source) == 6
    assert len(found.source.objects.labels) == 6
    assert found.notes == []


def test_xml_of_an_encoding_that_no_one_knows_is_read_as_utf8() -> None:
    found = voc(CASES / "voc_xml_encoding_unknown/d")
    assert len(found.source) == 4


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("UTF-8", "utf-8"),
        ("UTF-8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("gb2312", "gb2312"),
        ("GBK", "gbk"),
        ("UTF-8", "gb2312"),  # as tools of a Chinese Windows write it
        ("shift_jis", "shift_jis"),
        ("big5", "big5"),
        ("Unicode", "utf-8"),
    ],
)
def test_names_in_any_encoding(tmp_path: Path, declared: str, encoding: str) -> None:
    write(tmp_path, "a", [("车", (1, 2, 4, 5))] if encoding[:2] in ("gb", "ut") else [("車", (1, 2, 4, 5))])
    text = (tmp_path / "a.xml").read_text(encoding="utf-8")
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding))
    assert voc(tmp_path).source.classes in (("车",), ("車",))


def test_a_bomb_of_entities_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))])
    layers = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    text = (tmp_path / "a.xml").read_text().replace("cat", "&l11;")
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{layers}]>{text}')
    with pytest.raises(UserError, match=r"a\.xml: unreadable annotation \(it declares entities"):
        voc(tmp_path)


@pytest.mark.parametrize(
    ("word", "difficult"), [("true", True), ("True", True), ("1", True), ("0", False), ("", False)]
)
def test_difficult_in_any_words(tmp_path: Path, word: str, difficult: bool) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))])
    text = (tmp_path / "a.xml").read_text().replace("<bndbox>", f"<difficult>{word}</difficult><bndbox>")
    (tmp_path / "a.xml").write_text(text)
    assert open_voc_folder(tmp_path).objects.difficult.tolist() == [difficult]


def test_names_of_classes_that_look_the_same_are_one_class(tmp_path: Path) -> None:
    write(tmp_path, "a", [("Café", (1, 2, 4, 5)), (f" {unicodedata.normalize('NFD', 'Café')} ", (1, 1, 3, 3))])
    found = voc(tmp_path)
    assert found.source.classes == ("Café",)
    assert found.source.objects.labels.tolist() == [1, 1]
    assert any("look the same and were read as one class" in note for note in found.notes)
    (tmp_path / "test").mkdir()
    write(tmp_path / "test", "b", [("Café ", (1, 2, 4, 5))])
    (part,) = recognise(tmp_path / "test", classes=("Café",)).parts.values()
    assert part.notes == ("test: 'Café ' and 'Café' look the same and were read as one class.",)


def test_names_of_classes_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", [("Square", (1, 2, 4, 5)), ("square", (1, 1, 3, 3))])
    with pytest.raises(UserError, match="'Square' and 'square' differ in capitals alone"):
        open_voc_folder(tmp_path)


def test_a_test_set_that_writes_a_class_otherwise_is_told_the_difference(tmp_path: Path) -> None:
    write(tmp_path, "a", [("Square ", (1, 2, 4, 5)), ("square", (1, 1, 3, 3))])
    with pytest.raises(UserError, match=r"object 2 \(square\).*it differs from 'Square' in capitals alone"):
        checked(open_voc_folder(tmp_path, ("Square",)), "stop")


@pytest.mark.parametrize(("size", "orientation", "state"), [((20, 12), 3, "upright"), ((16, 16), 6, "upright")])
def test_images_that_exif_turns_are_named(tmp_path: Path, size: tuple[int, int], orientation: int, state: str) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))], size=size)
    _turn(tmp_path / "a.jpg", size, orientation)
    [note] = voc(tmp_path).notes
    assert "1 image is turned by EXIF" in note
    assert state in note


@pytest.mark.parametrize("orientation", sorted(AS_STORED))
def test_boxes_of_the_stored_picture_are_said_to_be_so(tmp_path: Path, orientation: int) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))], size=(20, 12))
    _turn(tmp_path / "a.jpg", (20, 12), orientation)
    [note] = voc(tmp_path).notes
    assert "annotated as stored: read as stored" in note


def _turn(file: Path, size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(file, exif=exif)


def coco(
    folder: Path,
    objects: list[dict[str, Any]],
    *,
    categories: list[dict[str, Any]] | None = None,
    images: tuple[str, ...] = ("a.png", "b.png"),
) -> Path:
    """A json of images of 100 x 80 pixels."""
    for name in set(images):
        Image.new("RGB", (100, 80)).save(folder / name)
    entries = [{"id": n, "file_name": name, "width": 100, "height": 80} for n, name in enumerate(images)]
    annotations = [{"id": n, "image_id": 0, "category_id": 1, **one} for n, one in enumerate(objects)]
    content = {"images": entries, "annotations": annotations, "categories": categories or [{"id": 1, "name": "cat"}]}
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json"


def opened(file: Path) -> Checked:
    return checked(open_coco(file, None), "stop")


def test_roboflows_root_category_is_left_out() -> None:
    folder = CASES / "roboflow_root_category"
    found = checked(open_coco(folder / "ann.json", folder / "img"), "stop")
    assert found.source.classes == ("cats", "dog")  # the root has the name of a class
    assert sorted(set(found.source.objects.labels.tolist())) == [1, 2]
    assert any("the category 'cats' is the group of the others" in note for note in found.notes)


def test_a_root_category_of_another_name(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
    ]
    assert opened(coco(tmp_path, [{"bbox": [1, 1, 20, 20]}], categories=categories)).source.classes == ("cat",)
    alone = [{"id": 1, "name": "cat", "supercategory": "none"}]
    assert opened(coco(tmp_path, [{"bbox": [1, 1, 20, 20]}], categories=alone)).source.classes == ("cat",)


def test_boxes_that_are_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all 2 boxes lie between 0 and 1, so they are fractions"):
        opened(coco(tmp_path, [{"bbox": [0.1, 0.2, 0.3, 0.4]}, {"bbox": [0.5, 0.25, 0.5, 0.5]}]))
    write(tmp_path, "a", [("cat", (0.1, 0.2, 0.3, 0.4))])
    with pytest.raises(UserError, match="they are fractions"):
        voc(tmp_path)


CORNERS = [(10, 10, 40, 30), (50, 40, 95, 70), (60, 20, 90, 44), (5, 50, 30, 75), (70, 60, 99, 79)]


def test_corners_written_as_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fit their images only as two corners"):
        opened(coco(tmp_path, [{"bbox": list(box)} for box in CORNERS]))
    inside = [(10, 8, 30, 24), (5, 5, 40, 30), (20, 10, 45, 38), (2, 3, 9, 9)]  # area alone tells
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in inside]
    with pytest.raises(UserError, match="only as two corners"):
        opened(coco(tmp_path, [{"bbox": list(box), "area": area} for box, area in zip(inside, areas, strict=True)]))


def test_right_boxes_are_not_taken_for_corners(tmp_path: Path) -> None:
    sizes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in CORNERS]
    found = opened(coco(tmp_path, [{"bbox": box} for box in sizes]))
    assert found.source.objects.boxes.tolist() == [list(map(float, box)) for box in CORNERS]
    large = [[n, n, 60 + n, 50 + n] for n in range(8)]  # one large object a photo: each size exceeds the corner
    assert opened(coco(tmp_path, [{"bbox": box} for box in large])).notes == []


def test_masks_far_from_their_box_are_named(tmp_path: Path) -> None:
    near, far = [[10, 10, 30, 10, 30, 30]], [[60, 50, 90, 50, 90, 70]]
    runs = {"size": [80, 100], "counts": [80 * 50 + 5, 4, 80 * 50 - 9]}
    objects = [{"bbox": [10, 10, 20, 20], "segmentation": shape} for shape in (near, far, near, runs)]
    with pytest.raises(UserError) as raised:
        opened(coco(tmp_path, objects))
    assert "mask far from its box: 2" in str(raised.value)
    assert "annotation 1 on a.png: mask far from its box (box (10, 10, 30, 30), mask within (60, 50, 90, 70))" in str(
        raised.value
    )


@pytest.mark.parametrize(
    ("value", "crowd"), [("0", False), ("1", True), (0, False), (1, True), (True, True), (None, False)]
)
def test_iscrowd_in_any_form(tmp_path: Path, value: object, crowd: bool) -> None:
    file = coco(tmp_path, [{"bbox": [1, 1, 20, 20], "iscrowd": value}, {"bbox": [1, 1, 20, 20]}])
    assert open_coco(file, None).objects.crowd.tolist() == [crowd, False]


def test_brushes_of_cvat_are_single_objects(tmp_path: Path) -> None:
    runs = {"size": [80, 100], "counts": [80 * 50 + 5, 4, 80 * 50 - 9]}
    stroke = {"bbox": [50, 5, 1, 4], "segmentation": runs, "iscrowd": 1, "area": 4}
    found = opened(coco(tmp_path, [{**stroke, "attributes": {"occluded": False}}]))
    assert found.source.objects.crowd.tolist() == [False]
    assert any("1 mask marked as a crowd as CVAT marks what is drawn by brush" in note for note in found.notes)
    [note] = checked(
        open_coco(coco(tmp_path, [stroke, {**stroke, "iscrowd": 0, "bbox": [50, 4, 1, 5]}]), None), "stop"
    ).notes
    assert "1 of 2 objects are marked as crowds" in note


def test_images_listed_twice_are_named(tmp_path: Path) -> None:
    file = coco(tmp_path, [{"bbox": [1, 1, 20, 20]}], images=("a.png", "b.png", "a.png"))
    with pytest.raises(UserError, match=r"a\.png: image listed twice \(as 0 and as 2\)"):
        opened(file)
    kept = checked(open_coco(file, None), "drop")
    assert [image.id for image in kept.source.images] == [0, 1]
    assert len(kept.source.objects.labels) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb2312"])
def test_json_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    file = coco(tmp_path, [{"bbox": [1, 1, 20, 20]}], categories=[{"id": 1, "name": "车"}])
    file.write_bytes(json.dumps(json.loads(file.read_text()), ensure_ascii=False).encode(encoding))
    assert opened(file).source.classes == ("车",)


@pytest.mark.parametrize("place", ["images", "JPEGImages", "Images", "IMG"])
def test_images_lie_beside_annotations(tmp_path: Path, place: str) -> None:
    (tmp_path / "annotations").mkdir()
    file = coco(tmp_path, [{"bbox": [1, 1, 20, 20]}]).rename(tmp_path / "annotations/instances.json")
    (tmp_path / place).mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(tmp_path / place / name)
    assert {image.file.parent.name for image in opened(file).source.images} == {place}


def test_where_images_were_looked_for_is_said(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    file = coco(tmp_path, [{"bbox": [1, 1, 20, 20]}]).rename(tmp_path / "annotations/instances.json")
    for name in ("a.png", "b.png"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="none of its 2 images is there") as raised:
        opened(file)
    assert f"looked in {tmp_path}/annotations, {tmp_path}. Name their folder by --images." in str(raised.value)


def test_extents_of_masks_are_those_of_their_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes: list[Any] = []
    for _ in range(30):
        corners = random.integers(0, 70, (int(random.integers(1, 3)), 5, 2))
        shapes.append([part.reshape(-1).tolist() for part in corners])
    source = open_coco(coco(tmp_path, [{"bbox": [0, 0, 99, 79], "segmentation": shape} for shape in shapes]), None)
    assert source.shapes is not None
    for row, shape in enumerate(shapes):
        points = np.concatenate([np.array(part).reshape(-1, 2) for part in shape])
        assert source.shapes.extents[row].tolist() == [*points.min(0), *points.max(0)]


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> BoxFiles:
    """A set of one cat of 20 x 20 pixels at 1, 1, after a change of its json."""
    file = coco(folder, [{"bbox": [1, 1, 20, 20], "area": 400}])
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return opened(file).source


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["annotations"][0].update(category_id="1", image_id="0"),
        lambda content: content["annotations"][0].update(category_id=1.0, image_id=0.0),
        lambda content: content["categories"][0].update(id="1"),
        lambda content: content["categories"].append(dict(content["categories"][0])),
        lambda content: content["images"][0].update(width="100.0", height="80.0"),
        lambda content: content["annotations"][0].update(bbox=["1", "1.0", "20", "20"]),
        lambda content: content["annotations"][0].update(area=None),
        lambda content: content["annotations"][0].update(area=0),
        lambda content: content["images"][0].update(file_name="https://bucket/photos/%61.png?token=1"),
        lambda content: content["images"][0].update(file_name="/data/upload/3/0a1b2c3d-a.png"),
        lambda content: content["images"][0].update(file_name="/data/local-files/?d=photos/a.png"),
        lambda content: content["images"][0].update(file_name="C:\\photos\\A.PNG"),
    ],
)
def test_harmless_oddities_are_read(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    source = changed(tmp_path, change)
    assert source.classes == ("cat",)
    assert source.target(0).boxes.tolist() == [[1, 1, 21, 21]]
    assert source.target(0).area.tolist() == [400]


SQUARE = [1, 1, 21, 1, 21, 21, 1, 21]


@pytest.mark.parametrize(
    "shape", [[SQUARE], SQUARE, [[1, 1], [21, 1], [21, 21], [1, 21]], [[[1, 1], [21, 1], [21, 21], [1, 21]]]]
)
@pytest.mark.parametrize("box", [[1, 1, 20, 20], None, []])
def test_outlines_in_any_nesting(tmp_path: Path, shape: list[Any], box: list[int] | None) -> None:
    target = changed(tmp_path, lambda content: content["annotations"][0].update(segmentation=shape, bbox=box)).target(0)
    assert target.boxes.tolist() == [[1, 1, 21, 21]]
    assert target.masks is not None
    assert int(target.masks.decode().sum()) == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["categories"][0].update(name=None), "the category of id 1 has no name"),
        (lambda content: content["images"][1].pop("file_name"), "image 1 without a file_name: missing image"),
        (lambda content: content["images"][0].update(width=80, height=100), "image of another size: 1"),
        (lambda content: content["annotations"][0].update(bbox=None), "bbox must be four numbers"),
        (lambda content: content["annotations"][0].update(category_id=7), r"none of the categories' ids: 1 \(cat\)"),
    ],
)
def test_what_means_nothing_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        changed(tmp_path, change)


def test_fractions_among_pixels_are_named(tmp_path: Path) -> None:
    boxes = [[10, 10, 30, 30], [0.2, 0.2, 0.5, 0.81], [20, 30, 20, 40], [5, 5, 9, 9]]
    with pytest.raises(UserError, match=r"annotation 1 on a.png: box in fractions \(\(0.2, 0.2, 0.7, 1.01\)"):
        opened(coco(tmp_path, [{"bbox": box} for box in boxes]))
    with pytest.raises(UserError, match="3 of 4 boxes lie between 0 and 1"):
        opened(coco(tmp_path, [{"bbox": box} for box in [*boxes[:1], *[boxes[1]] * 3]]))


def test_objects_that_stand_twice_and_percentages_are_said(tmp_path: Path) -> None:
    [note] = opened(coco(tmp_path, [{"bbox": [1, 1, 20, 20]}] * 3)).notes
    assert "2 of 3 objects repeat another of the same class and box" in note
    for name in ("a.png", "b.png"):
        Image.new("RGB", (640, 480)).save(tmp_path / name)
    file = tmp_path / "set.json"
    content = json.loads(file.read_text())
    content["annotations"] = [{"id": n, "image_id": 0, "category_id": 1, "bbox": [9 * n, n, 9, 9]} for n in range(11)]
    content["images"] = [{"id": 0, "file_name": "a.png"}]
    file.write_text(json.dumps(content))
    [note] = opened(file).notes
    assert "no box reaches beyond the first 100 pixels" in note


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("<annotation xmlns='http://x.org/a'>", "utf-8", "cat"),
        ("\n <?xml version='1.0'?><annotation>", "utf-8", "cat"),
        ("<annotation>", "utf-8", "salt & pepper &amp; &#99;"),
        ("<?xml version='1.0' encoding='utf-8'?><annotation>", "gb18030", "镕堃"),
        ("<annotation>", "latin-1", "chèvre"),
    ],
)
def test_xml_as_people_write_it(tmp_path: Path, text: str, encoding: str, name: str) -> None:
    write(tmp_path, "a", [("NAME", (1, 2, 4, 5))])
    old = (tmp_path / "a.xml").read_text()
    (tmp_path / "a.xml").write_bytes(old.replace("<annotation>", text).replace("NAME", name).encode(encoding))
    assert voc(tmp_path).source.classes == (name.replace("&amp; &#99;", "& c"),)


def masks(root: Path, values: list[np.ndarray], classes: str, *, palette: list[int] | None = None) -> Path:
    """images/ and masks/ with these masks, and classes.txt."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, one in enumerate(values):
        Image.new("RGB", one.shape[::-1]).save(root / "images" / f"{number}.jpg")
        mask = Image.fromarray(one.astype(np.uint8))
        if palette is not None:
            mask.putpalette(palette)
        mask.save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text(classes)
    return root


def train_of(root: Path) -> MaskSource:
    return open_mask_tree(root, None, seed=0).train


def problems(*sources: MaskSource) -> list[str]:
    return [problem for found in mask_problems(*sources, threads=1) for problem in found.problems]


BLOCKS = [np.repeat([[0, 1, 2]], 4, axis=0)] * 4


def test_labelmes_ignore_line_counts_as_no_class() -> None:
    source = train_of(CASES / "labelme_ignore_line/d")
    assert source.classes == ("_background_", "cat", "dog")
    assert source.coding.ids == {0: 0, 1: 1, 2: 2, 255: IGNORE}
    seen = {number for found in mask_problems(source, threads=1) for number in found.classes}
    assert absent_classes(source, seen) == []


def test_a_class_that_no_mask_shows_is_named_with_255(tmp_path: Path) -> None:
    values = [np.repeat([[0, 1, 255]], 4, axis=0)] * 4
    source = train_of(masks(tmp_path, values, "background\ncat\ndog\n"))
    [note] = absent_classes(source, {number for found in mask_problems(source, threads=1) for number in found.classes})
    assert "no mask shows dog" in note
    assert note.endswith("if it stands for a class, list that as `255 dog`.")


def test_a_palette_in_another_order_than_the_colours_of_the_classes(tmp_path: Path) -> None:
    palette = [0, 0, 0, 0, 255, 0, 255, 0, 0]  # green before red
    source = train_of(masks(tmp_path, BLOCKS, "0 0 0 background\n255 0 0 cat\n0 255 0 dog\n", palette=palette))
    assert problems(source) == []
    assert source.mask(0)[0].tolist() == [0, 2, 1]


def test_a_palette_without_the_colours_of_the_classes_gives_its_numbers(tmp_path: Path) -> None:
    grey = [level for index in range(3) for level in (index, index, index)]
    source = train_of(masks(tmp_path, BLOCKS, "0 0 0 background\n255 0 0 cat\n0 255 0 dog\n", palette=grey))
    assert source.mask(0)[0].tolist() == [0, 1, 2]


def test_palettes_that_number_the_colours_in_different_orders_are_refused(tmp_path: Path) -> None:
    root = masks(tmp_path, BLOCKS, "background\ncat\ndog\n", palette=[0, 0, 0, 255, 0, 0, 0, 255, 0])
    other = Image.fromarray(BLOCKS[0].astype(np.uint8))
    other.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0])
    other.save(root / "masks/0.png")
    splits = open_mask_tree(root, None, seed=0)
    assert any("their numbers mean different things" in each for each in problems(splits.train, splits.test))


def test_two_images_of_one_name_are_named(tmp_path: Path) -> None:
    root = masks(tmp_path, BLOCKS, "background\ncat\ndog\n")
    Image.new("RGB", (3, 4)).save(root / "images/1.png")
    splits = open_mask_tree(root, None, seed=0)
    [twins] = list(dict.fromkeys(problems(splits.train, splits.test)))
    assert "1.jpg" in twins
    assert "2 files of one name; keep the one that is meant" in twins


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("Train", "Val"), ("TRAIN", "test"), ("training", "validation")]
)
@pytest.mark.parametrize("kind_first", [True, False])
def test_the_users_own_split_is_used_and_named(tmp_path: Path, train: str, val: str, kind_first: bool) -> None:
    source = masks(tmp_path / "source", BLOCKS, "background\ncat\ndog\n")
    root = tmp_path / "set"
    for split, numbers in ((train, (0, 1, 2)), (val, (3,))):
        for kind, suffix in (("Images", "jpg"), ("masks", "png")):
            folder = root / kind / split if kind_first else root / split / kind
            folder.mkdir(parents=True)
            for number in numbers:
                (source / kind.lower() / f"{number}.{suffix}").rename(folder / f"{number}.{suffix}")
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    splits = open_mask_tree(root, None, seed=0)
    assert (len(splits.train), len(splits.test)) == (3, 1)
    said = f"{train} 3, {val} 1 images, 3 classes. Trained on {train} and scored on {val}, its own split."
    assert splits.notes == (f"{root}: images and masks: {said}",)


def test_a_split_that_is_not_used_is_said(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        masks(tmp_path / "set" / split, BLOCKS, "background\ncat\ndog\n")
    splits = open_mask_tree(tmp_path / "set", None, seed=0)
    assert splits.notes[0].endswith("Trained on train and scored on valid, its own split; test is not used.")


def test_classes_of_masks_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ground\nSquare \nsquare\n")
    with pytest.raises(UserError, match="'Square' and 'square' differ in capitals alone"):
        read_classes(tmp_path / "classes.txt")


LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
cat:250,50,83::
dog:51,221,255::
"""


def test_cvat_segmentation_masks(tmp_path: Path) -> None:
    masks(tmp_path / "made", BLOCKS, "")
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    for place in ("SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / "set" / place).mkdir(parents=True)
    for number, one in enumerate(BLOCKS):
        Image.fromarray(colours[one]).save(tmp_path / "set/SegmentationClass" / f"{number}.png")
    (tmp_path / "set/ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "set/labelmap.txt").write_text(LABELMAP)
    with pytest.raises(UserError, match=r"no image of these masks was found; looked in .*Put them in JPEGImages/"):
        open_mask_tree(tmp_path / "set", None, seed=0)
    (tmp_path / "made/images").rename(tmp_path / "set/JPEGImages")
    splits = open_mask_tree(tmp_path / "set", None, seed=0)
    assert splits.train.classes == ("background", "cat", "dog")
    assert len(splits.train) + len(splits.test) == 4
    assert problems(splits.train, splits.test) == []
    assert splits.train.mask(0)[0].tolist() == [0, 1, 2]
    assert "CVAT segmentation masks" in splits.notes[0]
    for name, listed in (("train", "0\n2\n3\n"), ("val", "1\n")):
        (tmp_path / "set/ImageSets/Segmentation" / f"{name}.txt").write_text(listed)
    splits = open_mask_tree(tmp_path / "set", None, seed=0)
    assert [pair.name for pair in splits.test.pairs] == ["1.jpg"]


def test_roboflow_semantic_masks(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        made = masks(tmp_path / "made" / split, BLOCKS[:count], "")
        (tmp_path / "set" / split).mkdir(parents=True)
        for number in range(count):
            name = f"photo_{number}_jpg.rf.0a1b"
            (made / f"images/{number}.jpg").rename(tmp_path / "set" / split / f"{name}.jpg")
            (made / f"masks/{number}.png").rename(tmp_path / "set" / split / f"{name}_mask.png")
        (tmp_path / "set" / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    splits = open_mask_tree(tmp_path / "set", None, seed=0)
    assert (len(splits.train), len(splits.test)) == (3, 2)
    assert splits.train.classes == ("background", "cat", "dog")
    assert problems(splits.train, splits.test) == []
    assert splits.train.mask(0)[0].tolist() == [0, 1, 2]
    assert "Roboflow semantic masks: train 3, valid 2, test 1 images, 3 classes. Trained on train" in splits.notes[0]


def test_a_table_of_names_and_colours(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nSky,128,128,128\nTraffic Light,0, 0,64\n")
    listed = read_classes(tmp_path / "class_dict.csv")
    assert listed.names == ("Sky", "Traffic Light")
    assert listed.coding.colours == {(128, 128, 128): 0, (0, 0, 64): 1, (224, 224, 192): IGNORE}


def test_a_tree_without_masks_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"no images with masks recognised in it. Looked for images/ and masks/"):
        open_mask_tree(tmp_path, None, seed=0)
