"""What can be known to go wrong is told before data are read and networks are built: places, weights, seeds."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from simsiam import cli
from simsiam.backbones import build_backbone
from simsiam.errors import UserError
from simsiam.protocols import PROTOCOLS
from simsiam.results import require_writable, require_writable_file
from simsiam.weights.save import write_backbone
from tests import tiny, tiny_masks

VERBS = [["evaluate", name, "random", "--data", "nowhere"] for name in PROTOCOLS]
VERBS += [
    ["evaluate", "all", "random"],
    ["pretrain", "nowhere"],
    ["pretrain", "cifar10"],
    ["predict", ".", "nowhere.jpg"],
    ["embed", "random", "nowhere"],
    ["neighbors", "random", "nowhere", "--query", __file__],
]
FILES = {"embed": ".csv", "neighbors": ".png"}  # verbs whose --out is a file
TRAINED = ["detection-voc0712", "detection-folder", "segmentation-folder", "segmentation-voc12aug"]


@pytest.fixture
def _nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*arguments: object, **options: object) -> Any:
        raise AssertionError(f"{arguments} was opened before the place was looked at")

    monkeypatch.setattr("simsiam.data.sources.open_source", opened)
    monkeypatch.setattr("simsiam.evaluation.detection.data.open_published", opened)
    monkeypatch.setattr("simsiam.evaluation.detection.data.open_own", opened)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    return capsys.readouterr().err


def name_of(words: list[str]) -> str:
    return " ".join(words[:2])


@pytest.mark.usefixtures("_nothing_is_opened")
@pytest.mark.parametrize("words", VERBS, ids=name_of)
def test_a_file_in_the_way_is_told_at_once(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] != "neighbors":  # its flags are read over the weights' own size
        monkeypatch.setattr("simsiam.weights.pretrained.open_subject", lambda *_, **__: pytest.fail("opened"))
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / f"deep{FILES.get(words[0], '')}"
    (told,) = refused([*words, "--out", str(out)], capsys).splitlines()
    assert str(tmp_path / "file") in told
    assert "is no folder, so nothing can be written there. Give another --out." in told


@pytest.mark.usefixtures("_nothing_is_opened")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder that nobody can write in")
@pytest.mark.parametrize("words", VERBS[:1] + VERBS[-6:], ids=name_of)
def test_a_place_that_cannot_be_made_is_told_at_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = refused([*words, "--out", f"/proc/x{FILES.get(words[0], '/y.csv')}"], capsys)
    assert "nothing can be written in /proc" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_what_the_system_says_is_passed_on(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=rf"in {tmp_path} \({os.strerror(number)}\). Give another --out"):
        require_writable(tmp_path / "new" / "deep")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="no folder is closed to the superuser")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        require_writable(tmp_path / "new")


def test_looking_at_a_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "deep")
    require_writable_file(tmp_path / "new" / "file.csv")
    monkeypatch.chdir(tmp_path)
    require_writable(Path("runs"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"--table .*: that is a folder. Name a file."):
        require_writable_file(tmp_path, flag="--table")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link is no folder"):
        require_writable(tmp_path / "link" / "new")


@pytest.mark.parametrize("name", ["knn", "all", *TRAINED])
def test_a_seed_that_comes_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = refused(["evaluate", name, "random:resnet10", "--seeds", "0", "1", "0", "--out", "o"], capsys)
    assert told == "simsiam: --seeds 0 1 0: 0 is named twice; each seed gives one result.\n"


@pytest.mark.parametrize("name", ["knn", *TRAINED])
def test_weights_of_another_network_stop_it_before_the_first_start_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_backbone(Path("run"), build_backbone("resnet8", width=8, stem="small"), recipe=None)
    starts = ["random", "run"] if name == "knn" else ["--from", "random", "--from", "run"]
    words = ["evaluate", name, *starts, "--data", "nowhere", "--out", "o", "--backbone"]
    told = refused([*words, "resnet10"], capsys)
    assert "run: the network in it is resnet8, but --backbone says resnet10" in told
    assert "`random:run` for an untrained twin of this one" in told
    assert len(told.splitlines()) == 2
    assert refused([*words, "resnet99"], capsys).startswith("simsiam: --backbone resnet99: there is no such network.")
    assert not Path("o").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["embed", "random", "nowhere", "--out", "o.csv"],
        ["browse", "random", "nowhere"],
        ["export", "WEIGHTS", "--to", "torchvision"],
        ["import", "WEIGHTS"],
    ],
    ids=name_of,
)
def test_every_verb_names_the_flag_of_a_misspelt_network(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_backbone(Path("run"), build_backbone("resnet8", width=8), recipe=None)
    given = ["run/backbone.safetensors" if word == "WEIGHTS" else word for word in words]
    told = refused([*given, "--backbone", "resnet99"], capsys)
    assert told.startswith("simsiam: --backbone resnet99: there is no such network. Did you mean")


def test_pretraining_names_the_flag_of_a_misspelt_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tiny.flat_folder(tmp_path / "photos")
    told = refused(["pretrain", str(photos), "--model.backbone", "resnet99", "--device", "cpu"], capsys)
    assert told.startswith("simsiam: --model.backbone resnet99: there is no such network. Did you mean")


def test_an_untrained_twin_is_trained_beside_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_backbone(Path("run"), build_backbone("resnet8", width=8, stem="small-stride2"), recipe=None)
    shapes = tiny_masks.folders(tmp_path / "shapes", train=4, val=2, size=(40, 32))
    words = "--size 32 --iterations 2 --batch-size 4 --head-channels 8 --auxiliary-channels 4 --device cpu --workers 0"
    starts = ["--from", "run", "--from", "random:run", "--backbone", "resnet8"]
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "segmentation-folder", *starts, "--data", str(shapes), "--out", "o", *words.split()])
    assert not end.value.code
    assert "run, untrained" in capsys.readouterr().out
