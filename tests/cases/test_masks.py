"""Masks as people keep them: every layout and list of classes is read right, or refused and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data import inventory
from simsiam.data.images import turned_notes
from simsiam.data.segmentation.checks import mask_problems
from simsiam.data.segmentation.class_list import read_classes
from simsiam.data.segmentation.folders import open_mask_tree
from simsiam.data.segmentation.masks import IGNORE, MaskSplits
from simsiam.errors import UserError
from simsiam.evaluation.datasets import OwnMasks

SIZE = (12, 8)
BLOCKS = np.repeat([[0] * 4 + [1] * 4 + [2] * 4], 8, axis=0).astype(np.uint8)
CLASSES = "background\ncat\ndog\n"


def photo(file: Path, *, size: tuple[int, int] = SIZE, orientation: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(file, exif=exif)


def mask(file: Path, values: np.ndarray = BLOCKS) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def made(root: Path, image: str, masked: str, names: range = range(5)) -> None:
    """Images and masks at these places, with the number for #; and the list of classes in the root."""
    for n in names:
        photo(root / image.replace("#", str(n)))
        mask(root / masked.replace("#", str(n)))
    (root / "classes.txt").write_text(CLASSES)


def read(root: Path, **changes: Path | None) -> MaskSplits:
    return OwnMasks(**{"data": root, **changes}).open(None)


def problems(splits: MaskSplits) -> list[str]:
    return [problem for found in mask_problems(splits.train, splits.test, threads=1) for problem in found.problems]


@pytest.mark.parametrize(
    ("image", "masked", "named"),
    [
        ("images/#.jpg", "masks/#.png", "images"),
        ("images/#.jpg", "masks/#.png", "masks"),
        ("zip/images/#.jpg", "zip/masks/#.png", ""),
        ("images/IMG_#.JPG", "Masks/img_#.PNG", ""),
        ("images/#.jpg", "masks/#.jpg.png", ""),
        ("images/#.jpg", "masks/mask_#.png", ""),
        ("img_dir/#.jpg", "ann_dir/#_labelIds.png", ""),
        ("#.jpg", "#_mask.png", ""),
    ],
)
def test_masks_are_found(tmp_path: Path, image: str, masked: str, named: str) -> None:
    made(tmp_path, image, masked)
    if image.startswith("zip"):
        (tmp_path / "classes.txt").rename(tmp_path / "zip/classes.txt")
    splits = read(tmp_path / named)
    assert len(splits.train) + len(splits.test) == 5
    assert problems(splits) == []
    assert splits.train.mask(0).tolist() == BLOCKS.tolist()
    assert "5 images, 3 classes" in splits.notes[0]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (("images/train/#.jpg", "masks/training/#.png"), ("images/val/#.jpg", "masks/validation/#.png")),
        (("images/train/#.jpg", "masks/#.png"), ("images/val/#.jpg", "masks/#.png")),
        (("train/#.png", "train_labels/#_L.png"), ("val/#.png", "val_labels/#_L.png")),
        (("Train/#.jpg", "TrainAnnot/#.png"), ("Test/#.jpg", "TestAnnot/#.png")),
        (("train_images/#.jpg", "train_masks/#.png"), ("val_images/#.jpg", "val_masks/#.png")),
        (("img_dir/train/#.jpg", "ann_dir/train/#.png"), ("img_dir/val/#.jpg", "ann_dir/val/#.png")),
    ],
)
def test_the_users_own_split(tmp_path: Path, train: tuple[str, str], val: tuple[str, str]) -> None:
    made(tmp_path, *train, range(3))
    made(tmp_path, *val, range(3, 5))
    splits = read(tmp_path)
    assert (len(splits.train), len(splits.test)) == (3, 2)
    assert problems(splits) == []


@pytest.mark.parametrize("place", ["ImageSets/Segmentation", "ImageSets", "."])
@pytest.mark.parametrize("line", ["#", "#.jpg", "images/#.jpg masks/#.png"])
def test_the_users_own_lists(tmp_path: Path, place: str, line: str) -> None:
    made(tmp_path, "images/#.jpg", "masks/#.png")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name, numbers in (("train", (0, 2, 4)), ("val", (1, 3))):
        lines = [line.replace("#", str(number)) for number in numbers]
        (tmp_path / place / f"{name}.txt").write_text("\r\n".join(lines))
    splits = read(tmp_path)
    assert [pair.name for pair in splits.test.pairs] == ["1.jpg", "3.jpg"]
    assert problems(splits) == []
    (tmp_path / "images/3.jpg").unlink()
    assert [each for each in problems(read(tmp_path)) if each.startswith("3: listed, and not in")]


@pytest.mark.parametrize(
    "text",
    [
        "0: background\n2: dog\n1: cat\n",
        "background 0\ndog 2\ncat 1\n",
        "background,0\ndog,2\ncat,1\n",
        "id,name\n0,background\n2,dog\n1,cat\n",
        "Pixel Value,Class\n0,background\n2,dog\n1,cat\n",
        "id;name\n0;background\n2;dog\n1;cat\n",
        "-1 __ignore__\n0\tbackground\n2\tdog\n1\tcat\n",
    ],
)
def test_lists_in_any_order_of_columns_and_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    listed = read_classes(tmp_path / "classes.txt")
    names = {value: listed.names[number] for value, number in listed.coding.ids.items() if number != IGNORE}
    assert names == {0: "background", 1: "cat", 2: "dog"}


def test_outlines_of_voc_are_not_scored(tmp_path: Path) -> None:
    made(tmp_path, "images/#.jpg", "masks/#.png")
    (tmp_path / "classes.txt").write_text("0 0 0 background\n255 0 0 cat\n0 255 0 dog\n")
    colours = np.array([(0, 0, 0), (255, 0, 0), (224, 224, 192)], np.uint8)
    for n in range(5):
        mask(tmp_path / f"masks/{n}.png", colours[BLOCKS])
    splits = read(tmp_path)
    assert problems(splits) == []
    assert sorted(set(splits.train.mask(0).ravel().tolist())) == [0, 1, IGNORE]


@pytest.mark.parametrize(
    ("size", "orientation", "state"), [(SIZE, 6, "stored"), (SIZE, 3, "unclear"), (SIZE[::-1], 6, "")]
)
def test_masks_of_pictures_that_exif_turns(tmp_path: Path, size: tuple[int, int], orientation: int, state: str) -> None:
    made(tmp_path, "images/#.jpg", "masks/#.png")
    for n in range(5):
        photo(tmp_path / f"images/{n}.jpg", size=size, orientation=orientation)
    splits = read(tmp_path)
    looked = list(mask_problems(splits.train, splits.test, threads=1))
    assert [each.problems for each in looked] == [()] * 5
    assert splits.train.read(0).size == SIZE
    notes = turned_notes("set", [each.turned for each in looked])
    assert [("as stored" in note, "seen upright" in note) for note in notes] == (
        [(state == "stored", state == "unclear")] if state else []
    )


def labels_of_yolo(root: Path) -> None:
    photo(root / "images/0.jpg")
    (root / "labels").mkdir()
    (root / "labels/0.txt").write_text("0 0.5 0.5 0.2 0.2\n")


@pytest.mark.parametrize(
    ("lay", "message"),
    [
        (labels_of_yolo, r"It holds YOLO labels: `simsiam evaluate detection-folder` learns from those"),
        (lambda root: photo(root / "a/0.jpg"), r"no images with masks recognised in it. Looked for images/ and masks/"),
    ],
)
def test_what_holds_no_masks(tmp_path: Path, lay: Callable[[Path], None], message: str) -> None:
    lay(tmp_path)
    with pytest.raises(UserError, match=message):
        open_mask_tree(tmp_path, None, seed=0)


def test_a_list_of_classes_lies_beside_the_masks(tmp_path: Path) -> None:
    made(tmp_path, "a/#.jpg", "b/#.png")
    splits = read(tmp_path, data=None, train_images=tmp_path / "a", train_masks=tmp_path / "b")
    assert splits.train.classes == ("background", "cat", "dog")
    shutil.move(tmp_path / "classes.txt", tmp_path / "b/classes.txt")
    read(tmp_path, data=None, train_images=tmp_path / "a", train_masks=tmp_path / "b")


def test_what_lies_beside_the_images_is_counted(tmp_path: Path) -> None:
    made(tmp_path, "images/#.jpg", "masks/#.png")
    for name in ("a.MOV", "b.mov", "Thumbs.db", "notes.txt", "._0.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    accounts = inventory.of(read(tmp_path))
    assert list(accounts) == ["images"]  # both sets are parts of one
    account = accounts["images"]
    assert (account.found, account.used) == (5, 5)
    assert account.lines()[0].startswith("5 images used; left out: 3 other files (2 x .mov, 1 x .db; `ffmpeg -i VIDEO")
