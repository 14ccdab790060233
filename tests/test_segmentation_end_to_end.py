"""The segmentation protocols through the command line, on shapes small enough for a second each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.backbones import build_backbone
from simsiam.cli import main
from simsiam.engine.checkpoints import read
from tests import tiny_masks
from tests.processes import launch

SMALL = (
    "--size 32 --iterations 6 --evaluate-every 3 --batch-size 4 --head-channels 8 --auxiliary-channels 4 "
    "--device cpu --workers 0"
).split()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "narrow.pth"
    torch.manual_seed(5)
    torch.save(build_backbone("resnet10", width=8).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_masks.folders(tmp_path_factory.mktemp("shapes"), train=6, val=3, size=(40, 32))


def result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def simsiam(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def evaluate(name: str, *words: str | Path) -> int:
    return simsiam("evaluate", f"segmentation-{name}", *words, *SMALL)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = sorted((folder / "checkpoints").glob("step-*.pt"))[-1:]
    found: dict[str, torch.Tensor] = read(file)["modules"]["network"]
    return found


def test_voc12aug(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_masks.voc12aug(tmp_path / "VOCdevkit", train=3, aug=3, val=3, size=(40, 32))
    assert evaluate("voc12aug", weights, "--data", root, "--out", tmp_path / "out") == 0
    found = result(tmp_path / "out")
    assert found["protocol"] == "segmentation_voc12aug"
    assert found["data"]["images"] == 9
    assert set(found["metrics"]) == {"miou", "pixel_accuracy", "mean_accuracy"}
    classes = found["detail"]["per_class"]["IoU"]
    assert found["metrics"]["miou"] == pytest.approx(np.mean(list(classes.values())))
    assert "background" in classes
    assert [row["iteration"] for row in found["detail"]["history"]] == [3, 6]
    assert found["detail"]["loaded_tensors"] == len(torch.load(weights, weights_only=True))
    (picture,) = found["detail"]["pictures"]
    with Image.open(tmp_path / "out" / picture["file"]) as image:
        assert image.width > 900
    assert any("6 iterations; the published protocol has 20,000" in note for note in found["notes"])
    assert any("batch 4 in place of 16: the rate was scaled linearly from 0.01 to 0.0025" in n for n in found["notes"])
    printed = capsys.readouterr().out
    assert "published, v" not in printed, "these are not the images of VOC2012"
    assert f"{found['metrics']['miou']:.2f}" in printed
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["step", "evaluation", "step", "evaluation"]


def test_cityscapes_with_its_sliding_test(weights: Path, tmp_path: Path) -> None:
    root = tiny_masks.cityscapes(tmp_path / "cityscapes", train=4, val=2, size=(64, 32))
    assert evaluate("cityscapes", weights, "--data", root, "--out", tmp_path / "out") == 0
    found = result(tmp_path / "out")
    assert found["protocol"] == "segmentation_cityscapes"
    assert found["recipe"]["segmentation"]["testing"]["windows"] == "slide"
    assert 0 <= found["metrics"]["miou"] <= 100


def test_several_starts_come_out_in_one_table(
    weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (weights, "--from", f"random:{weights}", "--data", shapes, "--out", tmp_path)
    assert evaluate("folder", *words) == 0
    printed = capsys.readouterr().out
    places = re.findall(r"result: (.*)/result.json", printed)
    assert len(places) == 2
    assert len({result(Path(place))["weights"]["sha256"] for place in places}) == 2
    table = [line for line in printed.splitlines() if line.startswith("| ") and "ours" in line]
    assert len(table) == 2
    before = [Path(place).joinpath("result.json").stat().st_mtime_ns for place in places]
    assert evaluate("folder", *words) == 0  # nothing is trained anew
    assert before == [Path(place).joinpath("result.json").stat().st_mtime_ns for place in places]


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    weights: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "whole") == 0
    from simsiam.evaluation.segmentation import trainer as segmentation_lesson

    loss, calls = segmentation_lesson.segmentation_loss, []

    def fails_in_the_fifth_step(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 9:  # two losses a step
            raise RuntimeError("power cut")
        return loss(*arguments, **options)

    monkeypatch.setattr(segmentation_lesson, "segmentation_loss", fails_in_the_fifth_step)
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "cut", "--checkpoint-minutes", "0")
    kept = sorted(file.name for file in (tmp_path / "cut/checkpoints").iterdir())
    assert kept == ["step-000000003.pt", "step-000000004.pt"]  # the last within an epoch
    assert simsiam("predict", tmp_path / "cut", shapes / "images/val", "--out", tmp_path / "early") == 2
    told = capsys.readouterr().err
    assert "the training of this segmentor is not finished (iteration 4 of 6)" in told
    assert "Give the `simsiam evaluate` command that began it once more" in told
    assert not (tmp_path / "early").exists()
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "cut") == 0
    whole, cut = final_weights(tmp_path / "whole"), final_weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert result(tmp_path / "whole")["metrics"] == result(tmp_path / "cut")["metrics"]
    logs = [
        [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"evaluation"' in line]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert len(logs[0]) == 2
    assert logs[0] == logs[1]


def test_two_processes(weights: Path, shapes: Path, tmp_path: Path) -> None:
    words = ["evaluate", "segmentation-folder", str(weights), "--data", str(shapes), "--out", str(tmp_path), *SMALL]
    done = launch(words, world=2)
    assert done.returncode == 0, done.stdout
    found = result(tmp_path)
    assert found["metrics"]["pixel_accuracy"] > 0
    pixels = 3 * 40 * 32  # of the test set: both processes' shares were counted
    assert done.stdout.count("result: ") == 1
    share = found["metrics"]["pixel_accuracy"] / 100 * pixels
    assert share == pytest.approx(round(share), abs=1e-6)


def test_the_rate_search_reports_and_takes_the_best(
    weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ("--lr-sweep", "0.001", "0.08", "--sweep-iterations", "2", "--lr-batch", "16")
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "a", *rates) == 0
    rows = result(tmp_path / "a")["detail"]["lr_sweep"]
    assert [row["lr"] for row in rows] == [0.001, 0.08]
    assert all(0 <= row["miou"] <= 100 for row in rows)
    assert result(tmp_path / "a")["detail"]["lr"] == pytest.approx(0.0025)  # the recipe's own
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "b", *rates, "--sweep-choice", "best") == 0
    best = max(result(tmp_path / "b")["detail"]["lr_sweep"], key=lambda row: row["miou"])["lr"]
    assert result(tmp_path / "b")["detail"]["lr"] == pytest.approx(best / 4)
    assert "held-out training images (the best was taken)" in capsys.readouterr().out
    high = ("--lr-sweep", "1e30", "--sweep-iterations", "2")
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "c", *high) == 2
    assert "every rate is too high" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--accumulate", "2"], "BatchNorm takes its statistics over the images that pass together"),
        (["--iterations", "7"], "--iterations 7: not a multiple of --evaluate-every 3; use 6 or 9"),
        (["--output-stride", "2"], "the stem of resnet10 alone has 4"),
        (["--lr", "1e30"], "too high for these weights. Lower --lr"),
        (["--size", "0"], "--size 0: must be above zero"),
        (["--train-images", "."], "name the data set one way"),
    ],
)
def test_mistakes_are_told(
    weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    line = ["evaluate", "segmentation-folder", str(weights), "--data", str(shapes), "--out", str(tmp_path)]
    repeated = {words[0], words[0] + "="}
    kept = [word for n, word in enumerate(SMALL) if word not in repeated and SMALL[n - 1] not in repeated]
    assert simsiam(*line, *kept, *words) == 2
    assert message in capsys.readouterr().err


def test_bf16_and_channels_last_stay_close_to_fp32(weights: Path, shapes: Path, tmp_path: Path) -> None:
    for name, words in (("fp32", ()), ("bf16", ("--precision", "bf16", "--channels-last", "on"))):
        assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / name, *words) == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()[::2]]
        for name in ("fp32", "bf16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


@pytest.mark.gpu
def test_a_gpu_trains_in_bf16(weights: Path, shapes: Path, tmp_path: Path) -> None:
    words = [word for word in SMALL if word not in ("--device", "cpu")]
    place = ("--data", shapes, "--out", tmp_path, "--device", "cuda", "--precision", "bf16", "--channels-last", "on")
    assert simsiam("evaluate", "segmentation-folder", weights, *place, *words) == 0
    assert np.isfinite(result(tmp_path)["metrics"]["miou"])


def test_accumulation_without_batch_statistics_is_one_large_batch(weights: Path, shapes: Path, tmp_path: Path) -> None:
    free = ("--norm", "group", "--backbone-norm", "frozen", "--dropout", "0")
    networks = []
    for parts in ("1", "2"):
        out = tmp_path / parts
        assert evaluate("folder", weights, "--data", shapes, "--out", out, *free, "--accumulate", parts) == 0
        networks.append(final_weights(out))
    start = build_backbone("resnet10", width=8).state_dict()
    for name, value in networks[0].items():
        assert torch.allclose(value, networks[1][name], atol=1e-4), name
    assert not torch.equal(networks[0]["backbone.conv1.weight"], start["conv1.weight"])
    assert torch.equal(networks[0]["backbone.bn1.running_mean"], start["bn1.running_mean"])


def test_data_that_are_wrong_stop_before_training(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_masks.folders(tmp_path / "data", train=4, val=2, size=(40, 32))
    (root / "masks/train/scene000.png").unlink()
    (root / "images/val/scene005.png").write_bytes(b"")
    assert evaluate("folder", weights, "--data", root, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "2 problems in the data; nothing was trained" in told
    assert "scene000.png: no such file (the mask)" in told
    assert "scene005.png: empty file" in told
    assert not (tmp_path / "out/checkpoints").exists()


def test_predicting_colours_images_of_ones_own(
    weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("folder", weights, "--data", shapes, "--out", tmp_path / "run") == 0
    (tmp_path / "more").mkdir()
    Image.new("RGB", (50, 30), "red").save(tmp_path / "more/scene006.png")
    images = [shapes / "images/val", tmp_path / "more/scene006.png"]
    out = tmp_path / "seen"
    forms = ["--write", "pictures", "masks", "csv"]
    assert simsiam("predict", tmp_path / "run", *images, "--out", out, "--device", "cpu", *forms) == 0
    rows = [line.split(",") for line in (out / "predictions.csv").read_text().splitlines()[1:]]
    masks = [np.asarray(Image.open(file)) for file in (out / "masks").iterdir()]
    assert sum(int(row[-1] or 0) for row in rows) == sum((mask > 0).sum() for mask in masks)
    names = sorted(file.name for file in (out / "masks").iterdir())
    assert names == ["scene006-2.png", "scene006.png", "scene007.png", "scene008.png"]
    assert (out / "classes.txt").read_text().split() == ["background", "circle", "square", "triangle"]
    with Image.open(out / "masks/scene006-2.png") as mask, Image.open(out / "scene006-2.png") as over:
        assert mask.size == over.size == (50, 30)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2, 3}
    # What is predicted is what was scored: the confusion of the masks gives the result's pixel accuracy.
    hits = [
        np.asarray(Image.open(out / "masks" / f"scene{n:03d}.png")) == tiny_masks.scene(n, size=(40, 32)).kinds
        for n in (6, 7, 8)
    ]
    assert 100 * np.mean(hits) == pytest.approx(result(tmp_path / "run")["metrics"]["pixel_accuracy"])
    assert simsiam("export", tmp_path / "run", "--to", "pt2", "--out", tmp_path / "program") == 0
    assert "classes 1 x" in (tmp_path / "program/README.md").read_text()
    (tmp_path / "more/bad.jpg").write_bytes(b"nothing")
    assert simsiam("predict", tmp_path / "run", tmp_path / "more", "--out", out, "--device", "cpu") == 1
    assert "left out" in capsys.readouterr().out
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    assert simsiam("predict", tmp_path / "other", *images, "--out", out, "--device", "cpu") == 2
    assert "no trained segmentor" in capsys.readouterr().err


LEARNS = (
    "--size 48 --iterations 60 --evaluate-every 30 --batch-size 8 --lr-batch 8 --lr 0.1 --head-channels 16 "
    "--auxiliary-channels 8 --output-stride 4 --backbone resnet8 --device cpu --workers 0"
).split()


def narrow(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(build_backbone("resnet8", width=12).state_dict(), folder / "resnet8.pth")
    return folder / "resnet8.pth"


def test_shapes_in_the_form_of_voc12aug_are_learnt(tmp_path: Path) -> None:
    root = tiny_masks.voc12aug(tmp_path / "voc", train=16, aug=48, val=16, size=(48, 48), colours="by kind")
    words = ("--data", root, "--out", tmp_path / "out", *LEARNS)
    assert simsiam("evaluate", "segmentation-voc12aug", narrow(tmp_path), *words) == 0
    found = result(tmp_path / "out")
    assert found["metrics"]["miou"] > 85, found["detail"]["per_class"]
    assert {"background", "aeroplane", "cat", "person"} <= set(found["detail"]["per_class"]["IoU"])


def test_shapes_in_the_form_of_cityscapes_are_learnt(tmp_path: Path) -> None:
    root = tiny_masks.cityscapes(tmp_path / "city", train=64, val=16, size=(64, 48), colours="by kind")
    words = ("--data", root, "--out", tmp_path / "out", *LEARNS)
    assert simsiam("evaluate", "segmentation-cityscapes", narrow(tmp_path), *words) == 0
    found = result(tmp_path / "out")
    assert found["metrics"]["miou"] > 85, found["detail"]["per_class"]
    assert {"road", "person", "car", "vegetation"} <= set(found["detail"]["per_class"]["IoU"])


@pytest.mark.slow
def test_shapes_of_any_colour_are_told_apart_by_their_form(tmp_path: Path) -> None:
    root = tiny_masks.voc12aug(tmp_path / "voc", train=100, aug=500, val=40)
    words = "--size 64 --iterations 1200 --evaluate-every 200 --batch-size 16 --lr 0.1 --min-ratio 0.8 --max-ratio 1.25"
    network = "--head-channels 32 --auxiliary-channels 16 --output-stride 4 --backbone resnet8 --distort-probability 0"
    torch.manual_seed(0)
    torch.save(build_backbone("resnet8", width=16).state_dict(), tmp_path / "w.pth")
    place = ("--data", root, "--out", tmp_path / "out", "--device", "cpu", "--workers", "0")
    assert (
        simsiam("evaluate", "segmentation-voc12aug", tmp_path / "w.pth", *place, *words.split(), *network.split()) == 0
    )
    assert result(tmp_path / "out")["metrics"]["miou"] > 85


def test_what_is_wrong_is_left_out_where_asked_and_counted(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_masks.folders(tmp_path / "own", train=6, val=3, size=(40, 32))
    (root / "images/train/scene001.png").write_text("none")
    (root / "masks/train/scene002.png").unlink()
    (root / "masks/val/scene006.png").write_bytes((root / "masks/val/scene006.png").read_bytes()[:60])
    (root / "masks/val/alone.png").write_bytes((root / "masks/val/scene007.png").read_bytes())
    words = ("folder", weights, "--data", root, "--out", tmp_path / "out")
    assert evaluate(*words) == 2
    assert "or leave them out by --skip-bad." in capsys.readouterr().err
    assert evaluate(*words, "--skip-bad") == 0
    found = result(tmp_path / "out")
    train, test = (found["detail"]["inventory"][part] for part in ("train", "test"))
    assert (train["found"], train["used"], found["detail"]["train_images"]) == (6, 4, 4)
    assert (test["found"], test["used"], found["detail"]["test_images"]) == (3, 2, 2)
    assert [(each["what"], each["count"]) for each in (*train["left_out"], *test["left_out"])] == [
        ("image", 2),
        ("image", 1),
        ("file", 1),
    ]
    assert "scene001.png: not an image" in train["left_out"][0]["reason"]
    assert any(note.startswith("train set: 4 images of 6 used; left out: 2 images (damaged") for note in found["notes"])
    listed = json.loads((tmp_path / "out/data-checked.json").read_text())["left_out"]
    assert [each[:2] for each in listed] == [[0, 1], [0, 2], [1, 0]]
    (tmp_path / "out/result.json").unlink()
    assert evaluate(*words) == 2, "what was checked for --skip-bad does not pass without it"
    assert evaluate(*words, "--skip-bad") == 0
    assert result(tmp_path / "out")["detail"]["inventory"] == found["detail"]["inventory"]
    (root / "images/val/scene007.jpg").write_bytes((root / "images/val/scene007.png").read_bytes())
    capsys.readouterr()
    assert evaluate(*words[:-1], tmp_path / "twins", "--skip-bad") == 2
    assert "2 files of one name; keep the one that is meant" in capsys.readouterr().err


def test_one_image_at_a_single_place_is_refused_in_words(
    weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "segmentation-folder", weights, "--data", shapes, "--out", tmp_path / "out", *SMALL]
    assert simsiam(*words, "--size", "8", "--batch-size", "1") == 2
    assert "--batch-size 1: one image a device, and crops of 8 pixels" in capsys.readouterr().err
    assert simsiam(*words, "--batch-size", "5") == 0, "the sixth image alone would be too few, but is not alone"
