"""VOC trees and multi-label CSV files: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simsiam.data.classification.labels import csv_splits
from simsiam.data.classification.voc import one_against_rest, voc_splits
from simsiam.data.sources import ArraySource
from simsiam.errors import UserError
from tests import tiny, tiny_voc


def test_lists_and_annotations_say_the_same(tmp_path: Path) -> None:
    lists = voc_splits(tiny_voc.tree(tmp_path / "a", train=30, test=20, annotations=False))
    notes = voc_splits(tiny_voc.tree(tmp_path / "b", train=30, test=20, lists=False))
    for found in (lists, notes):
        assert found.train.classes == found.test.classes == tiny_voc.CLASSES
        np.testing.assert_array_equal(found.train.targets, tiny_voc.targets(30, seed=1))
        np.testing.assert_array_equal(found.test.targets, tiny_voc.targets(20, seed=31))
        assert found.train.source.path(0) == "000001.jpg"
        assert found.test.source.path(19) == "000050.jpg"
        assert found.test.source.read(0).size == (48, 40)
    assert (lists.train.targets == -1).any()


def test_the_devkit_above_and_other_splits_are_found(tmp_path: Path) -> None:
    voc = tiny_voc.tree(tmp_path / "VOCdevkit", train=30, test=20)
    assert len(voc_splits(tmp_path).train.source) == 30
    for file in (voc / "ImageSets/Main").glob("*trainval.txt"):
        file.rename(file.with_name(file.name.replace("trainval", "train")))
    assert len(voc_splits(voc, train="train").train.source) == 30
    with pytest.raises(UserError, match=r"trainval.txt: no such list of images. Splits there: test, train"):
        voc_splits(voc)


def main(voc: Path, name: str) -> Path:
    return voc / "ImageSets/Main" / name


def drop_line(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda voc: (voc / "JPEGImages/000003.jpg").unlink(), r"1 of the 30 images of trainval is missing: 000003"),
        (lambda voc: main(voc, "red_test.txt").unlink(), r"classes that this one lacks: red_test.txt"),
        (lambda voc: drop_line(main(voc, "red_trainval.txt")), r"1 image without a label \(000001\), 0 labels"),
        (lambda voc: drop_line(main(voc, "trainval.txt")), r"0 images without a label \(none\), 1 label without an"),
        (lambda voc: main(voc, "red_test.txt").write_text("000031 yes\n"), r"line 1: found '000031 yes'"),
        (lambda voc: main(voc, "test.txt").write_text(""), "an empty list of images"),
        (lambda voc: main(voc, "test.txt").write_text("000031\n000031\n"), "listed twice: 000031"),
    ],
)
def test_damaged_trees_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    voc = tiny_voc.tree(tmp_path, train=30, test=20)
    damage(voc)
    with pytest.raises(UserError, match=message):
        voc_splits(voc)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda voc: (voc / "Annotations/000007.xml").unlink(), "1 of 30 images has no annotation: 000007"),
        (lambda voc: (voc / "Annotations/000007.xml").write_text("<annotation>"), "000007.xml: not a VOC annotation"),
        (
            lambda voc: (voc / "Annotations/000031.xml").write_text(
                "<annotation><object><name>violet</name></object></annotation>"
            ),
            "000031.xml: unknown class 'violet'; training shows blue, green, red",
        ),
    ],
)
def test_damaged_annotations_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    voc = tiny_voc.tree(tmp_path, train=30, test=20, lists=False)
    damage(voc)
    with pytest.raises(UserError, match=message):
        voc_splits(voc)


def test_a_class_without_both_kinds_is_refused(tmp_path: Path) -> None:
    voc = tiny_voc.tree(tmp_path, train=30, test=20)
    file = main(voc, "green_test.txt")
    file.write_text(file.read_text().replace(" -1", "  0").replace("  1", " -1"))
    with pytest.raises(UserError, match="no positive image in the test set for green"):
        voc_splits(voc)
    file.write_text("".join(f"{line.split()[0]}  1\n" for line in file.read_text().splitlines()))
    with pytest.raises(UserError, match="no negative image in the test set for green"):
        voc_splits(voc)
    with pytest.raises(UserError, match="no VOC tree"):
        voc_splits(tmp_path / "elsewhere")


def test_one_against_rest() -> None:
    labels = np.arange(12) % 3
    source = ArraySource(tiny.pixels(12), labels, name="shapes", classes=("circle", "square", "stripes"))
    found = one_against_rest(source, source)
    np.testing.assert_array_equal(found.train.targets, np.eye(3, dtype=np.int8)[labels])
    assert found.test.classes == ("circle", "square", "stripes")


def photos(root: Path) -> None:
    tiny.flat_folder(root, images=6)


def test_both_shapes_of_csv(tmp_path: Path) -> None:
    photos(tmp_path)
    names = [f"photo {number:03d}.png" for number in range(6)]
    words = tmp_path / "words.csv"
    words.write_text(
        "path,labels\n" + "\n".join(f"{n},{w}" for n, w in zip(names, ["a;b", "a", "b", "", "b; a", ""], strict=True))
    )
    columns = tmp_path / "columns.csv"
    columns.write_text(
        "path,a,b\n"
        + "\n".join(f"{n},{c}" for n, c in zip(names, ["1,1", "1,0", "0,1", ",", "1,-1", "0,0"], strict=True))
    )
    found = csv_splits(words, columns)
    assert found.train.classes == ("a", "b")
    assert found.train.targets.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [0, 0]]
    assert found.test.targets.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0], [1, -1], [0, 0]]
    words.write_text("photo 000.png,a\nphoto 001.png,\n")
    assert csv_splits(words, words).train.targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("photo 000.png,a\nphoto 001.png,c\n", r"only in test: c \(1 of 2: a, c\)"),
        ("photo 000.png,a\nphoto 009.png,\n", "1 of 2 images is not there, the first 'photo 009.png'"),
        ("photo 000.png,a\nphoto 000.png,\n", "is listed twice"),
        ("photo 000.png,a,b\n", "found 3 cells"),
        ("path,a,b\nphoto 000.png,1,2\n", "expected a path and 2 cells of 1, 0 or -1"),
        ("path,a,a\nphoto 000.png,1,1\n", "names a class twice"),
        ("", "an empty labels file"),
        ("photo 000.png,a\nphoto 001.png,a\n", "no negative image in the test set for a"),
    ],
)
def test_odd_csv_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    photos(tmp_path)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("photo 000.png,a\nphoto 001.png,\n")
    test.write_text(content)
    with pytest.raises(UserError, match=message):
        csv_splits(train, test)
