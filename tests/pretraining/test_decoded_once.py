"""Runs on large photos end alike, killed or not, whatever is kept of the photos; and they say what they did."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from simsiam.config import Machine
from simsiam.pretraining import run_folder
from simsiam.pretraining.estimate import Preflight
from simsiam.pretraining.inputs import open_inputs
from simsiam.recipes.pretrain import folder_cpu
from simsiam.results import Result
from tests import tiny
from tests.pretraining.test_pretrain import NETWORK, _assert_same, _wait_for_step, simsiam, start, weights

LARGE = 400  # pixels of a side, where 42 suffice for the views of 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos by some hand, a day old."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for file in tiny.folder(root, classes=1, images=24, size=(LARGE + 100, LARGE)).rglob("*.jpg"):
        os.utime(file, (file.stat().st_mtime - 86_400,) * 2)
    return root


def arguments(photos: Path, out: Path, cache: Path, *more: str) -> list[str | Path]:
    usual = ["--epochs", "2", "--batch-size", "4", "--checkpoint-minutes", "0.0001"]
    return ["pretrain", photos, *NETWORK, *usual, "--out", out, "--cache", cache, *more]


@pytest.fixture(scope="module")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    assert simsiam(*arguments(photos, place / "unbroken", place / "cache")) in (0, 4)
    return place / "unbroken"


def test_the_records_say_at_which_size_photos_were_kept(unbroken: Path) -> None:
    assert json.loads((unbroken / "recipe.json").read_text())["photo_side"] == 96
    detail = Result.read(unbroken / "result.json").detail
    assert detail["photo_side"] == 96
    assert any("decoded once, at 96 px, and kept in" in note for note in detail["data_notes"])


def test_killed_in_the_first_epoch_and_resumed_it_ends_with_the_same_weights(
    photos: Path, unbroken: Path, tmp_path: Path
) -> None:
    line = arguments(photos, tmp_path / "killed", tmp_path / "cache")
    process = start(*line)
    _wait_for_step(tmp_path / "killed", 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (pack,) = (tmp_path / "cache" / "decoded-photos").glob("*.pack")
    with open(pack.with_suffix(".index"), "ab") as index:
        index.write(b"half a record")
    with open(pack, "ab") as file:
        file.write(b"half a photo")
    assert simsiam(*line) in (0, 4)
    _assert_same(weights(tmp_path / "killed"), weights(unbroken))


def test_what_is_there_already_or_cannot_be_kept_changes_no_weight(
    photos: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simsiam(*arguments(photos, tmp_path / "warm", unbroken.parent / "cache", "--workers", "2")) in (0, 4)
    _assert_same(weights(tmp_path / "warm"), weights(unbroken))
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert simsiam(*arguments(photos, tmp_path / "none", tmp_path / "file")) in (0, 4)
    _assert_same(weights(tmp_path / "none"), weights(unbroken))
    said = "".join(capsys.readouterr())
    assert "decoded once, at 96 px, in every epoch: they cannot be kept in" in said


def test_switched_off_nothing_is_kept(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    assert simsiam(*arguments(photos, tmp_path / "off", tmp_path / "cache", "--photo-cache", "off")) in (0, 4)
    assert not (tmp_path / "cache" / "decoded-photos").exists()
    assert Result.read(tmp_path / "off" / "result.json").detail["photo_side"] is None
    with pytest.raises(AssertionError):
        _assert_same(weights(tmp_path / "off"), weights(unbroken))


def test_a_run_is_resumed_with_the_pixels_that_it_began_with(photos: Path, tmp_path: Path) -> None:
    machines = {how: Machine(cache=tmp_path / "cache", photo_cache=how) for how in ("auto", "off")}
    found = {how: open_inputs(folder_cpu(), data=photos, labels=None, machine=machines[how]) for how in machines}
    assert (found["auto"].photo_side, found["off"].photo_side) == (192, None)
    assert run_folder.as_begun(tmp_path, found["auto"], machines["auto"]).photo_side == 192
    for began, side in (({"photo_side": 192}, 192), ({}, None)):  # earlier versions did not write it down
        (tmp_path / "recipe.json").write_text(json.dumps(began))
        for how, inputs in found.items():
            assert run_folder.as_begun(tmp_path, inputs, machines[how]).photo_side == side
    first = found["off"].kept_in(found["auto"].train.photos)
    assert first.held_out.photos is first.train.photos


def test_the_estimate_counts_the_first_epoch_by_its_own_pace() -> None:
    plain = Preflight(
        images=100,
        steps_per_epoch=10,
        epochs=5,
        seconds_per_step=1.0,
        memory_gib=0.1,
        steps=4,
        first_seconds_per_step=3.0,
    )
    assert plain.seconds == 5 * 10 * 1.0 + 10 * 2.0
    assert "1,000 ms a step measured (3,000 in the first epoch)" in plain.line(torch.device("cpu"))
