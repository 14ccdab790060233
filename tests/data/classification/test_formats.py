"""Labelled sets as their archives unpack, Hugging Face's tables, archives and lists: tiny, in the real layouts."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from simsiam import cli
from simsiam.data import unpack
from simsiam.data.classification.datasets import labelled, splits
from simsiam.data.source import Source
from simsiam.data.sources import kind_of, open_source
from simsiam.errors import UserError
from simsiam.evaluation.datasets import OwnBoxes
from simsiam.results import Result
from tests import tiny
from tests.data.detection.test_formats import roboflow_coco
from tests.trees import draw

WNIDS = ("n01443537", "n01629819", "n01641577")


def tiny_imagenet(root: Path) -> None:
    for index in range(9):
        wnid = WNIDS[index % 3]
        draw(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", index)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_{index}.JPEG\t0\t10\t63\t58\n")
    lines = []
    for index in range(6):
        draw(root / "val" / "images" / f"val_{index}.JPEG", index)
        lines.append(f"val_{index}.JPEG\t{WNIDS[index % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    draw(root / "test" / "images" / "test_0.JPEG", 0)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))


def kaggle(root: Path) -> None:
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    for index in range(9):
        wnid = WNIDS[index % 3]
        draw(data / "train" / wnid / f"{wnid}_{index}.JPEG", index)
    lines = ["ImageId,PredictionString\n"]
    for index in range(6):
        draw(data / "val" / f"ILSVRC2012_val_{index:08d}.JPEG", index)
        word = WNIDS[index % 3]
        lines.append(f"ILSVRC2012_val_{index:08d},{word} 85 262 499 499 {word} 1 2 3 4 \n")
    draw(data / "test" / "ILSVRC2012_test_00000001.JPEG", 0)
    (root / "LOC_val_solution.csv").write_text("".join(lines))


def stl10(root: Path) -> None:
    root.mkdir(parents=True)
    for part, count in (("train", 9), ("test", 6), ("unlabeled", 4)):
        pixels = tiny.pixels(count, size=96)
        pixels.transpose(0, 3, 2, 1).tofile(root / f"{part}_X.bin")  # planes, column by column
        if part != "unlabeled":
            (np.arange(count) % 3 + 1).astype(np.uint8).tofile(root / f"{part}_y.bin")
    (root / "class_names.txt").write_text("airplane\nbird\ncar\n")


def flowers(root: Path) -> None:
    for index in range(18):
        draw(root / "jpg" / f"image_{index + 1:05d}.jpg", index)
    scipy.io.savemat(root / "imagelabels.mat", {"labels": [[index % 3 + 1 for index in range(18)]]})
    ids = {"trnid": [range(1, 10)], "valid": [range(10, 13)], "tstid": [range(13, 19)]}
    scipy.io.savemat(root / "setid.mat", {key: [list(each[0])] for key, each in ids.items()})


def food(root: Path) -> None:
    names = [f"{('apple_pie', 'baklava', 'waffles')[index % 3]}/{1000 + index}" for index in range(15)]
    for index, name in enumerate(names):
        draw(root / "images" / f"{name}.jpg", index)
    (root / "meta").mkdir()
    for part, chosen in (("train", names[:9]), ("test", names[9:])):
        (root / "meta" / f"{part}.txt").write_text("\n".join(chosen))
    (root / "meta" / "classes.txt").write_text("apple_pie\nbaklava\nwaffles\n")


def caltech(root: Path) -> None:
    for index in range(99):
        name = ("accordion", "Faces", "BACKGROUND_Google")[index % 3]
        draw(root / "101_ObjectCategories" / name / f"image_{index // 3 + 1:04d}.jpg", index % 2)


def image_folder(root: Path) -> None:
    for part, count in (("train", 9), ("test", 6)):
        rows = []
        for index in range(count):
            draw(root / part / "pics" / f"{index}.jpg", index)
            rows.append({"file_name": f"pics/{index}.jpg", "text": "a shape", "label": tiny.SHAPES[index % 3]})
        if part == "train":
            (root / part / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            lines = [f"{row['file_name']},{row['text']},{row['label']}\n" for row in rows]
            (root / part / "metadata.csv").write_text("file_name,text,label\n" + "".join(lines))


def parquet(root: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'simsiam[parquet]'")
    from pyarrow.parquet import write_table

    features = {"image": {"_type": "Image"}, "label": {"names": list(tiny.SHAPES), "_type": "ClassLabel"}}
    described = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    (root / "data").mkdir(parents=True)
    for part, first, count, of in (("train", 0, 5, 2), ("train", 5, 4, 2), ("test", 0, 6, 1)):
        numbers = range(first, first + count)
        images = [
            {"bytes": tiny.jpeg(tiny.shape(tiny.SHAPES[n % 3], seed=n, size=(48, 40))), "path": f"{n}.jpg"}
            for n in numbers
        ]
        columns = [arrow.array(images, kind), arrow.array([n % 3 for n in numbers], arrow.int64())]
        table = arrow.table(columns, names=["image", "label"]).replace_schema_metadata(described)
        write_table(table, root / "data" / f"{part}-{int(first > 0):05d}-of-{of:05d}.parquet")


Make = Callable[[Path], None]
SETS: dict[str, tuple[Make, str, list[str], int]] = {  # maker, sentence, classes, images that a pre-training reads
    "tiny-imagenet": (
        tiny_imagenet,
        "Tiny-ImageNet as its archive unpacks: train 9, val 6 images, 3 classes",
        list(WNIDS),
        9,
    ),
    "kaggle": (kaggle, "ImageNet as Kaggle has it: train 9, val 6 images, 3 classes", list(WNIDS), 9),
    "stl10": (
        stl10,
        "STL-10 in its binary form: train 9, test 6, unlabeled 4 images, 3 classes",
        ["airplane", "bird", "car"],
        13,
    ),
    "flowers": (
        flowers,
        "Flowers-102 as its archives unpack: train 9, val 3, test 6 images, 3 classes",
        ["1", "2", "3"],
        12,
    ),
    "food": (
        food,
        "Food-101 as its archive unpacks: train 9, test 6 images, 3 classes",
        ["apple_pie", "baklava", "waffles"],
        9,
    ),
    "image-folder": (
        image_folder,
        "Hugging Face image folder with metadata.csv and metadata.jsonl: train 9, test 6 images, 3 classes",
        list(tiny.SHAPES),
        9,
    ),
    "parquet": (
        parquet,
        "Parquet files of Hugging Face's datasets: train 9, test 6 images, 3 classes",
        list(tiny.SHAPES),
        9,
    ),
}


@pytest.fixture(params=SETS)
def known(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, list[str], int]:
    make, *rest = SETS[request.param]
    make(tmp_path / "set")
    return (tmp_path / "set", *rest)  # type: ignore[return-value]


def check(source: Source, count: int, classes: list[str]) -> None:
    """Image i of a part is of shape i % 3, whatever order they are read in."""
    assert len(source) == count
    assert source.labels is not None
    assert list(source.classes or ()) == classes
    counts = np.bincount(source.labels)
    assert counts.tolist() == [count // 3] * 3
    assert all(source.read(index).size in ((48, 40), (96, 96)) for index in range(count))


def test_a_set_is_recognised_named_and_read(known: tuple[Path, str, list[str], int], tmp_path: Path) -> None:
    place, sentence, classes, images = known
    cache = tmp_path / "cache"
    both = splits(data=str(place), train=None, test=None, cache=cache)
    check(both.train, 9, classes)
    check(both.test, 6, classes)
    assert sum(sentence in note for note in both.train.inventory.notes) == 1
    assert len(labelled(str(place), cache=cache, split="train")) == 9
    assert kind_of(place) == "folder"
    learnt = open_source(place, kind="folder", cache=cache)
    assert len(learnt) == images
    assert any(note.startswith(sentence) for note in learnt.inventory.notes)
    above = tmp_path / "above"
    above.mkdir()
    (above / "inside").symlink_to(place)
    assert len(splits(data=str(above), train=None, test=None, cache=cache).test) == 6


def test_images_keep_their_labels(tmp_path: Path) -> None:
    """By content: the shapes that were drawn are known from their seeds."""
    stl10(tmp_path / "stl10")
    both = splits(data=str(tmp_path / "stl10"), train=None, test=None, cache=tmp_path)
    assert (np.asarray(both.train.read(4)) == tiny.pixels(9, size=96)[4]).all()
    parquet(tmp_path / "table")
    source = splits(data=str(tmp_path / "table"), train=None, test=None, cache=tmp_path).train
    for index in range(9):
        assert source.labels is not None
        drawn = tiny.jpeg(tiny.shape(tiny.SHAPES[source.labels[index]], seed=index, size=(48, 40)))
        from PIL import Image

        assert (np.asarray(source.read(index)) == np.asarray(Image.open(io.BytesIO(drawn)))).all()


def test_caltech_is_split_by_a_draw_that_is_said(tmp_path: Path) -> None:
    caltech(tmp_path / "caltech-101")
    with tarfile.open(tmp_path / "101_ObjectCategories.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "caltech-101" / "101_ObjectCategories", "101_ObjectCategories")
    packed = tmp_path / "packed"
    packed.mkdir()
    os.rename(tmp_path / "101_ObjectCategories.tar.gz", packed / "101_ObjectCategories.tar.gz")
    for place in (tmp_path / "caltech-101", packed):
        both = splits(data=str(place), train=None, test=None, cache=tmp_path / "cache")
        assert (len(both.train), len(both.test), both.train.classes) == (60, 6, ("Faces", "accordion"))
        assert not {both.train.path(n) for n in range(60)} & {both.test.path(n) for n in range(6)}
        notes = " ".join(both.train.inventory.notes)
        assert "Caltech-101 as its archive unpacks: train 60, test 6 images, 2 classes" in notes
        assert "33 images of BACKGROUND_Google left out" in notes


def test_kaggle_without_its_solution_can_be_learnt_from_but_not_scored(tmp_path: Path) -> None:
    kaggle(tmp_path / "set")
    (tmp_path / "set" / "LOC_val_solution.csv").unlink()
    assert len(open_source(tmp_path / "set", kind="folder", cache=tmp_path)) == 9
    assert len(open_source(tmp_path / "set", kind="imagenet", cache=tmp_path)) == 9
    with pytest.raises(UserError, match=r"put LOC_val_solution\.csv beside ILSVRC/"):
        splits(data=str(tmp_path / "set"), train=None, test=None, cache=tmp_path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("stl10", lambda root: (root / "test_X.bin").write_bytes(b"1" * 27650), "cut short: 2 bytes"),
        ("stl10", lambda root: (root / "test_y.bin").write_bytes(b"\1" * 5), "not 6 labels of 1 to 3"),
        ("flowers", lambda root: (root / "setid.mat").write_bytes(b"MATLAB"), "cannot be read"),
        ("food", lambda root: (root / "images" / "waffles" / "1002.jpg").unlink(), "1 of 9 lines points to no file"),
        ("parquet", lambda root: next((root / "data").glob("test*")).write_bytes(b"PAR1"), "damaged Parquet file"),
    ],
)
def test_damage_is_named(name: str, damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    SETS[name][0](tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        splits(data=str(tmp_path / "set"), train=None, test=None, cache=tmp_path / "cache")


def test_parquet_without_pyarrow_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"need pyarrow: pip install '.*\[parquet\]'"):
        open_source(tmp_path / "set", kind="folder", cache=tmp_path / "cache")


def test_a_test_set_without_labels_is_not_scored(tmp_path: Path) -> None:
    """As ImageNet's on the hub: labels of -1 in test, and a validation set."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    picture = tiny.jpeg(tiny.shape("circle", seed=1))
    for part, labels in (("train", ["a", "b"]), ("validation", ["b", "a"]), ("test", [None, ""])):
        table = arrow.table({"img": [picture, picture], "label": labels})
        write_table(table, tmp_path / f"{part}-00000-of-00001.parquet")
    both = splits(data=str(tmp_path), train=None, test=None, cache=tmp_path / "cache")
    assert both.test.labels is not None
    assert (both.test.labels.tolist(), both.test.classes) == ([1, 0], ("a", "b"))
    assert "train 2, validation 2, unlabelled 2 images, 2 classes" in both.train.inventory.notes[0]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_an_archive_stands_for_its_folder(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    food(tmp_path / "food-101")
    archive = tmp_path / f"food-101.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted((tmp_path / "food-101").rglob("*")):
                packed.write(file, file.relative_to(tmp_path))
            packed.writestr("__MACOSX/food-101/._x.jpg", b"side file")
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(tmp_path / "food-101", "food-101")
    for _ in range(2):
        both = splits(data=str(archive), train=None, test=None, cache=tmp_path / "cache")
        assert (len(both.train), len(both.test)) == (9, 6)
        assert any(note.startswith(f"{archive.name} was unpacked into ") for note in both.train.inventory.notes)
    assert capsys.readouterr().err.count("unpacking") == 1
    if kind != "tar":  # a bare tar is read in place as a shard
        assert kind_of(archive) == "folder"
        assert len(open_source(archive, kind="folder", cache=tmp_path / "cache")) == 9


def test_nothing_is_unpacked_outside_its_folder(tmp_path: Path) -> None:
    picture = tiny.jpeg(tiny.shape("circle", seed=1))
    archive = tmp_path / "photos.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("a/1.jpg", "../out.jpg", "/abs.jpg", "a/../../out.jpg", "a\\2.jpg", "a/1.jpg", "a/1.jpg/b.jpg"):
            tiny.add(tar, name, picture)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tiny.add(tar, "link/evil.jpg", picture)
    source = open_source(archive, kind="folder", cache=tmp_path / "cache")
    assert sorted(source.path(n) for n in range(len(source))) == ["a/1.jpg", "a/2.jpg", "link/evil.jpg"]
    assert not (tmp_path / "evil.jpg").exists()
    assert not list(tmp_path.rglob("out.jpg"))
    notes = " ".join(source.inventory.notes)
    assert "3 of its members left out (a name that leads out of the folder)" in notes
    assert "1 of its members left out (links and devices)" in notes
    assert "2 of its members left out (a name that is there twice" in notes


def test_a_bomb_and_a_cut_archive_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb, cache = tmp_path / "bomb.zip", tmp_path / "cache"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros.jpg", bytes(10_000_000))
    monkeypatch.setattr(unpack, "SHARE", 1e-9)
    with pytest.raises(UserError, match="larger than"):
        open_source(bomb, kind="folder", cache=cache)
    monkeypatch.undo()
    cut = tmp_path / "cut.tar.gz"
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tar:
        for number in range(20):
            tiny.add(tar, f"{number}.jpg", tiny.jpeg(tiny.shape("circle", seed=number)))
    cut.write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:-3000])
    with pytest.raises(UserError, match="a gzip archive, damaged or cut short"):
        open_source(cut, kind="folder", cache=cache)
    assert list((cache / "unpacked").iterdir()) == []
    assert len(open_source(tmp_path / "whole.tar.gz", kind="folder", cache=cache)) == 20


def test_boxes_and_masks_in_an_archive(tmp_path: Path) -> None:
    roboflow_coco(tmp_path / "export")
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in (tmp_path / "export").rglob("*.*"):
            packed.write(file, file.relative_to(tmp_path / "export"))
    found, plain = (OwnBoxes(data=place).open(tmp_path / "cache") for place in (archive, tmp_path / "export"))
    assert found.train.fingerprint() == plain.train.fingerprint()


def test_what_is_no_image_is_named_with_its_cure(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=2)
    for name in ("a.mp4", "b.MOV", "c.dng"):
        (root / name).write_bytes(b"none")
    reason = open_source(root, kind="folder").inventory.left_out[0].reason
    assert reason.startswith("1 x .mp4, 1 x .mov, 1 x .dng; camera raw is not read")
    assert "`ffmpeg -i VIDEO -vf fps=1/2 %05d.jpg` makes a video's frames" in reason
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="name the file itself"):
        open_source(tmp_path / "packed", kind="folder")


def test_what_a_killed_process_left_is_not_taken_for_whole(tmp_path: Path) -> None:
    archive, cache = tmp_path / "photos.zip", tmp_path / "cache"
    with zipfile.ZipFile(archive, "w") as packed:
        for number in range(3):
            packed.writestr(f"photos/{number}.jpg", tiny.jpeg(tiny.shape("circle", seed=number)))
    whole = unpack.opened(archive, cache=cache).place.parent
    os.rename(whole, whole.with_name(f".{whole.name}.part"))
    next(whole.with_name(f".{whole.name}.part").rglob("1.jpg")).unlink()
    assert len(open_source(archive, kind="folder", cache=cache)) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("colon.txt", "{0}.jpg:{1}\n"),
        ("first.txt", "{1} {0}.jpg\n"),
        ("tab.txt", "{1}\t{0}.jpg\n"),
        ("labels.jsonl", '{{"file_name": "{0}.jpg", "label": "{1}", "size": [1, 2]}}\n'),
    ],
)
def test_lists_in_other_orders(name: str, text: str, tmp_path: Path) -> None:
    for index in range(6):
        draw(tmp_path / f"{index}.jpg", index)
    (tmp_path / name).write_text("".join(text.format(index, tiny.SHAPES[index % 3]) for index in range(6)))
    source = labelled(str(tmp_path / name), cache=tmp_path / "cache")
    assert source.classes == tiny.SHAPES
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert [source.path(n) for n in range(6)] == [f"{n}.jpg" for n in range(6)]
    assert len(open_source(tmp_path / name, kind=kind_of(tmp_path / name))) == 6


def test_json_in_other_forms(tmp_path: Path) -> None:
    for index in range(6):
        draw(tmp_path / f"{index}.jpg", index)
    file = tmp_path / "labels.json"
    pairs = {f"{n}.jpg": tiny.SHAPES[n % 3] for n in range(6)}
    for whole in (pairs, [{"image": name, "category": label} for name, label in pairs.items()]):
        file.write_text(json.dumps(whole))
        assert labelled(str(file), cache=None).classes == tiny.SHAPES
    for text, message in (('{"images": [], "annotations": []}', "no list of images"), ("{", "no readable JSON")):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            labelled(str(file), cache=None)


def test_from_the_command_line(
    known: tuple[Path, str, list[str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, sentence, _, _ = known
    out = tmp_path / "out"
    words = ["evaluate", "knn", "random", "--backbone", "resnet10", "--data", str(place), "--size", "32", "--resize"]
    assert (
        cli.run(
            [*words, "36", "--device", "cpu", "--workers", "0", "--cache", str(tmp_path / "cache"), "--out", str(out)]
        )
        == 0
    )
    assert sentence in capsys.readouterr().err
    result = Result.read(out / "result.json")
    assert result.data.images == 15
    assert result.detail["inventory"]["train"]["used"] == 9
    assert any(sentence in note for note in result.detail["inventory"]["train"]["notes"])
