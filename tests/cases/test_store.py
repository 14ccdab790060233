"""A result belongs to the data that it names: nothing stale is read for new, whatever was replaced or corrected."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data import content
from simsiam.data.sources import FolderSource, ListSource
from simsiam.results import Result
from tests import tiny, tiny_masks, tiny_shapes
from tests.cases.coloured import CPU, WEIGHTS, evaluate, folders, simsiam, table
from tests.detection_command import FEW, NARROW, weights

__all__ = ["weights"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_known", {})


def uncompressed(folder: Path, kind: str, seed: int) -> Path:
    """Six pictures whose files have the same size whatever they show."""
    folder.mkdir(exist_ok=True)
    for number in range(6):
        noise = np.random.default_rng([seed, number]).integers(0, 256, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.{kind}")
    return folder


def old(root: Path) -> Path:
    """The files as if they had been there for an hour: what is known of them is kept."""
    for file in root.rglob("*"):
        os.utime(file, (file.stat().st_atime - 3600, file.stat().st_mtime - 3600))
    return root


def vectors(images: Path, out: Path) -> np.ndarray:
    assert simsiam("embed", WEIGHTS, images, "--out", out, *CPU) == 0
    found: np.ndarray = np.load(out)
    return found


@pytest.mark.parametrize("kind", ["bmp", "ppm", "tif"])
def test_same_size_images_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = old(uncompressed(tmp_path / "data", kind, seed=1))
    before = vectors(data, tmp_path / "a.npy")
    assert list((tmp_path / "cache" / "content").iterdir())
    after = uncompressed(tmp_path / "after", kind, seed=2)
    for file in after.iterdir():
        assert file.stat().st_size == (data / file.name).stat().st_size
        shutil.copy(file, data / file.name)
    again = vectors(data, tmp_path / "b.npy")
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "fresh"))
    np.testing.assert_array_equal(again, vectors(after, tmp_path / "c.npy"))
    assert np.abs(again - before).max() > 0.01


def test_content_is_read_once_and_again_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = old(tiny.folder(tmp_path / "set"))
    first = FolderSource(root).fingerprint()
    reads: list[str] = []
    read = content._file_digest
    monkeypatch.setattr(content, "_file_digest", lambda file: [reads.append(file), read(file)][1])
    assert FolderSource(root).fingerprint() == first
    monkeypatch.setattr(content, "_known", {})  # another process
    assert FolderSource(root).fingerprint() == first
    assert reads == []
    kept = next((tmp_path / "cache" / "content").iterdir())
    kept.write_bytes(kept.read_bytes()[:-40])
    monkeypatch.setattr(content, "_known", {})
    assert FolderSource(root).fingerprint() == first
    assert len(reads) == 8
    os.utime(root / "circle" / "000.jpg")
    assert FolderSource(root).fingerprint() == first  # the same content at another time
    assert len(reads) == 16


def test_the_same_data_elsewhere_is_the_same_and_labels_count(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "here", images=3)
    moved = Path(shutil.copytree(root, tmp_path / "there"))
    (moved / "circle").rename(moved / "disc")
    lines = [(str(file), file.parent.name) for file in sorted(root.rglob("*.jpg"))]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path} {name}\n" for path, name in lines))
    one = FolderSource(root).fingerprint()
    assert ListSource(listed).fingerprint() == one  # by absolute paths
    assert FolderSource(moved).fingerprint() != one  # a class has another name
    assert FolderSource(moved).content() == FolderSource(root).content()
    listed.write_text("".join(f"{path} {name}\n" for path, name in [(lines[0][0], "square"), *lines[1:]]))
    assert ListSource(listed).fingerprint() != one


WRONG = {f"{name}/{n}.png": ("red" if n % 2 else "green") for name in ("green", "red") for n in range(8)}
RIGHT = {path: path.split("/")[0] for path in WRONG}


@pytest.mark.parametrize("name", ["few-labels", "knn", "clustering", "svm-voc07"])
def test_label_corrected_in_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folders(tmp_path, {"green": 4, "red": 0}, images=8)
    file = tmp_path / "labels.csv"
    both = ["--train", file, "--test", file] if name in ("knn", "svm-voc07") else ["--data", file]
    table(file, WRONG.items())
    first = evaluate(name, tmp_path / "r", *both)
    evaluate(name, tmp_path / "r", *both)
    assert "read from the result" in capsys.readouterr().out
    table(file, RIGHT.items())
    result = evaluate(name, tmp_path / "r", *both)
    said = capsys.readouterr()
    assert "the images or labels of labels changed since the result there; measured again" in said.err
    assert "measured now" in said.out
    if name in ("few-labels", "knn"):
        assert result["metrics"][result["main_metric"]] == 100
    kept = tmp_path / "r" / f"result-{first['data']['sha256'][:8]}.json"
    assert json.loads(kept.read_text()) == first
    other = table(tmp_path / "other.csv", WRONG.items())  # another set is no correction
    again = ["--train", other, "--test", other] if name in ("knn", "svm-voc07") else ["--data", other]
    once = ["--repeats", "1"] if name == "few-labels" else []
    assert simsiam("evaluate", name, WEIGHTS, *again, *once, *CPU, "--out", tmp_path / "r") == 2
    assert "holds a result with other data" in capsys.readouterr().err
    evaluate(name, tmp_path / "r", *both, "--again")
    assert not kept.exists()


def test_label_corrected_in_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path, {"green": 4, "red": 0}, images=8)
    file = tmp_path / "labels.txt"
    for labels in (WRONG, WRONG, RIGHT, WRONG):
        file.write_text("".join(f"{path} {name}\n" for path, name in labels.items()))
        result = evaluate("few-labels", tmp_path / "r", "--data", file)
    assert capsys.readouterr().err.count("measured again") == 2
    assert result["metrics"]["top1"] < 100
    assert len(list((tmp_path / "r").glob("result-*.json"))) == 2


def test_a_resumed_linear_run_does_not_mix_two_sets_of_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path, {"green": 4, "red": 0}, images=8)
    train, test = table(tmp_path / "train.csv", WRONG.items()), table(tmp_path / "test.csv", RIGHT.items())
    words = ["--train", train, "--test", test, "--batch-size", "4", "--lr", "0.1", "--test-resize", "32"]
    words += ["--epochs", "2"]
    evaluate("linear-avgpool", tmp_path / "r", *words)
    log = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    table(train, RIGHT.items())
    for stopped in (False, True):
        if stopped:  # before its end; the checkpoints are there
            (tmp_path / "r" / "result.json").unlink()
        assert simsiam("evaluate", "linear-avgpool", WEIGHTS, *words, *CPU, "--out", tmp_path / "r") == 2
        said = capsys.readouterr().err
        assert ("different data" if stopped else "holds a result with other data") in said
        assert "--again" in said
        assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == log
    fresh = evaluate("linear-avgpool", tmp_path / "fresh", *words)
    assert evaluate("linear-avgpool", tmp_path / "r", *words, "--again")["metrics"] == fresh["metrics"]


def test_a_result_of_an_earlier_version_is_read_and_says_how_to_renew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folders(tmp_path / "set", {"green": 4, "red": 0}, images=8)
    evaluate("few-labels", tmp_path / "r", "--data", root)
    file = tmp_path / "r" / "result.json"
    raw = json.loads(file.read_text())
    del raw["data"]["hashed"]
    raw["data"]["sha256"] = "1" * 64
    file.write_text(json.dumps(raw))
    assert Result.read(file).data.hashed == "names and sizes"
    words = ["--data", root, "--repeats", "1", *CPU, "--out", tmp_path / "r"]
    assert simsiam("evaluate", "few-labels", WEIGHTS, *words) == 2
    said = capsys.readouterr().err
    assert "an earlier version wrote it, which knew data by names and sizes only" in said
    assert "--again" in said


def _mask_corrected(root: Path) -> None:
    file = sorted((root / "masks").rglob("*.png"))[0]
    with Image.open(file) as image:
        mask = image.copy()
    mask.putpixel((0, 0), 1 - int(mask.getpixel((0, 0)) == 1))  # type: ignore[arg-type]
    mask.save(file)


def test_masks_count(tmp_path: Path) -> None:
    from simsiam.data.segmentation.folders import open_mask_tree
    from simsiam.data.splits import data_id

    root = tiny_masks.folders(tmp_path, train=3, val=2)

    def identity() -> str:
        data = open_mask_tree(root, None, seed=0)
        return data_id(data.train, data.test).sha256

    before = identity()
    assert identity() == before
    _mask_corrected(root)
    assert identity() != before


def _box_moved(root: Path) -> None:
    file = sorted(root.rglob("*.xml"))[0]
    text = file.read_text()
    at = text.index("<xmax>") + len("<xmax>")
    end = text.index("</xmax>")
    file.write_text(text[:at] + str(int(text[at:end]) - 1) + text[end:])


def _picture_replaced(root: Path) -> None:
    file = sorted(root.rglob("*.png"))[0]
    with Image.open(file) as image:
        image.rotate(180).save(file)


@pytest.mark.parametrize("change", [_box_moved, _picture_replaced])
def test_boxes_and_their_images_count(tmp_path: Path, change: Callable[[Path], None]) -> None:
    from simsiam.data.detection.voc import open_voc_folder

    root = tiny_shapes.voc_folder(tmp_path / "own", images=3, side=48)
    before = open_voc_folder(root).fingerprint()
    assert open_voc_folder(root).fingerprint() == before
    change(root)
    assert open_voc_folder(root).fingerprint() != before


def test_a_cache_that_cannot_be_written_is_a_note_and_embed_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.folder(tmp_path / "set", images=3)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert simsiam("embed", WEIGHTS, root, "--out", tmp_path / "e.npy", "--cache", place, "--again", *CPU) == 0
        assert "note: the features are not kept for the next command" in capsys.readouterr().err
        assert np.load(tmp_path / "e.npy").shape == (6, 512)


def _yolo(root: Path, width: float = 0.5) -> Path:
    (root / "labels").mkdir(parents=True, exist_ok=True)
    uncompressed(root / "images", "bmp", 1)
    for number in range(6):
        (root / "labels" / f"{number}.txt").write_text(f"0 0.5 0.5 {width} 0.5\n")
    return root


def _coco(root: Path, width: int = 12) -> Path:
    uncompressed(root, "bmp", 1)
    images = [{"id": number, "file_name": f"{number}.bmp", "width": 24, "height": 24} for number in range(6)]
    boxes = [{"id": 1 + n, "image_id": n, "category_id": 1, "bbox": [4, 4, width, 12], "iscrowd": 0} for n in range(6)]
    whole = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "noise"}]}
    (root / "own.json").write_text(json.dumps(whole))
    return root


CORRECTED: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "VOC": (lambda root: tiny_shapes.voc_folder(root, images=4, side=32), _box_moved),
    "YOLO": (_yolo, lambda root: _yolo(root, 0.4)),
    "COCO": (_coco, lambda root: _coco(root, 10)),
    "masks": (lambda root: tiny_masks.folders(root, train=3, val=2, size=(32, 32)), _mask_corrected),
}
SMALLEST = "--iterations 1 --evaluate-every 1 --batch-size 2 --device cpu --workers 0".split()
SIDES = "--train-images.short-sides 32 --train-images.long-side 32 --test-images.short-sides 32".split()
BRIEF = {
    "detection-folder": ["--recipe", "folder_boxes", *SIDES, *FEW, *NARROW[:-2]],  # without the masks' flag
    "segmentation-folder": "--size 32 --head-channels 4 --auxiliary-channels 4".split(),
}


@pytest.mark.parametrize("kind", sorted(CORRECTED))
def test_a_training_on_annotations_corrected_since_is_refused_and_no_figure_quoted(
    kind: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay, correct = CORRECTED[kind]
    lay(tmp_path / "own")
    name = "segmentation-folder" if kind == "masks" else "detection-folder"
    words = ["evaluate", name, weights, "--data", tmp_path / "own", *BRIEF[name], *SMALLEST, "--out", tmp_path / "r"]
    assert simsiam(*words) == 0
    assert "measured now" in capsys.readouterr().out
    assert simsiam(*words) == 0
    assert "read from the result" in capsys.readouterr().out
    before = (tmp_path / "r" / "result.json").read_bytes()
    correct(tmp_path / "own")
    assert simsiam(*words) == 2
    said = capsys.readouterr()
    assert re.search("holds a result with other (settings, )?data.*--again to replace it", said.err)  # anchors follow
    assert "%" not in said.out
    assert "result" not in said.out
    assert (tmp_path / "r" / "result.json").read_bytes() == before
