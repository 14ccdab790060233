"""md5 of a user's folder before and after every command that writes, each told to write where the user's files are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from simsiam import cli
from simsiam.backbones import build_backbone
from simsiam.claims import MANIFEST
from simsiam.commands.verbs import VERBS
from tests import tiny

CPU = "--device cpu --workers 0".split()
SMALL = (
    "--epochs 1 --batch-size 2 --model.backbone resnet10 --model.width 8 --views.size 16 --model.stem small-stride2"
).split()
WEIGHTS = "random:resnet10"


def simsiam(*words: object) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def sums(folder: Path) -> dict[str, str]:
    """md5 of every file, but for the program's own list and a run's page, which `report` writes anew."""
    own = (MANIFEST, "run/report.html", "run/report.json")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not str(file).endswith(own)]
    return {str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training."""
    root = tmp_path_factory.mktemp("run")
    photos = tiny.flat_folder(root / "photos", images=24, size=24)
    assert simsiam("pretrain", photos, *SMALL, *CPU, "--out", root / "run") in (0, 3, 4)
    return root / "run"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder: pictures, tables, notes, and files that bear the names which commands write."""
    home = tiny.folder(tmp_path / "home", classes=2, images=4)
    for name in ("README.md", "backbone.safetensors", "backbone.pth", "tables.md", "table.csv", "page.md", "v.npy"):
        (home / name).write_text(f"the user's own {name}")
    for folder in ("circle", "square"):
        with open(home / "list.csv", "a") as table:
            table.write("".join(f"{folder}/{n:03d}.jpg,{folder}\n" for n in range(4)))
    (home / "small").mkdir()
    (home / "small" / "report.html").write_text("the user's own page")
    for name in ("result.json", "metrics.jsonl", "checkpoints/step-000000001.pt", "checkpoints/notes.txt"):
        (home / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "own" / name).write_text("the user's own")
    torch.save(build_backbone("resnet10", width=8).state_dict(), home / "weights.pth")
    return home


COMMANDS = {
    "pretrain": "pretrain {home}/circle {small} --out {home}",
    "pretrain among the images": "pretrain {home}/circle {small} --out {home}/circle/run",
    "evaluate": "evaluate knn {weights} --train {home} --test {home} --out {home}",
    "evaluate again": "evaluate knn {weights} --train {home} --test {home} --out {home}/deep --again",
    "evaluate over a pre-training": "evaluate knn {run} --train {home} --test {home} --out {run} --again",
    "embed": "embed {weights} {home}/circle --out {home}/v.npy",
    "embed again": "embed {weights} {home}/circle --out {home}/v.npy --again",
    "embed among the images": "embed {weights} {home}/circle --out {home}/circle/v.npy",
    "neighbors over a picture": "neighbors {weights} {home}/circle --duplicates --out {home}/square/000.jpg",
    "neighbors over the query": "neighbors {weights} {home}/circle --query {query} --out {query}",
    "neighbors over a table": "neighbors {weights} {home}/circle --duplicates --table {home}/table.csv",
    "evaluate among a list's images": "evaluate few-labels {weights} --data {home}/list.csv --out {home}/circle/r",
    "embed among a list's images": "embed {weights} {home}/list.csv --out {home}/circle/new.npy",
    "pretrain among a list's images": "pretrain {home}/list.csv {small} --out {home}/square/new",
    "evaluate among checkpoints": "evaluate few-labels {weights} --data {home}/list.csv --out {run}/checkpoints",
    "neighbors among figures": "neighbors {weights} {home}/circle --duplicates --out {run}/figures/new.jpg",
    "reproduce": "reproduce similarity --epochs 1 --out {home}",
    "report": "report {run} --out {home}",
    "submit": "submit --logs {home}/circle/logs -- pretrain {home}/circle --out {home}/run",
    "export": "export {run} --to safetensors --out {home}",
    "import": "import {home}/weights.pth --out {home}",
    "import over a run": "import {home}/weights.pth --out {run}",
    "zoo page": "zoo page {run} --out {home}/page.md",
}
BESIDE = {  # what is written there stands beside the user's files
    "bench": "bench {home}/circle --recipe demo --batch-size 2 --seconds 0.001 --rounds 1 --out {home}/own",
    "embed": "embed {run} {home}/list.csv --out {home}/new.npy",
    "neighbors": "neighbors {run} {home}/list.csv --duplicates --out {home}/new.png --table {home}/new.csv",
    "browse": "browse {run} {home}/circle --no-open",
    "evaluate all": "evaluate all {run} --labels {home}/list.csv --only clustering --out {home}/own",
    "export": "export {run} --to safetensors --out {home}/checked",
    "report": "report {run} --out {home}/own",
    "submit": "submit --cluster local --gpus 0 --logs {home}/logs -- recipes",
    "zoo add": "zoo add {run} --licence MIT --name own",
    "zoo page": "zoo page {run} --out {home}/own/page.md",
}
NOT_HERE = {
    "predict",
    "recipes",
    "show",
}  # predict: tests/test_detection_predict.py, tests/test_segmentation_end_to_end.py


def test_every_verb_is_tried() -> None:
    assert {line.split()[0] for line in (*COMMANDS.values(), *BESIDE.values())} | NOT_HERE == VERBS.keys()


def words_of(line: str, home: Path, run: Path) -> list[str]:
    """A command line with its places."""
    places = {"home": home, "run": run, "weights": WEIGHTS, "query": home / "square/001.jpg"}
    words = [part for word in line.split() for part in (SMALL if word == "{small}" else [word.format(**places)])]
    return words + (CPU if words[0] in ("pretrain", "evaluate", "embed", "neighbors", "browse", "reproduce") else [])


@pytest.mark.parametrize("line", BESIDE.values(), ids=BESIDE.keys())
def test_what_is_written_stands_beside_a_users_files(
    line: str, home: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsiam.browse.server.Server.serve_forever", Mock(side_effect=KeyboardInterrupt))
    before, trained = sums(home), sums(run)
    assert simsiam(*words_of(line, home, run)) == 0
    assert {name: digest for name, digest in sums(home).items() if name in before} == before
    assert sums(run) == trained


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_users_files_stay_as_they_are(line: str, home: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, trained = sums(home), sums(run)
    assert simsiam(*words_of(line, home, run)) == 2
    assert sums(home) == before
    assert sums(run) == trained
    said = capsys.readouterr().err
    assert "--again" not in said, "nobody is told to destroy what is not the program's"
    cures = ["--table" if "--table" in line else "--logs" if "--logs" in line else "--out", "Move it away"]
    assert any(cure in said for cure in cures), said


def test_a_folder_of_state_that_is_not_ours_is_not_emptied(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sums(home)
    train = ["--train", tiny.folder(tmp_path / "a"), "--test", tiny.folder(tmp_path / "b"), "--size", "32"]
    assert simsiam("evaluate", "knn", WEIGHTS, *train, "--out", home / "own", "--again", *CPU) == 2
    assert "was not made by this command" in capsys.readouterr().err
    assert sums(home) == before


def test_an_evaluation_begun_again_takes_its_own_files_alone(home: Path, tmp_path: Path) -> None:
    words = ["evaluate", "knn", WEIGHTS, "--train", tiny.folder(tmp_path / "a"), "--test", tiny.folder(tmp_path / "b")]
    words += ["--size", "32", "--out", tmp_path / "out", *CPU]
    assert simsiam(*words) == 0
    (tmp_path / "out" / "notes.txt").write_text("the user's")
    first = (tmp_path / "out" / "result.json").stat().st_mtime_ns
    assert simsiam(*words, "--again") == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "the user's"
    assert (tmp_path / "out" / "result.json").stat().st_mtime_ns != first
