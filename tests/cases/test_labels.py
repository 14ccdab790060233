"""Classes are matched by name wherever they come from, and never by position."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from simsiam.data.class_names import aligned, class_map, in_order
from simsiam.data.classification.labels import csv_source, csv_splits, labelled_source
from simsiam.data.folders import ListSource
from simsiam.data.sources import FolderSource, open_source
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from tests.cases.coloured import CPU, WEIGHTS, evaluate, folders, picture, simsiam, table

ELEVEN = {str(number): number for number in range(11)}


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes 0 to 10, as train and test folders, CSV files and lists, each of its own pictures."""
    root = tmp_path_factory.mktemp("eleven")
    for part, images, seed in (("train", 4, 0), ("test", 2, 50)):
        folders(root / part, ELEVEN, images=images, seed=seed)
        rows = [(f"{part}/{name}/{n}.png", name) for name in ELEVEN for n in range(images)]
        table(root / f"{part}.csv", rows)
        padded = [(path, f"{int(name):02d}") for path, name in rows]
        table(root / f"{part}-padded.csv", padded)
        (root / f"{part}.txt").write_text("".join(f"{path} {name}\n" for path, name in reversed(rows)))
    return root


@pytest.mark.parametrize("train", ["train", "train.csv", "train.txt", "train-padded.csv"])
@pytest.mark.parametrize("test", ["test", "test.csv", "test.txt", "test-padded.csv"])
def test_digit_names_are_matched_whatever_reads_them(eleven: Path, train: str, test: str) -> None:
    from simsiam.data.classification.datasets import labelled

    sides = (labelled(str(eleven / side), cache=None) for side in (train, test))
    first, second = sides
    both = Splits(train=first, test=second)
    for source, images in ((both.train, 4), (both.test, 2)):
        assert source.labels is not None
        found = {
            source.path(n).split("/")[-2]: int(source.class_name(label) or -1) for n, label in enumerate(source.labels)
        }
        assert found == ELEVEN
        assert (np.bincount(source.labels) == images).all()
    assert both.train.classes == both.test.classes


def test_digit_csv_against_list(eleven: Path, tmp_path: Path) -> None:
    right = evaluate("knn", tmp_path / "a", "--train", eleven / "train.csv", "--test", eleven / "test.csv")
    listed = evaluate("knn", tmp_path / "b", "--train", eleven / "train.csv", "--test", eleven / "test.txt")
    assert right["metrics"] == listed["metrics"]
    assert right["detail"]["per_class"] == listed["detail"]["per_class"]
    assert list(right["detail"]["per_class"]) == list(ELEVEN)
    assert right["metrics"][right["main_metric"]] > 60  # by position it was 9 %


def test_digit_folders_shifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "train", {"1": 1, "2": 2, "3": 3})
    folders(tmp_path / "test", {"2": 2, "3": 3, "4": 4}, seed=9)
    for name in ("knn", "probe", "linear-avgpool", "svm-voc07", "semi-supervised", "retrieval"):
        words = ["--train", tmp_path / "train", "--test", tmp_path / "test", "--out", tmp_path / name]
        assert simsiam("evaluate", name, WEIGHTS, *words, *CPU) == 2
        said = capsys.readouterr().err
        assert "only in training: 1 (1 of 3: 1, 2, 3)" in said
        assert "only in test: 4 (1 of 3: 2, 3, 4)" in said


def test_digit_folders_test_lacks_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "train", {"1": 0, "2": 4, "3": 8})
    folders(tmp_path / "test", {"2": 4, "3": 8}, seed=9)
    data = ["--train", tmp_path / "train", "--test", tmp_path / "test"]
    for name in ("knn", "probe"):
        result = evaluate(name, tmp_path / name, *data)
        assert result["metrics"][result["main_metric"]] == 100
        assert result["detail"]["per_class"] == {"1": None, "2": 100, "3": 100}
        assert "1 of 3 classes has no test image: 1" in result["notes"]
        assert "1 of 3 classes has no test image: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("Cat", "cat", "differ only in capitals"),
        ("big cat", "big  cat", "differ only in blanks"),
        ("big_cat", "Big cat", "differ only in capitals and blanks"),
        ("Square ", "square", "differ only in capitals and blanks"),
        ("café", unicodedata.normalize("NFD", "café"), "look the same: they differ in their Unicode form"),
    ],
)
def test_names_that_look_alike_are_named(one: str, other: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        class_map(["dog", one], ["dog", other], where="a and b")


def test_unicode_forms_of_folders_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "train", {"café": 0, "thé": 4})
    folders(tmp_path / "test", {unicodedata.normalize("NFD", "café"): 0, "thé": 4})
    words = ["--train", tmp_path / "train", "--test", tmp_path / "test", "--out", tmp_path / "r"]
    assert simsiam("evaluate", "knn", WEIGHTS, *words, *CPU) == 2
    assert "look the same: they differ in their Unicode form (NFC, NFD)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reference", "other", "places"),
    [
        (["0", "1", "2"], ["02", "00"], [2, 0]),
        (["00", "01", "10"], ["10", "1"], [2, 1]),
        (["1.0", "2.0"], ["2", "1"], [1, 0]),
        (["b", "a"], ["a", "b", "a"], [1, 0, 1]),
        (["1" * 30, "1" * 29 + "2"], ["1" * 29 + "2"], [1]),
    ],
)
def test_places_of_names(reference: list[str], other: list[str], places: list[int]) -> None:
    assert class_map(reference, other, where="a and b").tolist() == places


@pytest.mark.parametrize(
    ("reference", "other"),
    [(["0", "1", "01"], ["001"]), (["a", "1"], ["01"]), (["1" * 30, "1" * 29 + "2"], ["1" * 29 + "3"])],
)
def test_numbers_that_cannot_be_told_apart_are_refused(reference: list[str], other: list[str]) -> None:
    with pytest.raises(UserError, match="the classes differ"):
        class_map(reference, other, where="a and b")


def test_order_of_names() -> None:
    assert in_order(["10", "9", "0", "9"]) == ("0", "9", "10")
    assert in_order(["10", "9", "a"]) == ("10", "9", "a")


def test_alignment_leaves_the_given_source_as_it_was(tmp_path: Path) -> None:
    train = FolderSource(folders(tmp_path / "train", {"a": 0, "b": 1, "c": 2}, images=1))
    test = FolderSource(folders(tmp_path / "test", {"b": 1, "c": 2}, images=1))
    same = aligned(train, test)
    assert test.labels is not None
    assert same.labels is not None
    assert (test.labels.tolist(), same.labels.tolist()) == ([0, 1], [1, 2])
    assert same.classes == ("a", "b", "c")
    assert aligned(train, train) is train


@pytest.mark.parametrize("labels", [(20240116, 20240115), (170000001, 170000000), (10**17, 3), (10**30, 10**31)])
def test_list_labels_are_large_numbers(tmp_path: Path, labels: tuple[int, int]) -> None:
    folders(tmp_path, {"red": 0, "green": 4}, images=5)
    lines = [
        f"{name}/{n}.png {label}\n" for name, label in zip(("red", "green"), labels, strict=True) for n in range(5)
    ]
    (tmp_path / "list.txt").write_text("".join(lines))
    started = time.perf_counter()
    source = ListSource(tmp_path / "list.txt")
    assert time.perf_counter() - started < 5
    assert source.classes == tuple(map(str, sorted(labels)))
    result = evaluate("few-labels", tmp_path / "r", "--data", tmp_path / "list.txt")
    assert result["metrics"]["top1"] == 100
    assert list(result["detail"]["per_class"]) == list(map(str, sorted(labels)))


ROWS = [(f"img/{name}{n}.png", name) for name in ("red", "green") for n in range(3)]
SHAPES = {
    "plain": "".join(f"{path},{label}\n" for path, label in ROWS),
    "h0": "filename,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "h2": "image_path,class\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "h8": "path,class\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "semicolon": "path;label\n" + "".join(f"{path};{label}\n" for path, label in ROWS),
    "tab": "Image\tCategory\n" + "".join(f"{path}\t{label}\n" for path, label in ROWS),
    "index": ",path,label\n" + "".join(f"{n},{path},{label}\n" for n, (path, label) in enumerate(ROWS)),
    "bare index": "".join(f"{n},{path},{label}\n" for n, (path, label) in enumerate(ROWS, 5)),
    "label first": "species,file_name\n" + "".join(f"{label},{path}\n" for path, label in ROWS),
    "more columns": "id,width,path,label\n"
    + "".join(f"{7 * n},24,{path},{label}\n" for n, (path, label) in enumerate(ROWS)),
    "unknown heads": "picture,what\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "windows": "path,label\r\n" + "".join(f"{path},{label}\r\n" for path, label in ROWS).replace("/", "\\"),
    "bom": "\ufeffpath,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "quoted": "".join(f'"{path}","{label}"\n' for path, label in ROWS),
    "bars": "path|label\n" + "".join(f"{path}|{label}\n" for path, label in ROWS),
    "blanks": "".join(f"{path}  {label}\n" for path, label in ROWS),
    "excel": "sep=;\npath;label\n" + "".join(f"{path};{label}\n" for path, label in ROWS),
    "comment": "# made by hand\npath,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
    "commas in quotes": "path,label,note\n" + "".join(f'{path}, "{label}", "a, b"\n' for path, label in ROWS),
    "a row again": "path,label\n" + "".join(f"{path},{label}\n" for path, label in (*ROWS, ROWS[0])),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_csv_header_names(tmp_path: Path, shape: str) -> None:
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    file = tmp_path / "labels.csv"
    file.write_text(SHAPES[shape], newline="")
    source = csv_source(file)
    assert source.labels is not None
    assert source.classes == ("green", "red")
    assert [(source.path(n), source.class_name(int(label))) for n, label in enumerate(source.labels)] == ROWS
    if "width" not in SHAPES[shape] and "note" not in SHAPES[shape]:  # other columns are classes of their own there
        both = csv_splits(file, file)
        assert both.train.targets.tolist() == [[0, 1]] * 3 + [[1, 0]] * 3


@pytest.mark.parametrize(
    "written",
    [
        "C:\\data\\{folder}\\{name}.png",
        "/content/{folder}/{name}.png",
        "{name}.png",
        "{name}",
        "https://x.org/{name}.png",
    ],
)
def test_images_that_are_not_where_a_csv_says_are_found_by_name(tmp_path: Path, written: str) -> None:
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    rows = [(written.format(folder=Path(path).parent, name=Path(path).stem), label) for path, label in ROWS]
    source = csv_source(table(tmp_path / "labels.csv", rows, header="id,breed\n"))
    assert [source.path(index) for index in range(6)] == [path for path, _ in ROWS]
    assert source.inventory.notes == ("6 of 6 images are not where the rows say, and found by name in img",)
    picture(tmp_path / "other" / "red0.png", 3)  # now the name stands for two
    with pytest.raises(UserError, match=r"1 of 6 images is not there, the first '.*red0"):
        csv_source(tmp_path / "labels.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "gb2312", "utf-16", "utf-8-sig"])
def test_a_csv_and_a_list_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    first, second = ("猫", "狗") if encoding == "gb2312" else ("café", "thé")
    rows = [(path, first if label == "red" else second) for path, label in ROWS]
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{p},{n}\n" for p, n in rows), encoding=encoding)
    (tmp_path / "a.txt").write_text("".join(f"{p} {n}\n" for p, n in rows), encoding=encoding)
    assert set(csv_source(tmp_path / "a.csv").classes or ()) == {first, second}
    assert set(ListSource(tmp_path / "a.txt").classes or ()) == {first, second}


LISTS = {
    "tab": "".join(f"{path}\t{label}\n" for path, label in ROWS),
    "comma": "".join(f"{path}, {label}\n" for path, label in ROWS),
    "semicolon": "path label\n" + "".join(f"{path};{label}\n" for path, label in ROWS),
    "windows": "# from a PC\r\n" + "".join(f"{path} {label}\r\n" for path, label in ROWS).replace("/", "\\"),
    "quotes": "".join(f'"{path}" {label}\n' for path, label in ROWS),
}


@pytest.mark.parametrize("shape", LISTS)
def test_lists_of_other_forms(tmp_path: Path, shape: str) -> None:
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    (tmp_path / "list.txt").write_text(LISTS[shape], newline="")
    source = ListSource(tmp_path / "list.txt")
    assert source.labels is not None
    assert [(source.path(n), source.class_name(int(label))) for n, label in enumerate(source.labels)] == ROWS
    assert source.inventory.lines() == []


def test_what_a_list_leaves_open_is_said(tmp_path: Path) -> None:
    for path in ("#1.png", "a\u0085b.png", "my photo.png"):
        picture(tmp_path / path, 0)
    (tmp_path / "list.txt").write_text("# two classes\n#1.png red\na\u0085b.png\tdark red\nmy photo.png\n#1.png red\n")
    source = ListSource(tmp_path / "list.txt")
    assert source.classes == ("dark red", "red")
    assert source.inventory.notes == ("1 of 4 lines has no label", "1 of 4 lines names an image again")


def test_a_csv_is_a_set_of_images_for_every_command(tmp_path: Path) -> None:
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    (tmp_path / "a.tsv").write_text(SHAPES["tab"])
    (tmp_path / "b.csv").write_text("file,width,height\n" + "".join(f"{path},24,24\n" for path, _ in ROWS))
    labelled, plain = (open_source(tmp_path / name, kind="list") for name in ("a.tsv", "b.csv"))
    assert (labelled.classes, plain.classes, plain.labels) == (("green", "red"), None, None)
    assert [plain.path(index) for index in range(6)] == [path for path, _ in ROWS]


def test_a_csv_of_excel_in_utf16(tmp_path: Path) -> None:
    for path, label in ROWS:
        picture(tmp_path / path, 0 if label == "red" else 4)
    (tmp_path / "labels.csv").write_bytes(SHAPES["tab"].encode("utf-16"))
    assert csv_source(tmp_path / "labels.csv").classes == ("green", "red")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,red,green\nimg/red0.png,1,0\n", "which column is the label\\? Its columns are red, green"),
        ("path,label\nimg/red0.png,\n", "'img/red0.png' has no label"),
        ("path,label\nimg/red0.png,red\nimg/gone.png,red\n", "1 of 2 images is not there, the first 'img/gone.png'"),
        ("path,label\nimg/red0.png,red\n,red\n", "row 3 names no image"),
        ("path,label\n", "an empty labels file|0 classes in 0 rows"),
        ("path,label\nimg/red0.png,red\nimg/red0.png,green\n", "listed twice, with different words beside it"),
        ("<!doctype html><title>404", "a web page"),
        ("PK\x03\x04 rest", "a zip archive .*, not a CSV"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("p\0a\0t\0h\0", "it holds zero bytes"),
    ],
)
def test_csv_mistakes_are_named(tmp_path: Path, content: str, said: str) -> None:
    picture(tmp_path / "img/red0.png", 0)
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        csv_source(tmp_path / "labels.csv")


def test_multilabel_classes_are_matched_by_name(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "train.csv").write_text("0.png,2;10\n1.png,10\n2.png,\n3.png,2\n")
    (tmp_path / "test.csv").write_text("path,10,02\n0.png,1,0\n1.png,0,1\n")
    both = csv_splits(tmp_path / "train.csv", tmp_path / "test.csv")
    assert both.train.classes == both.test.classes == ("2", "10")
    assert both.train.targets.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert both.test.targets.tolist() == [[0, 1], [1, 0]]


def test_loose_image_at_root(tmp_path: Path) -> None:
    root = folders(tmp_path / "train", {"green": 4, "red": 0})
    picture(root / "loose.png", 0)
    with pytest.raises(UserError, match=r"loose\.png lies outside the class folders\. Move it into one"):
        labelled_source(root)
    picture(root / "more.png", 0)
    with pytest.raises(UserError, match=r"loose\.png and 1 more lie outside the class folders"):
        labelled_source(root)
    one = folders(tmp_path / "one", {"green": 4})
    with pytest.raises(UserError, match="all 4 images lie in one sub-folder, green/; at least two classes are needed"):
        labelled_source(one)
    folders(tmp_path / "deep" / "all", {"green": 4, "red": 0})
    with pytest.raises(UserError, match=r"below all/, whose sub-folders may be the classes\. Name .*deep/all instead"):
        labelled_source(tmp_path / "deep")
    with pytest.raises(UserError, match="all 4 images lie in it directly"):
        labelled_source(one / "green")
    folders(tmp_path / "set" / "train", {"green": 4})
    folders(tmp_path / "set" / "Val", {"green": 4})
    with pytest.raises(UserError, match="its sub-folders are Val, train, the parts of a data set and no classes"):
        labelled_source(tmp_path / "set")


def test_knn_test_inside_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{name}/{n}.png", name) for name in ("green", "red") for n in range(6)]
    folders(tmp_path, {"green": 4, "red": 0}, images=6)
    train = table(tmp_path / "tr.csv", rows)
    copies = [(f"copy{n}.png", name) for n, (_, name) in enumerate(rows[:3])]
    for (path, _), (copy, _) in zip(rows, copies, strict=False):
        (tmp_path / copy).write_bytes((tmp_path / path).read_bytes())
    fresh = [("g.png", "green"), ("r.png", "red")]
    for path, name in fresh:
        picture(tmp_path / path, 4 if name == "green" else 0, seed=99)
    for number, (test, count) in enumerate([(rows, "12 of 12"), ([*copies, *fresh], "3 of 5"), (fresh, "")]):
        words = ["--train", train, "--test", table(tmp_path / "te.csv", test)]
        result = evaluate("knn", tmp_path / f"r{number}", *words)
        said = [note for note in result["notes"] if "among the training images" in note]
        assert [note.split(" test images")[0] for note in said] == ([count] if count else [])
        assert capsys.readouterr().out.count("among the training images") == bool(count), "said once, with the figure"


def test_few_labels_with_an_image_twice(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos", {"green": 4, "red": 0})
    assert not evaluate("few-labels", tmp_path / "a", "--data", root)["notes"][1:]
    (root / "red" / "again.png").write_bytes((root / "red" / "0.png").read_bytes())
    notes = evaluate("few-labels", tmp_path / "b", "--data", root)["notes"]
    assert any(note.startswith("1 of 9 images is an exact copy of another") for note in notes)
