"""`simsiam evaluate detection-...` on synthetic shapes, from words to pictures."""

from __future__ import annotations

import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from simsiam.data.splits import split_notes
from simsiam.evaluation.detection.data import open_own
from simsiam.evaluation.detection.detector import Detector
from simsiam.results import Result, read_metrics
from tests import tiny_shapes
from tests.detection_command import CPU, FEW, IMAGES, NARROW, SHORT, SIDE, evaluate, masks_of, predict
from tests.detection_command import coco as coco
from tests.detection_command import done as done
from tests.detection_command import done_with_masks as done_with_masks
from tests.detection_command import voc as voc
from tests.detection_command import weights as weights
from tests.processes import launch


def test_a_result_holds_what_tables_and_pages_need(done: Path) -> None:
    result = Result.read(done / "result.json")
    assert result.protocol == "detection_voc0712"
    assert result.main_metric == "ap50"
    assert {"ap50", "ap50_area", "ap", "ap75"} <= set(result.metrics)
    assert result.data.name.startswith("voc0712")
    assert result.data.images == 14
    assert set(result.detail["per_class"]["ap50"]) <= set(tiny_shapes.CLASSES)
    assert [row["iteration"] for row in result.detail["history"]] == [2, 4]
    assert result.metrics == {k: v for k, v in result.detail["history"][-1].items() if k != "iteration"}
    assert result.detail["lr"] == pytest.approx(0.08 * 4 / 16)
    assert any("batch 4 instead of 16: the rate 0.08 became 0.02" in note for note in result.notes)
    assert any("3 classes; the published benchmark has 20" in note for note in result.notes)
    assert (done / "report.html").exists()
    [picture] = result.detail["pictures"]
    with Image.open(done / picture["file"]) as grid:
        assert grid.width > 1000


def test_masks_are_learnt_and_scored_where_the_annotations_have_them(done_with_masks: Path) -> None:
    result = Result.read(done_with_masks / "result.json")
    assert result.protocol == "detection_folder"
    assert result.main_metric == "box_ap"
    assert {"box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"} <= set(result.metrics)
    rows = [row for row in read_metrics(done_with_masks / "metrics.jsonl") if row["kind"] == "step"]
    assert {"loss", "rpn_objectness", "rpn_box", "roi_class", "roi_box", "mask"} <= set(rows[-1])
    parts = sum(rows[-1][name] for name in ("rpn_objectness", "rpn_box", "roi_class", "roi_box", "mask"))
    assert rows[-1]["loss"] == pytest.approx(parts, rel=1e-5)


def test_the_same_command_measures_nothing_twice(done: Path, weights: Path, voc: Path) -> None:
    before = (done / "result.json").stat().st_mtime_ns
    assert evaluate("voc0712", weights, "--data", voc, "--out", done, *SHORT) == 0
    assert (done / "result.json").stat().st_mtime_ns == before


def test_several_starts_make_one_table(
    weights: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--from", weights, "--from", f"random:{weights}", "--data", voc, "--out", tmp_path]
    assert evaluate("voc0712", *words, "--iterations", 2, "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    places = re.findall(r"result: (.*)/result.json", printed)
    assert len(places) == 2
    assert len({Result.read(Path(place) / "result.json").weights.sha256 for place in places}) == 2
    assert len([line for line in printed.splitlines() if "| ours |" in line]) == 2


def test_a_run_that_was_killed_goes_on_to_the_same_detector(
    done: Path,
    weights: Path,
    voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forward, calls = Detector.forward, []

    def fails_in_the_fourth_step(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return forward(*arguments)

    words = [weights, "--data", voc, "--out", tmp_path, *SHORT]
    monkeypatch.setattr(Detector, "forward", fails_in_the_fourth_step)
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate("voc0712", *words, "--checkpoint-minutes", "0")
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000000002.pt", "step-000000003.pt"]
    assert predict(tmp_path, voc) == 2
    assert "the training of this detector is not finished" in capsys.readouterr().err
    assert evaluate("voc0712", *words) == 0
    whole, cut = (load_file(folder / "detector.safetensors") for folder in (done, tmp_path))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    one, other = (Result.read(folder / "result.json") for folder in (done, tmp_path))
    assert one.metrics == other.metrics
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "evaluation"]
    assert steps == [2, 4]


def test_anchors_that_suit_no_object_are_told_before_and_after(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = tiny_shapes.voc_folder(tmp_path / "set", images=5, side=SIDE)
    words = [weights, "--data", shapes, "--out", tmp_path / "out", "--recipe", "folder_boxes", *SHORT]
    assert evaluate("folder", *words, "--architecture.rpn.scales", "20") == 0
    told = "no anchor comes close to 100 % of the objects"
    assert told in capsys.readouterr().err
    result = Result.read(tmp_path / "out" / "result.json")
    [note] = [note for note in result.notes if told in note]
    better = re.search(r"--architecture\.rpn\.scales ([\d.]+)`", note)
    assert better is not None
    assert evaluate("folder", *words, "--again", "--architecture.rpn.scales", better[1]) == 0
    assert "no anchor comes close" not in capsys.readouterr().err


def test_it_learns_what_it_is_shown(weights: Path, tmp_path: Path) -> None:
    """Boxes and masks of two images, by the flags of the command alone; a wrong target or loss gets nowhere near."""
    coco = tiny_shapes.coco_folder(tmp_path / "coco", train=2, test=1, side=SIDE)
    train = ["--data", coco / "annotations/instances_train2017.json", "--images", coco / "train2017"]
    test = ["--test", train[1], "--test-images", train[3]]
    steps = "--iterations 80 --evaluate-every 80 --batch-size 2 --lr 0.25 --warmup-iterations 5".split()
    same = "--train-images.short-sides 64 --train-images.flip-probability 0".split()
    out = tmp_path / "out"
    assert evaluate("folder", weights, *train, *test, "--out", out, *NARROW, *steps, *same) == 0
    result = Result.read(out / "result.json")
    assert result.metrics["box_ap50"] > 60
    assert result.metrics["mask_ap50"] > 40
    losses = [row["loss"] for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "step"]
    assert losses[-1] < 0.6 * losses[0]


def test_a_folder_with_another_runs_state_is_refused(
    done: Path, weights: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    last = next((done / "checkpoints").iterdir())
    (tmp_path / "checkpoints" / last.name).write_bytes(last.read_bytes())
    (tmp_path / "metrics.jsonl").write_bytes((done / "metrics.jsonl").read_bytes())
    assert evaluate("voc0712", weights, "--data", voc, "--out", tmp_path, *SHORT, "--momentum", "0.8") == 2
    assert "another run (different protocol)" in capsys.readouterr().err


def test_a_sweep_tries_rates_on_held_out_images(weights: Path, voc: Path, tmp_path: Path) -> None:
    words = [weights, "--data", voc, "--out", tmp_path, "--iterations", 2, "--batch-size", 2]
    sweep = ["--lr-sweep", "0.01,0.04", "--sweep-iterations", 2]
    assert evaluate("voc0712", *words, *sweep) == 0
    result = Result.read(tmp_path / "result.json")
    assert [row["lr"] for row in result.detail["lr_sweep"]] == [0.01, 0.04]
    assert all(row["iterations"] == 2 and row["held_out_images"] == 2 for row in result.detail["lr_sweep"])
    assert all(math.isfinite(row["ap50"]) for row in result.detail["lr_sweep"])
    assert result.detail["lr"] == pytest.approx(0.02 * 2 / 16)  # reported, not chosen
    assert any("(for the record only); trained at 0.02" in note for note in result.notes)


def test_a_sweep_passes_over_a_rate_at_which_the_loss_runs_away(
    weights: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [weights, "--data", voc, "--out", tmp_path, "--iterations", 12, "--batch-size", 2]
    rates = ["--lr-sweep=1e30,0.04", "--sweep-iterations", 12, "--sweep-choice", "best"]
    assert evaluate("voc0712", *words, *rates) == 0
    result = Result.read(tmp_path / "result.json")
    assert result.detail["lr_sweep"][0]["ap50"] is None
    assert result.detail["lr"] == pytest.approx(0.04 * 2 / 16)
    assert evaluate("voc0712", *words, "--out", tmp_path / "too", *["--lr-sweep", "1e30"], *rates[1:]) == 2
    assert "--lr-sweep 1e+30: every rate is too high" in capsys.readouterr().err


def test_the_papers_recipes_search_their_rate_and_can_be_told_not_to(weights: Path, voc: Path, tmp_path: Path) -> None:
    words = [weights, "--data", voc, "--recipe", "transfer_c4_voc0712", "--iterations", 1, "--batch-size", 2]
    assert evaluate("voc0712", *words, "--out", tmp_path / "searched") == 0
    searched = Result.read(tmp_path / "searched" / "result.json")
    rows = searched.detail["lr_sweep"]
    assert [(row["lr"], row["iterations"]) for row in rows] == [(0.02, 1), (0.05, 1), (0.1, 1), (0.2, 1)]
    best = max(rows, key=lambda row: row["ap50"])["lr"]
    assert searched.detail["lr"] == pytest.approx(best * 2 / 16)
    assert evaluate("voc0712", *words, "--out", tmp_path / "fixed", "--lr-sweep", "--lr", 0.03) == 0
    fixed = Result.read(tmp_path / "fixed" / "result.json")
    assert "lr_sweep" not in fixed.detail
    assert fixed.detail["lr"] == pytest.approx(0.03 * 2 / 16)


@pytest.mark.parametrize(
    ("flags", "images", "told"),
    [
        ([], 10, False),
        (["--background", "left_out"], 9, True),
        (["--background", "left_out", "--difficult", "learnt"], 10, False),
    ],
    ids=["background", "left out", "learnt"],
)
def test_what_becomes_of_an_image_with_difficult_objects_alone(
    weights: Path, tmp_path: Path, flags: list[str], images: int, told: bool
) -> None:
    voc = tiny_shapes.voc_tree(tmp_path / "voc", train=10, test=4, side=SIDE)
    annotation = sorted((voc / "VOC2007" / "Annotations").glob("*.xml"))[0]
    text = annotation.read_text()
    assert "<difficult>0</difficult>" in text
    annotation.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>"))
    out = tmp_path / "out"
    assert evaluate("voc0712", weights, "--data", voc, "--out", out, "--iterations", 3, "--batch-size", 4, *flags) == 0
    result = Result.read(out / "result.json")
    assert result.detail["train_images"] == images
    assert any("1 training image without an object to learn from was left out" in n for n in result.notes) is told


def test_of_two_numbers_of_iterations_the_last_counts(weights: Path, voc: Path, tmp_path: Path) -> None:
    words = [weights, "--data", voc, "--batch-size", 2, "--out", tmp_path]
    assert evaluate("voc0712", *words, "--iterations", 5, "--iterations=1") == 0
    assert Result.read(tmp_path / "result.json").recipe["length"] == 1


def test_a_voc_folder_of_ones_own_holds_some_images_out(weights: Path, tmp_path: Path) -> None:
    own = tiny_shapes.voc_folder(tmp_path / "own", images=10, side=SIDE)
    assert evaluate("folder", weights, "--data", own, "--out", tmp_path / "out", "--iterations", 2) == 0
    result = Result.read(tmp_path / "out" / "result.json")
    assert result.recipe["name"].startswith("folder_boxes_cpu-2it (")
    assert (result.detail["train_images"], result.detail["test_images"]) == (8, 2)
    assert any("2 of 10 images were held out" in note for note in result.notes)


def test_frozen_norms_allow_small_passes(weights: Path, voc: Path, tmp_path: Path) -> None:
    frozen = ["--architecture.backbone-norm", "frozen", "--architecture.head-norm", "none"]
    words = [weights, "--data", voc, "--iterations", 1, "--batch-size", 4, *frozen]
    for passes in (1, 2):
        assert evaluate("voc0712", *words, "--accumulate", passes, "--out", tmp_path / str(passes)) == 0
    result = Result.read(tmp_path / "2" / "result.json")
    assert any("BatchNorm is not trained throughout" in note for note in result.notes)
    state = load_file(tmp_path / "2" / "detector.safetensors")
    start = load_file(weights / "backbone.safetensors")
    assert torch.equal(state["features.trunk.bn1.running_mean"], start["bn1.running_mean"])
    assert not torch.equal(state["features.trunk.conv1.weight"], start["conv1.weight"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the weights to measure"),
        (["WEIGHTS"], "--data: name the VOCdevkit"),
        (["WEIGHTS", "--data", "VOC", "--accumulate", "2"], "BatchNorm takes its statistics over the images"),
        (["WEIGHTS", "--data", "VOC", "--iterations", "4", "--evaluate-every", "3"], "must divide --length 4"),
        (["WEIGHTS", "--data", "VOC", "--iterations", "0"], "--iterations 0: must be above zero."),
        (["WEIGHTS", "--data", "VOC", "--recipe", "transfer_c4_voc"], "Did you mean transfer_c4_voc0712"),
        (["WEIGHTS", "--data", "VOC", "--lr-sweep", "0"], "--lr-sweep 0: must be above zero."),
        (["WEIGHTS", "--data", "VOC", "--lr-sweep", "1", "--sweep-iterations", "90000"], "longer than the training"),
        (["WEIGHTS", "--data", "VOC", "--images", "VOC"], "Unrecognized options: --images"),
        (["timm:resnet10t", "--data", "VOC"], "timm:resnet10t"),
    ],
)
def test_mistakes_are_told(
    words: list[str], message: str, weights: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"WEIGHTS": str(weights), "VOC": str(voc)}
    assert evaluate("voc0712", *[given.get(word, word) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_masks_that_are_not_there_are_asked_for(
    weights: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tiny_shapes.voc_folder(tmp_path / "own", images=4, side=SIDE)
    words = [weights, "--data", own, "--recipe", "folder_masks", "--iterations", 2, "--out", tmp_path / "out"]
    assert evaluate("folder", *words) == 2
    assert "this set has boxes only" in capsys.readouterr().err


def test_two_processes_train_and_score_together(weights: Path, coco: Path, tmp_path: Path) -> None:
    words = [weights, *masks_of(coco), "--out", tmp_path, *SHORT, *NARROW, *CPU, *IMAGES, *FEW]
    words += ["--precise-bn-iterations", 3]
    ran = launch(["evaluate", "detection-folder", *map(str, words)], world=2)
    assert ran.returncode == 0, ran.stdout
    result = Result.read(tmp_path / "result.json")
    assert math.isfinite(result.metrics["mask_ap"])
    kept = load_file(tmp_path / "detector.safetensors")
    assert int(kept["features.trunk.bn1.num_batches_tracked"]) == 3
    assert (tmp_path / "pictures" / "predictions.jpg").exists()


def test_images_that_are_learnt_from_and_scored_on_are_noted(tmp_path: Path) -> None:
    own = tiny_shapes.voc_folder(tmp_path / "own", images=4, side=SIDE)
    same = open_own(own, test=own, bad="stop")
    [note] = split_notes(same.train, same.test)
    assert note.startswith("4 of 4 test images are among the training images")
    other = tiny_shapes.voc_folder(tmp_path / "other", images=2, side=SIDE, seed=9)
    sets = open_own(own, test=other, bad="stop")
    assert split_notes(sets.train, sets.test) == []


def test_words_that_contradict_the_data(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tiny_shapes.voc_folder(tmp_path / "own", images=4, side=SIDE)
    assert evaluate("folder", weights, "--data", own, "--images", tmp_path / "none") == 2
    assert "none: no such folder of images" in capsys.readouterr().err
    assert evaluate("folder", weights, "--from", weights, "--data", own) == 2
    assert "named twice" in capsys.readouterr().err


def test_images_of_ones_own_without_an_object_are_negatives_where_background_is_kept(
    weights: Path, tmp_path: Path
) -> None:
    own = tiny_shapes.voc_folder(tmp_path / "own", images=10, side=SIDE)
    for annotation in sorted(own.rglob("*.xml"))[:4]:
        annotation.write_text(re.sub(r"<object>.*</object>", "", annotation.read_text(), flags=re.DOTALL))
    words = ["folder", weights, "--data", own, "--test", own, "--iterations", 3, "--batch-size", 2]
    assert evaluate(*words, "--out", tmp_path / "out") == 0
    assert Result.read(tmp_path / "out" / "result.json").detail["train_images"] == 6
    assert evaluate(*words, "--background", "kept", "--out", tmp_path / "kept") == 0
    kept = Result.read(tmp_path / "kept" / "result.json")
    assert (kept.detail["train_images"], kept.detail["test_images"]) == (10, 10)
    assert not any("left out" in note for note in kept.notes)
    assert {"rpn_box", "roi_box"} <= read_metrics(tmp_path / "kept" / "metrics.jsonl")[0].keys()


def test_a_signal_within_the_scoring_is_obeyed_and_the_same_command_ends_as_if_it_never_came(
    done: Path, weights: Path, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    detect = Detector.detect

    def hit_at_the_second_image(self: Detector, *arguments: Any) -> Any:
        looked.append(1)
        if len(looked) == 6:  # four images in the first scoring
            os.kill(os.getpid(), signal.SIGTERM)
        return detect(self, *arguments)

    monkeypatch.setattr(Detector, "detect", hit_at_the_second_image)
    words = ["voc0712", weights, "--data", voc, "--out", tmp_path / "out", *SHORT]
    assert evaluate(*words) == 128 + signal.SIGTERM
    assert len(looked) == 6
    assert not (tmp_path / "out" / "result.json").exists()
    assert evaluate(*words) == 0
    whole, cut = (load_file(folder / "detector.safetensors") for folder in (done, tmp_path / "out"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    results = [Result.read(folder / "result.json") for folder in (done, tmp_path / "out")]
    assert results[0].metrics == results[1].metrics
    assert results[0].detail["history"] == results[1].detail["history"]
