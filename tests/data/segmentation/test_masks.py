"""Masks of every kind of file, the three layouts, and the checks that come before training."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data.images import UnreadableImage
from simsiam.data.segmentation import cityscapes, voc12aug
from simsiam.data.segmentation.checks import complain, mask_problems, single_class
from simsiam.data.segmentation.cityscapes import open_cityscapes
from simsiam.data.segmentation.class_list import read_classes
from simsiam.data.segmentation.folders import Folders, open_mask_folders, open_mask_tree
from simsiam.data.segmentation.masks import IGNORE, UNKNOWN, Coding, MaskSource, Pair, read_raw
from simsiam.data.segmentation.voc12aug import open_voc12aug
from simsiam.errors import UserError
from tests import tiny_masks

PIXELS = np.array([[0, 1, 2], [255, 1, 7]], np.uint8)
CODING = Coding(ids={0: 0, 1: 1, 2: 2, 255: IGNORE})


def problems(*sources: MaskSource) -> list[str]:
    return [problem for found in mask_problems(*sources, threads=3) for problem in found.problems]


def test_numbers_are_decoded_and_others_are_unknown() -> None:
    assert CODING.decode(PIXELS).tolist() == [[0, 1, 2], [IGNORE, 1, UNKNOWN]]
    assert CODING.decode(np.array([[-3, 70_000]])).tolist() == [[UNKNOWN, UNKNOWN]]


def test_colours_are_decoded_as_a_dictionary_would() -> None:
    colours = {(0, 0, 0): 0, (200, 10, 3): 1, (3, 10, 200): 2, (255, 255, 255): IGNORE}
    rng = np.random.default_rng(0)
    choices = [*colours, (1, 2, 3)]
    raw = np.array(choices, np.uint8)[rng.integers(0, len(choices), (9, 7))]
    expected = [[colours.get(tuple(pixel), UNKNOWN) for pixel in row] for row in raw.tolist()]
    assert Coding(ids={}, colours=colours).decode(raw).tolist() == expected


def test_a_grey_colour_image_is_read_as_numbers_only_without_colours() -> None:
    grey = np.repeat(PIXELS[..., None], 3, axis=2)
    assert CODING.decode(grey).tolist() == CODING.decode(PIXELS).tolist()
    assert (CODING.decode(np.dstack([PIXELS, PIXELS, PIXELS + 1])) == UNKNOWN).all()


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "I", "RGB", "RGBA", "1"])
def test_every_kind_of_image_gives_its_stored_values(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("mask.tif" if mode == "I" else "mask.png")
    ids = PIXELS if mode != "1" else (PIXELS > 1).astype(np.uint8)
    match mode:
        case "P":
            picture = Image.fromarray(ids)
            picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        case "I;16" | "I":
            picture = Image.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.int32))
        case "1":
            picture = Image.fromarray(ids.astype(bool))
        case _:
            picture = Image.fromarray(ids).convert(mode)
    picture.save(file)
    raw = read_raw(file)
    assert (raw[..., 0] if raw.ndim == 3 else raw).tolist() == ids.tolist()
    assert raw.ndim == (3 if mode in ("RGB", "RGBA") else 2)


def test_a_mask_of_sbd_is_read_from_its_mat_file(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": PIXELS, "Boundaries": 0}})
    savemat(tmp_path / "b.mat", {"GTinst": {"Segmentation": PIXELS}})
    assert read_raw(tmp_path / "a.mat").tolist() == PIXELS.tolist()
    with pytest.raises(UnreadableImage, match="GTcls"):
        read_raw(tmp_path / "b.mat")


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "m.jpg")
    with pytest.raises(UnreadableImage, match="lossy"):
        read_raw(tmp_path / "m.jpg")


def test_voc_joins_train_and_aug_and_keeps_255(tmp_path: Path) -> None:
    root = tiny_masks.voc12aug(tmp_path, train=3, aug=5, val=2)
    splits = open_voc12aug(root)
    assert (len(splits.train), len(splits.test), len(splits.train.classes)) == (8, 2, 21)
    assert problems(splits.train, splits.test) == []
    for index in (0, 3):  # a palette mask of train, a grey one of aug
        expected = tiny_masks.with_contours(tiny_masks.recoded(tiny_masks.scene(index).kinds, 0, tiny_masks.VOC_IDS))
        assert (splits.train.mask(index) == expected).all()
        assert splits.train.classes[8] == "cat"


def test_without_a_list_the_additional_masks_outside_val_are_taken(tmp_path: Path) -> None:
    root = tiny_masks.voc12aug(tmp_path, train=3, aug=5, val=2)
    tree = root / "VOC2012"
    listed = [pair.name for pair in open_voc12aug(root).train.pairs]
    (tree / "ImageSets/Segmentation/aug.txt").unlink()
    held = (tree / "ImageSets/Segmentation/val.txt").read_text().split()[0]
    Image.fromarray(PIXELS).save(tree / "SegmentationClassAug" / f"{held}.png")
    assert [pair.name for pair in open_voc12aug(tree).train.pairs] == listed


def test_trainaug_does_not_repeat_train_and_must_not_hold_val(tmp_path: Path) -> None:
    root = tiny_masks.voc12aug(tmp_path, train=3, aug=5, val=2)
    lists = root / "VOC2012/ImageSets/Segmentation"
    both = (lists / "train.txt").read_text() + (lists / "aug.txt").read_text()
    (lists / "aug.txt").unlink()
    (lists / "trainaug.txt").write_text(both)
    assert len(open_voc12aug(root).train) == 8
    (lists / "trainaug.txt").write_text(both + (lists / "val.txt").read_text())
    with pytest.raises(UserError, match="2 images are listed for training and in val"):
        open_voc12aug(root)


def test_voc_trees_that_lack_something_say_what(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no VOC2012 tree"):
        open_voc12aug(tmp_path)
    root = tiny_masks.voc12aug(tmp_path / "a")
    (root / "VOC2012/SegmentationClassAug").rename(root / "elsewhere")
    with pytest.raises(UserError, match="SBD"):
        open_voc12aug(root)


def test_voc_colours_are_those_of_the_development_kit() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 15: (192, 128, 128)}
    colours = {number: colour for colour, number in voc12aug.voc_colours().items()}
    assert {number: colours[number] for number in known} == known
    assert colours[20] == (0, 64, 128)
    assert colours[IGNORE] == (224, 224, 192)


def test_cityscapes_maps_label_ids(tmp_path: Path) -> None:
    splits = open_cityscapes(tiny_masks.cityscapes(tmp_path, train=4, val=2))
    assert (len(splits.train), len(splits.test), len(splits.train.classes)) == (4, 2, 19)
    assert problems(splits.train, splits.test) == []
    names = {kind: splits.train.classes[number] for kind, number in (("person", 11), ("car", 13), ("vegetation", 8))}
    assert all(kind == name for kind, name in names.items())
    stem = splits.train.pairs[0].image.name
    shapes = tiny_masks.scene(int(stem.split("_")[1]), size=(96, 64))
    expected = np.array([0, 11, 13, 8], np.uint8)[shapes.kinds]
    expected[:4] = IGNORE
    assert (splits.train.mask(0) == expected).all()


def test_cityscapes_prefers_training_ids_where_all_are_there(tmp_path: Path) -> None:
    root = tiny_masks.cityscapes(tmp_path, train=4, val=2)
    before = [open_cityscapes(root).test.mask(index) for index in range(2)]
    for file in (root / "gtFine/val").rglob("*labelIds.png"):
        ids = np.full(256, 255, np.uint8)
        ids[list(cityscapes.LABEL_IDS)] = np.arange(19)
        name = file.name.replace("labelIds", "labelTrainIds")
        Image.fromarray(ids[np.asarray(Image.open(file))]).save(file.with_name(name))
    splits = open_cityscapes(root)
    assert all(pair.mask.name.endswith("labelTrainIds.png") for pair in splits.test.pairs)
    assert all(pair.mask.name.endswith("labelIds.png") for pair in splits.train.pairs)
    assert all((splits.test.mask(index) == before[index]).all() for index in range(2))


def test_folders_pair_by_name_and_ending(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path / "a", train=4, val=2)
    splits = open_mask_tree(root, None, seed=0)
    assert splits.train.classes == ("background", "circle", "square", "triangle")
    assert (len(splits.train), len(splits.test)) == (4, 2)
    assert (splits.train.mask(1) == tiny_masks.scene(1).kinds).all()
    for mask in (root / "masks/train").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    assert problems(open_mask_tree(root, None, seed=0).train) == []


def test_split_first_trees_and_trees_without_splits(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path / "a", train=6, val=2)
    other = tmp_path / "b"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (other / split).mkdir(parents=True, exist_ok=True)
            (root / kind / split).rename(other / split / kind)
    classes = root / "classes.txt"
    splits = open_mask_tree(other, classes, seed=0)
    assert (len(splits.train), len(splits.test)) == (6, 2)
    alone = Folders(images=other / "train/images", masks=other / "train/masks")
    held = open_mask_folders(alone, None, classes, seed=0)
    assert (len(held.train), len(held.test)) == (4, 2)
    assert not {pair.name for pair in held.train.pairs} & {pair.name for pair in held.test.pairs}
    assert (held.test.mask(0) == tiny_masks.scene(int(held.test.pairs[0].name[5:8])).kinds).all()


def test_class_lists_in_all_three_forms(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("# names\nroad\ntraffic light\n")
    assert read_classes(file).names == ("road", "traffic light")
    file.write_text("7 road\n19 traffic light\n0 void\n")
    assert read_classes(file).coding.ids == {7: 0, 19: 1, 0: IGNORE, 255: IGNORE}
    file.write_text("0, 0, 0, sky\n128 64 0 road\n0 0 9 ignore\n")
    listed = read_classes(file)
    assert listed.coding.colours == {(0, 0, 0): 0, (128, 64, 0): 1, (0, 0, 9): IGNORE, (224, 224, 192): IGNORE}
    assert listed.coding.ids == {0: 0, 1: 1, 255: IGNORE}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 road\nsky\n", "line 1: found '1 2 road'"),
        ("300 0 0 road\nsky\n", "line 1"),
        ("3 road\n3 sky\n", "line 2: 3 is listed before"),
        ("road\nsky\nsky \n", "line 3: 'sky' is listed before"),
        ("road\n\u00e9t\u00e9\ne\u0301te\u0301\n", "line 3: '\u00e9t\u00e9' is listed before"),
        ("road\n", "1 class;"),
    ],
)
def test_class_lists_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "c.txt")


def test_two_values_may_belong_to_one_class(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("0 ground\n1 car\n2 car\n")
    listed = read_classes(tmp_path / "c.txt")
    assert listed.names == ("ground", "car")
    assert listed.coding.ids == {0: 0, 1: 1, 2: 1, 255: IGNORE}


def test_all_that_is_wrong_comes_in_one_message(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path, train=8, val=2)
    images, masks = root / "images/train", root / "masks/train"
    (masks / "scene000.png").unlink()
    (images / "scene001.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(masks / "scene002.png")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(masks / "scene003.png")
    Image.fromarray(np.full((64, 64, 3), (9, 0, 1), np.uint8)).save(masks / "scene004.png")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(masks / "scene005.png")  # nothing to score, but no mistake
    (masks / "scene006.png").write_bytes((masks / "scene006.png").read_bytes()[:60])
    (images / "scene007.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = open_mask_tree(root, None, seed=0)
        found = problems(splits.train, splits.test)
    with pytest.raises(UserError) as error:
        complain(found, "shapes", listing=None)
    text = str(error.value)
    assert "shapes: 7 problems" in text
    for expected in (
        "scene000.png: no such file (the mask)",
        "scene001.png: not an image",
        "scene002.png: 9 x 5 pixels, but its image scene002.png has 64 x 64",
        "scene003.png: ids outside the class list: 9 (the classes are 0 to 3)",
        "scene004.png: a colour image ((9, 0, 1)), but the classes have no colours",
        "scene006.png: no readable mask",
        "scene007.png: a mask without an image",
    ):
        assert expected in text
    assert "remove these files" in text


def test_processes_share_the_checks(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path, train=5, val=2)
    for number in (0, 3, 6):
        next(root.rglob(f"masks/*/scene{number:03d}.png")).unlink()
    splits = open_mask_tree(root, None, seed=0)
    whole = problems(splits.train, splits.test)
    shares = [
        [p for found in mask_problems(splits.train, splits.test, threads=1, rank=n, world=2) for p in found.problems]
        for n in (0, 1)
    ]
    assert len(whole) == 3
    assert all(shares)
    assert sorted(shares[0] + shares[1]) == sorted(whole)


def test_a_long_list_of_problems_is_written_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="and 5 more") as error:
        complain([f"file {number}" for number in range(25)], "x", listing=tmp_path / "list.txt")
    assert str(tmp_path / "list.txt") in str(error.value)
    assert len((tmp_path / "list.txt").read_text().splitlines()) == 25
    complain([], "x", listing=None)


def test_fingerprints_tell_masks_and_meanings_apart(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path, train=3, val=2)
    source = open_mask_tree(root, None, seed=0).train
    same = MaskSource(source.pairs, name="other", classes=source.classes, coding=source.coding)
    other = MaskSource(source.pairs, name="x", classes=source.classes, coding=Coding(ids={0: 1}))
    assert source.fingerprint() == same.fingerprint() != other.fingerprint()
    pairs = [Pair(name=p.name, image=p.image, mask=root / "masks/val/scene003.png") for p in source.pairs]
    assert MaskSource(pairs, name="x", classes=source.classes, coding=source.coding).fingerprint() != same.fingerprint()


def test_a_class_list_of_windows_and_one_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xef\xbb\xbfground\r\ncrow\r\n")
    assert read_classes(file).names == ("ground", "crow")
    file.write_bytes("ground\nKr\xe4he\n".encode("latin-1"))
    assert read_classes(file).names == ("ground", "Krähe")


def test_masks_of_black_and_white_are_not_taken_for_unscored(tmp_path: Path) -> None:
    for number in range(4):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.zeros((8, 10), np.uint8)
            pixels[2:5, : number + 1] = 255
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    (tmp_path / "classes.txt").write_text("ground\nleaf\n")
    found = single_class(open_mask_tree(tmp_path, None, seed=0).train)
    assert found is not None
    assert "ground in all 2 masks and nothing else" in found
    assert found.endswith("in the list of classes, for example: 255 leaf")
    (tmp_path / "classes.txt").write_text("0 ground\n255 leaf\n")  # as the message says
    train = open_mask_tree(tmp_path, None, seed=0).train
    assert single_class(train) is None
    assert set(np.unique(train.mask(0))) == {0, 1}
