"""`simsiam embed` and `simsiam neighbors` from the command line: files, order, bad images, sheets and mistakes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.claims import MANIFEST
from simsiam.cli import main
from simsiam.embedding import files as embedding_files
from simsiam.errors import install_extra
from tests import tiny

SMALL = ["--size", "32", "--workers", "0", "--device", "cpu"]
WEIGHTS = "random:resnet10"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three, one file that is no image, one exact copy."""
    root = tiny.folder(tmp_path / "photos", classes=2, images=3)
    (root / "circle" / "broken.jpg").write_text("no image")
    (root / "square" / "again.jpg").write_bytes((root / "circle" / "001.jpg").read_bytes())
    return root


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def _rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


NAMES = ["circle/000.jpg", "circle/001.jpg", "circle/002.jpg"]
NAMES += ["square/000.jpg", "square/001.jpg", "square/002.jpg", "square/again.jpg"]


def test_npy_and_csv_hold_the_same_rows(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "features.npy"
    assert _run("embed", WEIGHTS, photos, "--out", out, *SMALL) == 0
    said = capsys.readouterr()
    assert "features.npy: 7 images, 512 numbers each" in said.out
    assert "left out: circle/broken.jpg: not an image" in said.err
    vectors = np.load(out)
    assert vectors.shape == (7, 512)
    assert vectors.dtype == np.float32
    paths = _rows(tmp_path / "made" / "features.paths.csv")
    assert [row["path"] for row in paths] == NAMES
    assert [row["label"] for row in paths] == ["circle"] * 3 + ["square"] * 4
    assert [row["path"] for row in _rows(tmp_path / "made" / "features.bad.csv")] == ["circle/broken.jpg"]
    np.testing.assert_allclose(vectors[6], vectors[1], rtol=1e-3, atol=1e-6)

    text = tmp_path / "features.csv"
    assert _run("embed", WEIGHTS, photos, "--out", text, *SMALL) == 0
    rows = _rows(text)
    assert [row["path"] for row in rows] == NAMES
    found = np.array([[float(row[f"f{n}"]) for n in range(512)] for row in rows], np.float32)
    np.testing.assert_array_equal(found, vectors)
    assert not list(tmp_path.rglob("*.part"))


def test_the_facts_beside_a_file_name_weights_layer_and_preprocessing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npy"
    asked = ["--layer", "feature2", "--normalise", "l2", "--fit", "squash"]
    assert _run("embed", WEIGHTS, photos, "--out", out, *SMALL, *asked) == 0
    facts = json.loads((tmp_path / "features.json").read_text())
    assert (facts["backbone"], facts["channels"], facts["rows"], facts["left_out"]) == ("resnet10", 64, 7, 1)
    assert len(facts["weights_sha256"]) == len(facts["data_sha256"]) == 64
    settings = facts["settings"]
    assert (settings["layer"], settings["normalise"], settings["fit"]) == ("feature2", "l2", "squash")
    assert (settings["size"], settings["resize"]) == (32, 32)
    np.testing.assert_allclose(np.linalg.norm(np.load(out), axis=1), 1, rtol=1e-5)


def test_parquet_has_paths_labels_vectors_and_facts(photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'simsiam[parquet]'")
    assert _run("embed", WEIGHTS, photos, "--out", tmp_path / "f.parquet", *SMALL) == 0
    assert _run("embed", WEIGHTS, photos, "--out", tmp_path / "f.npy", *SMALL) == 0
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("path").to_pylist() == NAMES
    assert table.column("label").to_pylist() == ["circle"] * 3 + ["square"] * 4
    np.testing.assert_array_equal(
        np.array(table.column("embedding").to_pylist(), np.float32), np.load(tmp_path / "f.npy")
    )
    facts = json.loads(table.schema.metadata[embedding_files.METADATA])
    assert facts["settings"]["size"] == 32
    assert facts == json.loads((tmp_path / "f.json").read_text())


def test_without_pyarrow_the_cure_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert _run("embed", WEIGHTS, photos, "--out", tmp_path / "f.parquet", *SMALL) == 2
    assert install_extra("parquet") in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.npy"
    out.write_bytes(b"mine")
    for again in ([], ["--again"]):
        assert _run("embed", WEIGHTS, photos, "--out", out, *SMALL, *again) == 2
        said = capsys.readouterr().err
        assert "f.npy: is there already and was not made by this command" in said
        assert "--again" not in said
        assert out.read_bytes() == b"mine"
    out.unlink()
    assert _run("embed", WEIGHTS, photos, "--out", out, *SMALL) == 0
    assert _run("embed", WEIGHTS, photos, "--out", out, *SMALL) == 2
    assert "exists already. Give another name, or --again to replace it." in capsys.readouterr().err
    assert _run("embed", WEIGHTS, photos, "--out", out, "--again", *SMALL) == 0
    assert np.load(out).shape == (7, 512)


def test_a_failing_disk_leaves_no_half_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(embedding_files._WRITERS, ".npy", full)
    assert _run("embed", WEIGHTS, photos, "--out", tmp_path / "made" / "f.npy", *SMALL) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "made").glob("[!.]*")) == ["f.bad.csv", "f.json", "f.paths.csv"]
    assert [path.name for path in (tmp_path / "made").glob(".*")] == [MANIFEST]


def test_every_kind_of_source(tmp_path: Path) -> None:
    shards = tiny.shards(tmp_path / "shards", count=2, samples=3)
    root = tiny.flat_folder(tmp_path / "flat", images=3)
    (tmp_path / "list.txt").write_text("".join(f"flat/{file.name}\n" for file in sorted(root.iterdir(), reverse=True)))
    tiny.cifar_cache(tmp_path / "cache", train=30, test=20)
    wanted = {"s.npy": shards, "f.npy": root, "l.npy": tmp_path / "list.txt", "c.npy": "cifar10"}
    wanted["one.npy"] = root / "photo 001.png"
    for name, place in wanted.items():
        split = ["--split", "test"] if place == "cifar10" else []
        assert _run("embed", WEIGHTS, place, "--out", tmp_path / name, *SMALL, *split) == 0
    counts = {name: len(np.load(tmp_path / name)) for name in wanted}
    assert counts == {"s.npy": 6, "f.npy": 3, "l.npy": 3, "c.npy": 20, "one.npy": 1}
    np.testing.assert_allclose(np.load(tmp_path / "l.npy"), np.load(tmp_path / "f.npy")[::-1], rtol=1e-3, atol=1e-6)
    assert _rows(tmp_path / "s.paths.csv")[4]["path"] == "train-000001.tar/000004.jpg"


def test_neighbours_in_words_and_as_a_picture(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query, sheet = photos / "circle" / "001.jpg", tmp_path / "sheets" / "found.png"
    table = tmp_path / "found.csv"
    assert _run("neighbors", WEIGHTS, photos, "--query", query, "--k", 4, "--out", sheet, "--table", table, *SMALL) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"{query}:"
    found = [line.split(maxsplit=1) for line in lines[1:]]
    assert {path for _, path in found[:2]} == {"circle/001.jpg", "square/again.jpg"}
    similarities = [float(number) for number, _ in found]
    assert similarities[:2] == pytest.approx([1, 1], abs=1e-3)
    assert similarities == sorted(similarities, reverse=True)
    assert len(found) == 4
    assert [(row["query"], row["path"]) for row in _rows(table)] == [(str(query), path) for _, path in found]
    assert "median similarity" in said.err
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 160
        assert picture.height > 160


def test_duplicates_in_words(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, table = tmp_path / "groups.jpg", tmp_path / "groups.csv"
    files = ["--out", sheet, "--table", table]
    assert _run("neighbors", WEIGHTS, photos, "--duplicates", "--threshold", 0.99999, *files, *SMALL) == 0
    said = capsys.readouterr()
    assert "square/again.jpg  (exactly circle/001.jpg)" in said.out
    assert "groups at a similarity of 0.99999 or more: 1, of 2 images in all; exact copies of another: 1" in said.out
    assert sheet.exists()
    rows = _rows(table)
    assert [(row["group"], row["path"], row["copy_of"]) for row in rows] == [
        ("1", "circle/001.jpg", ""),
        ("1", "square/again.jpg", "circle/001.jpg"),
    ]
    assert _run("neighbors", WEIGHTS, photos, "--duplicates", "--threshold", 0.01, *SMALL) == 0
    assert "group 1: 7 images" in capsys.readouterr().out


def test_names_that_are_no_utf8_pass_through(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=2)
    (root / "photo 000.png").rename(os.fsdecode(os.fsencode(root) + b"/odd \xff.png"))
    (tmp_path / "photos" / os.fsdecode(b"bad \xfe.png")).write_text("none")
    for name in ("f.npy", "f.csv"):
        assert _run("embed", WEIGHTS, root, "--out", tmp_path / name, *SMALL) == 0
    assert b"odd \xff.png" in (tmp_path / "f.paths.csv").read_bytes()
    assert b"odd \xff.png" in (tmp_path / "f.csv").read_bytes()
    assert b"bad \xfe.png" in (tmp_path / "f.bad.csv").read_bytes()
    sheet = tmp_path / "sheet.png"
    query = root / "photo 001.png"
    assert (
        _run("neighbors", WEIGHTS, root, "--query", query, "--out", sheet, "--table", tmp_path / "t.csv", *SMALL) == 0
    )
    assert "odd ?.png" in capfd.readouterr().out
    assert b"odd \xff.png" in (tmp_path / "t.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embed", WEIGHTS, "PHOTOS"], "--out: name the file"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.txt"], "must end in .parquet, .npy, .csv"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.npy", "--size", "big"], "size"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.npy", "--size", "3"], "--size 3: 8 pixels or more"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.npy", "--size", "0"], "--size 0: must be above zero"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.npy", "--resize", "20"], "--resize 20: the centre of 32 pixels"),
        (["embed", WEIGHTS, "PHOTOS", "--out", "x.npy", "--batch-size", "0"], "--batch-size 0"),
        (["embed", WEIGHTS, "PHOTOS/none", "--out", "x.npy"], "no such folder"),
        (["embed", "random:resnet8", "PHOTOS", "--out", "x.npy", "--layer", "feature5"], "has 4 stages"),
        (["embed", "nowhere", "PHOTOS", "--out", "x.npy"], "nowhere"),
        (["neighbors", WEIGHTS, "PHOTOS"], "--query PICTURE, or --duplicates"),
        (["neighbors", WEIGHTS, "PHOTOS", "--query", "none.jpg"], "none.jpg: no such file"),
        (["neighbors", WEIGHTS, "PHOTOS", "--query", "PHOTOS/circle/broken.jpg"], "cannot be read"),
        (["neighbors", WEIGHTS, "PHOTOS", "--query", "PHOTOS/circle/001.jpg", "--k", "0"], "--k 0"),
        (["neighbors", WEIGHTS, "PHOTOS", "--duplicates", "--threshold", "2"], "--threshold 2"),
        (["neighbors", WEIGHTS, "PHOTOS", "--duplicates", "--out", "x.gif"], "must end in .png"),
        (["neighbors", WEIGHTS, "PHOTOS", "--duplicates", "--table", "x.txt"], "must end in .csv"),
        (["browse", WEIGHTS, "PHOTOS", "--port", "99999", "--no-open"], "--port 99999"),
    ],
)
def test_mistakes(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.replace("PHOTOS", str(photos)) for word in words]
    small = [] if "--size" in words else SMALL
    assert _run(*words, *small) == 2
    assert said in capsys.readouterr().err
