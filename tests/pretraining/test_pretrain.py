"""The main path through the command line on tiny data: healthy ends, collapses, interruptions, bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam import cli
from simsiam.config import Machine
from simsiam.data import content
from simsiam.data.source import ArraySource
from simsiam.data.splits import data_id
from simsiam.engine.distributed import Process
from simsiam.pretraining import estimate, finish, run, run_folder
from simsiam.pretraining.inputs import Inputs, open_inputs
from simsiam.pretraining.monitor import Monitor
from simsiam.recipes.pretrain import RECIPES, folder_cpu
from simsiam.report.answer import answer
from simsiam.report.collect import read_run
from simsiam.results import Result, read_metrics
from simsiam.weights.load import load_backbone, unfinished
from tests import tiny
from tests.processes import Forked, program

NETWORK = (
    "--views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone resnet10 --model.projector-layers 2 "
    "--model.projector-hidden 0 --model.projector-dim 32 --model.predictor-dim 8 --device cpu --workers 0"
).split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 small pictures of two kinds, unlabelled: stripes and blobs in random colours."""
    root = tmp_path_factory.mktemp("data") / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for n in range(90):
        low = rng.integers(0, 255, (3 + n % 2 * 4, 4, 3), dtype=np.uint8)
        Image.fromarray(low).resize((24, 20), Image.Resampling.BICUBIC).save(root / f"{n:03d}.png")
    return root


def simsiam(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    return int(end.value.code or 0)


def start(*arguments: str | Path, fresh: bool = False) -> subprocess.Popen[str] | Forked:
    env = {**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    return program(arguments, env=env) if fresh else Forked(arguments, env=env)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = sorted((run / "checkpoints").glob("step-*.pt"))[-1]
    content = torch.load(newest, weights_only=True)
    state: dict[str, torch.Tensor] = {**content["modules"]["model"]}
    for n, slot in content["optimizer"]["state"].items():
        state[f"momentum.{n}"] = slot["momentum_buffer"]
    return state


def run_arguments(photos: Path, out: Path, *, epochs: int = 3) -> list[str | Path]:
    return ["pretrain", photos, *NETWORK, "--epochs", str(epochs), "--batch-size", "8", "--out", out]


@pytest.fixture(scope="module")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of a fresh program."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    process = start(*run_arguments(photos, out), fresh=True)
    text, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 4), text
    return out


def test_one_command_leaves_everything_a_person_needs(unbroken: Path) -> None:
    result = Result.read(unbroken / "result.json")
    assert result.protocol == "pretrain"
    assert result.detail["verdict"]["status"] == "too few images to tell"  # nine are held out
    names = {row["name"] for row in result.detail["baselines"]["view_recall"]}
    assert names == {"trained", "random network", "raw pixels"}
    for name in ("report.html", "report.json", "backbone.pth", "backbone.safetensors", "metrics.jsonl", "figures.json"):
        assert (unbroken / name).stat().st_size > 0, name
    steps = [row for row in read_metrics(unbroken / "metrics.jsonl") if row["kind"] == "step"]
    assert steps[-1]["step"] == 3 * 10  # 90 images, 9 held out, batches of 8: 10 steps an epoch
    assert steps[-1]["predictor_lr"] == steps[0]["predictor_lr"] > steps[-1]["lr"]


def test_the_backbone_loads_in_torchvision(unbroken: Path, photos: Path, tmp_path: Path) -> None:
    import torchvision

    state = torch.load(unbroken / "backbone.pth", weights_only=True)
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    assert set(state) == {key for key in model.state_dict() if not key.startswith("fc.")}


@pytest.mark.parametrize("at_step", [3, 10, 17])
def test_killed_anywhere_and_resumed_it_ends_with_the_same_weights(
    photos: Path, unbroken: Path, tmp_path: Path, at_step: int
) -> None:
    out = tmp_path / "killed"
    arguments = [*run_arguments(photos, out), "--checkpoint-minutes", "0.0001"]
    process = start(*arguments)
    _wait_for_step(out, at_step, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "result.json").exists()
    again = start(*arguments)
    text, _ = again.communicate(timeout=300)
    assert again.returncode in (0, 4), text
    assert "resuming " in text
    _assert_same(weights(out), weights(unbroken))
    rows = [row["step"] for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "monitor"]
    assert rows == sorted(set(rows)), "a resumed run must not leave rows twice"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_polite_stop_saves_and_goes_on(
    photos: Path, unbroken: Path, tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stopped"
    arguments = [*run_arguments(photos, out), "--checkpoint-minutes", "0.0001"]
    process = start(*arguments)
    _wait_for_step(out, 3, process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, text
    typed = shlex.join(["simsiam", *map(str, arguments)])
    assert text.endswith(f"the same command resumes from there:\n  {typed}\n")
    told = unfinished(out)
    assert told == (f"{out}: the pre-training is not finished; its last checkpoint is used. To resume it:\n  {typed}")
    capsys.readouterr()
    assert simsiam("export", out, "--to", "safetensors", "--out", tmp_path / "exported") == 0
    assert f"note: {told}" in capsys.readouterr().err
    assert simsiam("evaluate", "knn", out, "--data", tmp_path / "nowhere", "--device", "cpu") == 2
    assert f"note: {told}" in capsys.readouterr().err
    (note,) = load_backbone(out).notes
    assert re.fullmatch(r"step-\d+\.pt of a pre-training that was not finished", note)
    assert f"`{typed}`" in " ".join(answer(read_run(out)).sentences)
    again = start(*arguments)
    text, _ = again.communicate(timeout=300)
    assert again.returncode in (0, 4), text
    _assert_same(weights(out), weights(unbroken))
    assert unfinished(out) is None
    assert load_backbone(out).notes == ()


def test_a_stop_within_a_check_is_obeyed_and_the_check_done_again(
    photos: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stopped"
    arguments = [*run_arguments(photos, out), "--monitor-every", "1", "--checkpoint-every", "1"]
    whole = Monitor.pairs

    def pairs(self: Monitor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if (out / "checkpoints").exists():  # not at the check of the start
            os.kill(os.getpid(), signal.SIGTERM)
        yield from whole(self)

    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "pairs", pairs)
        assert simsiam(*arguments) == 128 + signal.SIGTERM
    assert "stopped and saved" in capsys.readouterr().err
    assert simsiam(*arguments) in (0, 4)
    _assert_same(weights(out), weights(unbroken))
    epochs = [row["epoch"] for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "monitor"]
    assert epochs == [0, 1, 2, 3]


def _wait_for_step(out: Path, step: int, process: subprocess.Popen[str] | Forked) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if step == 0 and (out / "metrics.jsonl").exists() and read_metrics(out / "metrics.jsonl"):
            return
        saved = sorted((out / "checkpoints").glob("step-*.pt"))
        if step and saved and int(saved[-1].stem.split("-")[1]) >= step:
            return
        time.sleep(0.005)
    text, _ = process.communicate(timeout=120)
    raise AssertionError(f"the run ended before step {step}:\n{text}")


def _assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_the_same_command_on_a_finished_run_changes_nothing(unbroken: Path, photos: Path) -> None:
    before = (unbroken / "result.json").read_bytes()
    assert simsiam(*run_arguments(photos, unbroken)) in (0, 4)
    assert (unbroken / "result.json").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(
    unbroken: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simsiam(*run_arguments(photos, unbroken, epochs=4)) == 2
    assert "epochs was 3, is 4" in capsys.readouterr().err


def test_changed_images_in_the_same_folder_are_refused(
    unbroken: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = tmp_path / "photos"
    fewer.mkdir()
    for path in sorted(photos.iterdir())[:80]:
        (fewer / path.name).write_bytes(path.read_bytes())
    assert simsiam(*run_arguments(fewer, unbroken)) == 2
    assert "other images" in capsys.readouterr().err


def test_a_damaged_last_checkpoint_is_passed_over(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "damaged"
    process = start(*run_arguments(photos, out), "--checkpoint-minutes", "0.0001")
    _wait_for_step(out, 12, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    newest = sorted((out / "checkpoints").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = start(*run_arguments(photos, out), "--checkpoint-minutes", "0.0001")
    text, _ = again.communicate(timeout=300)
    assert again.returncode in (0, 4), text
    _assert_same(weights(out), weights(unbroken))


def test_labels_from_a_csv_give_knn(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{photos / f'{n:03d}.png'},{'blobs' if n % 2 else 'stripes'}" for n in range(0, 60)]
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    out = tmp_path / "run"
    assert simsiam(*run_arguments(photos, out, epochs=1), "--labels", table) in (0, 4)
    result = Result.read(out / "result.json")
    assert result.main_metric == "knn"
    assert "left out" in result.detail["settings"]["knn"]
    monitor = [row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "monitor"]
    assert all(0 <= row["knn"] <= 100 for row in monitor)


def test_supervised_weights_are_compared(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = run_arguments(photos, out, epochs=1)
    assert simsiam(*arguments, "--compare", unbroken / "backbone.safetensors") in (0, 4)
    names = [row["name"] for row in Result.read(out / "result.json").detail["baselines"]["view_recall"]]
    assert any(name.startswith("compared: ") for name in names)


def test_weights_to_start_from(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert simsiam(*run_arguments(photos, out, epochs=1), "--init", unbroken) in (0, 4)
    first = next(row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "monitor")
    last = [row for row in read_metrics(unbroken / "metrics.jsonl") if row["kind"] == "monitor"][-1]
    assert first["view_recall"] == pytest.approx(last["view_recall"])
    assert first["spread"] == pytest.approx(last["spread"], rel=1e-5)


BAD_INPUT = {
    "no such folder": (["pretrain", "nowhere"], "nowhere"),
    "no such recipe": (["pretrain", "--recipe", "cifar01"], "cifar10"),
    "no such verb": (["pretrian"], "pretrain"),
    "no such backbone": (["pretrain", "PHOTOS", "--model.backbone", "resnet51", "--out", "OUT"], "resnet50"),
    "batch over the set": (["pretrain", "PHOTOS", "--batch-size", "512", "--out", "OUT"], "batch"),
    "no GPU": (["pretrain", "PHOTOS", "--device", "cuda", "--out", "OUT"], "--device cuda"),
    "half on a CPU": (["pretrain", "PHOTOS", *NETWORK, "--precision", "fp16", "--out", "OUT"], "bf16"),
    "weights that are none": (["pretrain", "PHOTOS", *NETWORK, "--init", "PHOTOS/000.png", "--out", "OUT"], "000.png"),
    "nothing to resume": (["pretrain", "PHOTOS", *NETWORK, "--resume", "--out", "OUT"], "--resume"),
    "accumulation": (["pretrain", "PHOTOS", "--accumulate", "4"], "BatchNorm"),
    "labels that are none": (
        ["pretrain", "PHOTOS", *NETWORK, "--labels", "nolabels.csv", "--out", "OUT"],
        "nolabels.csv",
    ),
    "weights to compare with that are none": (
        ["pretrain", "PHOTOS", *NETWORK, "--compare", "PHOTOS/000.png", "--out", "OUT"],
        "000.png",
    ),
    "one image a step": (
        ["pretrain", "PHOTOS", *NETWORK, "--batch-size", "1", "--out", "OUT"],
        "--batch-size 2 or more",
    ),
    "a batch beyond the set": (
        ["pretrain", "PHOTOS", *NETWORK, "--batch-size", "999", "--out", "OUT"],
        "one batch of 999",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_a_mistake_gets_one_clear_line(
    case: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if case == "no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    arguments, named = BAD_INPUT[case]
    filled = [a.replace("PHOTOS", str(photos)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    assert simsiam(*filled) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists(), "nothing is left that another command would be refused for"


def test_a_typo_in_a_flag_names_the_flag_meant(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simsiam("pretrain", photos, "--epocks", "3") == 2
    assert "--epochs" in capsys.readouterr().err


def test_bad_images_are_skipped_counted_and_listed(photos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "photos"
    mixed.mkdir()
    for path in photos.iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "empty.jpg").write_bytes(b"")
    (mixed / "text.png").write_text("not an image")
    out = tmp_path / "run"
    assert simsiam(*run_arguments(mixed, out, epochs=2)) in (0, 4)
    listed = (out / "skipped.csv").read_text()
    assert "empty.jpg" in listed
    assert "text.png" in listed
    assert json.loads((out / "result.json").read_text())["detail"]["skipped"]["count"] == 2


def test_labels_that_come_too_late_are_measured_now_and_what_is_read_is_said(
    unbroken: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (unbroken / "result.json").read_bytes()
    labels = tiny.folder(tmp_path / "labels", classes=2, images=3)
    for which in ("first", "second"):
        tiny.shape("circle", seed=len(which)).save(labels / "square" / "000.jpg")
        assert simsiam(*run_arguments(photos, unbroken), "--labels", str(labels)) == 0
        said = capsys.readouterr()
        assert f"simsiam evaluate few-labels {unbroken} --data {labels}" in said.err
        assert "measured now" in said.out, which
    assert simsiam(*run_arguments(photos, unbroken), "--compare", "random:resnet10") == 2
    assert "was not compared with that" in capsys.readouterr().err
    assert simsiam(*run_arguments(photos, unbroken)) == 0
    assert "nothing was trained or measured now" in capsys.readouterr().err
    assert (unbroken / "result.json").read_bytes() == before


def test_a_run_that_knew_its_images_by_names_and_sizes_is_taken_up(
    unbroken: Path, photos: Path, tmp_path: Path
) -> None:
    older = Path(shutil.copytree(unbroken, tmp_path / "older"))
    recipe = json.loads((older / "recipe.json").read_text())
    recipe["data"] = {"name": recipe["data"]["name"], "images": recipe["data"]["images"], "sha256": "0" * 64}
    del recipe["labels"], recipe["compare"]
    (older / "recipe.json").write_text(json.dumps(recipe))
    assert simsiam(*run_arguments(photos, older)) == 0


def test_held_out_images_that_are_training_images_are_noted(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=20)
    for file in list(root.iterdir()):
        (root / f"copy of {file.name}").write_bytes(file.read_bytes())
    inputs = open_inputs(folder_cpu(), data=root, labels=None, machine=Machine())
    assert f"of {len(inputs.held_out)} held-out images" in finish._data_notes(inputs, "")[1]


def test_the_first_step_waits_for_no_digest_and_the_record_has_it_in_the_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped, waited = threading.Event(), []
    step, read = run.train_step, content._file_digest

    def first_step(*arguments: Any, **settings: Any) -> dict[str, torch.Tensor]:
        done = step(*arguments, **settings)
        stepped.set()
        return done

    def digest(file: str) -> bytes:
        waited.append(stepped.wait(60))
        return read(file)

    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_known", {})
    monkeypatch.setattr(content, "_file_digest", digest)
    monkeypatch.setattr(run, "train_step", first_step)
    out = tmp_path / "run"
    assert simsiam(*run_arguments(photos, out, epochs=1)) in (0, 4)
    assert waited
    assert all(waited)
    record, result = json.loads((out / "recipe.json").read_text()), Result.read(out / "result.json")
    assert record["data"]["sha256"] == result.data.sha256
    assert record["stamps"]["data"]
    assert not any("changed while" in note for note in result.detail["data_notes"])
    record["data"]["sha256"] = "0" * 64
    (out / "recipe.json").write_text(json.dumps(record))
    inputs = open_inputs(folder_cpu(), data=photos, labels=None, machine=Machine())
    assert "changed while" in run_folder.changed_images(out, inputs)[0]


def test_a_resume_notices_other_images_by_stamps_and_then_by_content(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=20)

    def opened(place: Path = root) -> Inputs:
        return open_inputs(folder_cpu(), data=place, labels=None, machine=Machine())

    begun = opened()
    stamps = {what: run_folder._stamp(parts) for what, parts in run_folder._sets(begun).items()}
    early: dict[str, Any] = {"data": {"sha256": None}, "labels": None, "stamps": stamps}  # the content is not yet read
    late = {**early, "data": {"sha256": data_id(begun.train).sha256}}
    for record in (early, late):
        assert run_folder._same(record, opened(), "data")
        assert run_folder._same(record, opened(), "labels")  # it has none
    moved = Path(shutil.copytree(root, tmp_path / "moved" / "photos"))
    assert run_folder._same(early, opened(moved), "data")  # names, sizes and times came along
    file = sorted(root.iterdir())[0]
    os.utime(file, (1, 1))
    assert not run_folder._same(early, opened(), "data")
    assert run_folder._same(late, opened(), "data")  # touched, not changed
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(bytes(raw))
    assert not run_folder._same(late, opened(), "data")


@pytest.mark.parametrize("minutes", [1.2, 5.0, 15.0])
def test_the_demo_fills_its_minutes_with_fewer_images(monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    """1,000 images at 60 s an epoch, and checks of 2 s: one after each epoch, one to measure, six for the end."""
    now = [100.0]

    class Check:
        def check(self, network: object) -> None:
            now[0] += 2.0

    pixels = np.zeros((1000, 4, 4, 3), np.uint8)
    inputs = Inputs(
        train=ArraySource(pixels, name="demo"), held_out=ArraySource(pixels[:9], name="demo"), labelled=None
    )
    about = {"images": 1000, "steps_per_epoch": 10, "epochs": 1, "steps": 4}
    pace = estimate.Preflight(**about, seconds_per_step=6.0, memory_gib=0.0)
    monkeypatch.setattr(estimate, "of_recipe", lambda *_: pace)
    monkeypatch.setattr(estimate, "open_monitor", lambda *_: Check())
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    process = Process(rank=0, world=1, device=torch.device("cpu"))
    recipe = estimate.fitted(RECIPES["demo"](), inputs, Machine(), process, minutes=minutes)
    seconds = recipe.epochs * (recipe.train_images * 0.06 + 2)
    assert recipe.train_images <= 1000
    assert seconds == pytest.approx(60 * minutes - 2 * 2 - 6 * 2, abs=0.06 * recipe.epochs)


def test_minutes_plan_the_epochs_and_a_resume_keeps_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*args: object, **kwargs: object) -> estimate.Preflight:
        return estimate.Preflight(
            images=81, steps_per_epoch=10, epochs=1, seconds_per_step=9.0, memory_gib=0.0, steps=4
        )

    words = ["pretrain", photos, *NETWORK, "--batch-size", "8", "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(estimate, "of_recipe", measured)  # an epoch of 90 s
        assert simsiam(*words, "--minutes", "1") == 2
        assert "--minutes 1: too few for one epoch" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
        assert simsiam(*words, "--minutes", "4.4") in (0, 4)  # 264 s: two epochs, and checks of less than 84 s
    said = capsys.readouterr().err
    assert said.index("--minutes 4.4: 2 epochs") < said.index("a step measured")
    record = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (record["minutes"], record["recipe"]["epochs"]) == (4.4, 2)
    assert simsiam(*words, "--minutes", "4.4") in (0, 4)  # finished: read, not measured and planned anew
    assert "--minutes 4.4:" not in capsys.readouterr().err
    assert simsiam(*words, "--minutes", "9") == 2
    assert "began with --minutes 4.4" in capsys.readouterr().err
    assert simsiam(*words, "--minutes", "4.4", "--epochs", "2") == 2
    assert "Give one of them" in capsys.readouterr().err
