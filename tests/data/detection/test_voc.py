"""VOC-XML readers: the published trees, plain folders, and every coordinate where it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from simsiam.data.detection.boxes import BoxImage, read_annotated
from simsiam.data.detection.checks import checked
from simsiam.data.detection.voc import open_voc07, open_voc0712, open_voc_folder
from simsiam.data.images import UnreadableImage
from simsiam.errors import UserError
from tests.tiny_shapes import CLASSES, HIDDEN, draw_shapes, voc_folder, voc_tree

SIDE = 48


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc_tree(tmp_path_factory.mktemp("voc") / "VOCdevkit", train=9, test=5, side=SIDE)


@pytest.mark.parametrize("above", [False, True])
def test_both_years_are_joined_once(devkit: Path, above: bool) -> None:
    splits = open_voc0712(devkit.parent if above else devkit)
    assert len(splits.train) == 9
    assert len(splits.test) == 5
    paths = [splits.train.image(index).path for index in range(9)]
    assert paths[:4] == [f"VOC2007/JPEGImages/{number:06d}.jpg" for number in range(1, 5)]
    assert paths[4:] == [f"VOC2012/JPEGImages/{number:06d}.jpg" for number in range(10, 15)]
    assert splits.train.classes == splits.test.classes == CLASSES
    assert splits.train.name == "voc0712-trainval"
    assert splits.test.name == "voc2007-test"


def test_targets_are_the_shapes_that_were_drawn(devkit: Path) -> None:
    splits = open_voc0712(devkit)
    for source, first in ((splits.train, 0), (splits.test, 4)):
        for index in range(len(source)):
            number = int(source.image(index).file.stem) - 1
            drawn = draw_shapes(np.random.default_rng([0, number]), SIDE)
            sample = source.read(index)
            assert torch.equal(sample.target.boxes, torch.from_numpy(drawn.boxes))
            assert sample.target.labels.tolist() == drawn.labels.tolist()
            assert sample.target.difficult.tolist() == (drawn.visible < HIDDEN).tolist()
            assert not sample.target.crowd.any()
            assert sample.target.masks is None
            sides = drawn.boxes[:, 2:] - drawn.boxes[:, :2]
            assert sample.target.area.tolist() == pytest.approx(sides.prod(1).tolist())
            assert sample.image.size == (SIDE, SIDE)
            assert sample.image.mode == "RGB"
            assert number >= first


def test_voc07_alone(devkit: Path) -> None:
    splits = open_voc07(devkit)
    assert (len(splits.train), len(splits.test)) == (4, 5)
    assert len(open_voc07(devkit / "VOC2007").train) == 4


@pytest.mark.parametrize(("first_pixel", "corners"), [(0, (1, 2, 4, 5)), (1, (0, 1, 4, 5))])
def test_how_pixels_are_counted(tmp_path: Path, first_pixel: int, corners: tuple[int, ...]) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))])
    source = open_voc_folder(tmp_path, first_pixel=first_pixel)  # type: ignore[arg-type]
    assert source.target(0).boxes.tolist() == [list(corners)]


def test_a_missing_year(devkit: Path, tmp_path: Path) -> None:
    (tmp_path / "VOC2007").symlink_to(devkit / "VOC2007")
    with pytest.raises(UserError, match="no VOCdevkit with VOC2007 and VOC2012"):
        open_voc0712(tmp_path)


def test_any_folder(tmp_path: Path) -> None:
    beside = open_voc_folder(voc_folder(tmp_path / "set", images=3, side=SIDE))
    assert len(beside) == 3
    for index in range(3):
        drawn = draw_shapes(np.random.default_rng([0, index]), SIDE)
        assert torch.equal(beside.target(index).boxes, torch.from_numpy(drawn.boxes))
        assert beside.image(index).path == f"shapes {index:04d}.png"
    for part, ending in (("JPEGImages", "png"), ("Annotations", "xml")):
        (tmp_path / "apart" / part).mkdir(parents=True)
        for file in (tmp_path / "set").glob(f"*.{ending}"):
            file.rename(tmp_path / "apart" / part / file.name)
    apart = open_voc_folder(tmp_path / "apart")
    assert [apart.image(index).path for index in range(3)] == [
        f"JPEGImages/shapes {index:04d}.png" for index in range(3)
    ]
    assert torch.equal(apart.target(2).boxes, beside.target(2).boxes)


def test_classes_of_the_training_set_for_the_test_set(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5)), ("dog", (2, 2, 6, 6))])
    source = open_voc_folder(tmp_path, ("dog", "cat"))
    assert source.target(0).labels.tolist() == [2, 1]
    alone = open_voc_folder(tmp_path, ("dog",))
    assert alone.target(0).boxes.tolist() == [[2, 2, 6, 6]]
    with pytest.raises(UserError, match=r"a\.xml, object 1 \(cat\): unknown class \(.cat. is not among dog\)"):
        checked(alone, "stop")


def test_a_name_of_another_ending_decides_between_twins(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))], image="a.tif")
    Image.new("RGB", (10, 8)).save(tmp_path / "a.tif")
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    assert open_voc_folder(tmp_path).image(0).path == "a.tif"
    assert open_voc_folder(tmp_path).problems == ()


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    write(tmp_path, "a", [("person", (1, 2, 8, 7))])
    text = (tmp_path / "a.xml").read_text()
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    (tmp_path / "a.xml").write_text(text.replace("</object>", f"{part}</object>"))
    source = open_voc_folder(tmp_path)
    assert source.classes == ("person",)
    assert source.target(0).boxes.tolist() == [[1, 2, 8, 7]]


def test_no_annotation_at_all(tmp_path: Path) -> None:
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no VOC-XML annotation"):
        open_voc_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_voc_folder(tmp_path / "none")


def test_the_fingerprint_changes_with_what_counts(tmp_path: Path) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5)), ("dog", (2, 2, 6, 6))])
    before = open_voc_folder(tmp_path).fingerprint()
    assert open_voc_folder(tmp_path).fingerprint() == before
    assert open_voc_folder(tmp_path, ("dog", "cat")).fingerprint() != before
    write(tmp_path, "a", [("cat", (1, 2, 4, 6)), ("dog", (2, 2, 6, 6))])
    assert open_voc_folder(tmp_path).fingerprint() != before


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("as_seen", [False, True])
def test_annotations_of_upright_and_of_stored_images(tmp_path: Path, orientation: int, as_seen: bool) -> None:
    """Boxes lie on the picture as the eye sees it, or as it is stored, whichever has the annotated size."""
    stored = Image.new("RGB", (20, 12))
    stored.paste((255, 0, 0), (0, 0, 5, 5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        seen = ImageOps.exif_transpose(opened)
    expected = stored if orientation >= 5 and not as_seen else seen
    width, height = expected.size
    image = read_annotated(BoxImage(id=0, path="a.png", file=tmp_path / "a.png", width=width, height=height))
    assert image.size == expected.size
    assert image.tobytes() == expected.tobytes()
    with pytest.raises(UnreadableImage, match="its annotation says 13 x 20"):
        read_annotated(BoxImage(id=0, path="a.png", file=tmp_path / "a.png", width=13, height=20))


def write(
    folder: Path,
    name: str,
    objects: list[tuple[str, tuple[float, ...]]],
    *,
    image: str = "",
    size: tuple[int, int] = (10, 8),
) -> None:
    """An image, unless one is named, and its annotation."""
    if not image:
        image = f"{name}.jpg"
        Image.new("RGB", size).save(folder / image)
    entries = "".join(
        f"<object><name>{kind}</name><bndbox><ymin>{y1}</ymin><xmin>{x1}</xmin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for kind, (x1, y1, x2, y2) in objects
    )
    width, height = size
    sizes = f"<size><width>{width}</width><height>{height}</height></size>"
    (folder / f"{name}.xml").write_text(f"<annotation><filename>{image}</filename>{sizes}{entries}</annotation>")


def test_annotations_further_down_are_pointed_at(tmp_path: Path) -> None:
    voc_folder(tmp_path / "train", images=2, side=SIDE)
    voc_folder(tmp_path / "test" / "Annotations", images=2, side=SIDE)
    with pytest.raises(UserError, match="no VOC-XML annotation") as raised:
        open_voc_folder(tmp_path)
    assert f"There are some in {tmp_path}/test, {tmp_path}/train: name one folder" in str(raised.value)


def test_annotations_in_capitals(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path / "set", images=3, side=SIDE)
    before = len(open_voc_folder(folder))
    for file in list(folder.rglob("*.xml")):
        file.rename(file.with_suffix(".XML"))
    assert len(open_voc_folder(folder)) == before == 3
