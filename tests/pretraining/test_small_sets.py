"""Sets that were once stopped as collapsed, or praised though they got worse, through the command line to the end."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam import cli
from simsiam.data.source import Source
from simsiam.data.two_views.loader import ViewLoader
from simsiam.pretraining import inputs
from simsiam.recipes.pretrain import RECIPES
from simsiam.report.answer import answer
from simsiam.report.collect import read_run
from simsiam.results import Result, read_metrics

NETWORK = (
    "--views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone resnet8 --model.projector-layers 2 "
    "--model.projector-hidden 0 --model.projector-dim 32 --model.predictor-dim 8 --device cpu --workers 0"
).split()


def photo(rng: np.random.Generator) -> Image.Image:
    """A picture of its own: a few coarse blobs of colour."""
    return Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)).resize((24, 20), Image.Resampling.BICUBIC)


def pretrain(images: Path, out: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", str(images), *NETWORK, "--batch-size", "8", "--out", str(out), *words])
    return int(end.value.code or 0)


@pytest.mark.parametrize("photos", [20, 60, *(pytest.param(n, marks=pytest.mark.slow) for n in (24, 40))])
def test_a_small_folder_is_trained_to_the_end(photos: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(photos)
    (tmp_path / "photos").mkdir()
    for n in range(photos):
        photo(rng).save(tmp_path / f"photos/{n:03d}.png")
    assert pretrain(tmp_path / "photos", tmp_path / "run", "--epochs", "12") == 0
    result = Result.read(tmp_path / "run/result.json")
    assert result.detail["verdict"]["status"] == "too few images to tell"
    checks = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if row["kind"] == "monitor"]
    assert checks[-1]["epoch"] == 12
    assert "too few to tell a collapse" in capsys.readouterr().out


def test_a_video_in_the_order_of_time_is_trained_to_the_end(tmp_path: Path) -> None:
    """Five cameras of 48 frames: each image's neighbour in the folder is nearly the same image."""
    rng = np.random.default_rng(0)
    (tmp_path / "video").mkdir()
    for camera in range(5):
        still = np.asarray(photo(rng), np.int64)
        for frame in range(48):
            noisy = np.clip(still + rng.integers(-6, 7, still.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / f"video/cam{camera}-{frame:03d}.png")
    assert pretrain(tmp_path / "video", tmp_path / "run", "--epochs", "3") == 0
    result = Result.read(tmp_path / "run/result.json")
    assert any("of about 5 distinct scenes" in note for note in result.detail["data_notes"])
    checks = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if row["kind"] == "monitor"]
    assert checks[-1]["epoch"] == 3
    assert [row["scenes"] for row in checks] == [5] * len(checks)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 pictures of two classes that any network tells apart: red and blue."""
    root, rng = tmp_path_factory.mktemp("data") / "set", np.random.default_rng(1)
    for n in range(240):
        kind = "red" if n % 2 else "blue"
        pixels = np.asarray(photo(rng), np.int64) // 2
        pixels[:, :, 0 if kind == "red" else 2] += 110
        (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / kind / f"{n:03d}.png")
    return root


def test_good_weights_that_a_run_destroys_are_what_it_is_compared_with(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    assert pretrain(labelled, good, "--epochs", "2", "--base-lr", "0.05", "--monitor-images", "24") in (0, 4)
    ruin = ["--init", str(good), "--base-lr", "3000", "--weight-decay", "0", "--on-collapse", "warn"]
    code = pretrain(labelled, tmp_path / "run", "--epochs", "2", "--monitor-images", "24", *ruin)
    assert code in (3, 4)
    result = Result.read(tmp_path / "run/result.json")
    verdict = result.detail["verdict"]
    assert verdict["status"] != "healthy"
    said = " ".join([*verdict["evidence"], verdict["summary"]])
    assert "untrained network" not in said
    if verdict["status"] == "collapsed" and "diverged" in verdict["summary"]:
        return  # a rate at which the loss itself is lost
    shown = {row["name"] for rows in result.detail["baselines"].values() for row in rows}
    assert {"trained", "random network", f"before training: {good}"} <= shown
    sentences = " ".join(answer(read_run(tmp_path / "run")).sentences)
    assert "at random start" in sentences
    assert "before training" in sentences


def test_weights_that_are_no_numbers_are_a_divergence_with_its_step(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last update of the second epoch is lost; the losses before it were finite."""
    from simsiam.engine.fit import Training

    real, steps = Training.update, iter(range(1, 10_000))

    def update(training: Training, loss: torch.Tensor) -> None:
        real(training, loss)
        if next(steps) == 54:  # 216 training images in batches of 8: 27 steps an epoch
            with torch.no_grad():
                next(training.modules["model"].parameters()).fill_(float("nan"))

    monkeypatch.setattr(Training, "update", update)
    assert pretrain(labelled, tmp_path / "run", "--epochs", "4", "--monitor-images", "24") == 3
    summary = Result.read(tmp_path / "run/result.json").detail["verdict"]["summary"]
    assert summary == "The training diverged: weights that are not finite at step 54."


def test_stability_is_there_after_a_resume(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simsiam.pretraining import run as main_path

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    words = ["--epochs", "2", "--monitor-images", "24"]
    assert pretrain(labelled, whole, *words) in (0, 4)
    real = main_path.train_step
    left = iter(range(40))  # preflight steps among them: the second epoch is under way

    def step(*arguments: object, **named: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(main_path, "train_step", step)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        cli.main(["pretrain", str(labelled), *NETWORK, "--batch-size", "8", "--out", str(cut), *words])
    monkeypatch.setattr(main_path, "train_step", real)
    assert pretrain(labelled, cut, *words) in (0, 4)
    stabilities = [
        [
            (row.get("neighbour_stability"), row["knn_moved"])
            for row in read_metrics(out / "metrics.jsonl")
            if row["kind"] == "monitor"
        ]
        for out in (whole, cut)
    ]
    assert stabilities[0] == stabilities[1]
    assert None not in stabilities[0][-1]


def test_no_image_is_held_out_where_the_published_number_of_steps_is_wanted(labelled: Path, tmp_path: Path) -> None:
    assert pretrain(labelled, tmp_path / "run", "--epochs", "1", "--monitor-images", "0") in (0, 4)
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"][-1] == 240 // 8
    assert [row["candidates"] for row in rows if row["kind"] == "monitor"] == [240, 240]
    detail = Result.read(tmp_path / "run/result.json").detail
    assert any("--monitor-images 0" in note for note in detail["data_notes"])
    assert "each query left out" in detail["settings"]["knn"]


class ImageNetsNumbers(Source):
    """As many images as the published runs train on; none is read."""

    name, labels, classes = "imagenet", None, None

    def __len__(self) -> int:
        return 1_281_167

    def read(self, index: int) -> Image.Image:
        raise NotImplementedError

    def path(self, index: int) -> str:
        return f"{index:07d}.JPEG"

    def digests(self) -> np.ndarray:
        raise NotImplementedError


def test_imagenet_without_held_out_images_has_the_published_steps() -> None:
    recipe = dataclasses.replace(RECIPES["resnet50_8xb32-coslr-100e"](), monitor_images=0)
    train, watched = inputs._split(ImageNetsNumbers(), recipe)
    assert len(watched) == 1000
    loader = ViewLoader(
        train, recipe.views, batch_size=recipe.batch_size, seed=0, engine="pil", device=torch.device("cpu")
    )
    assert loader.steps == 5004
    loader.close()
