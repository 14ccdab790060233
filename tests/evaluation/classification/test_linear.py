"""The linear protocols: published settings, heads against torch, learning, resuming, several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simsiam.backbones import build_backbone
from simsiam.data.sources import ArraySource
from simsiam.data.splits import Splits
from simsiam.engine.checkpoints import Checkpoints
from simsiam.errors import UserError
from simsiam.evaluation.classification.accuracy import AccuracyMeter
from simsiam.evaluation.classification.linear_heads import FrozenFeatureNorm, features_of, stage_heads
from simsiam.evaluation.classification.trainer import ClassifierTrainer
from simsiam.evaluation.fine_tuning import Scored, Watch
from simsiam.features.extraction import evaluation_mode, stage_pools
from simsiam.recipes import linear as recipes
from simsiam.results import Result
from simsiam.weights.load import fingerprint
from tests import tiny
from tests.evaluation.classification.labelled_subjects import KINDS, avgpool, machine, mhead, splits, subject
from tests.processes import launch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _heads(out: Path) -> dict[str, torch.Tensor]:
    content = Checkpoints(out / "checkpoints", keep=1).latest()
    assert content is not None
    state: dict[str, torch.Tensor] = content["modules"]["network"]
    return state


def test_published_settings() -> None:
    heads = recipes.resnet50_mhead_8xb32_steplr_90e().heads
    how, crop = heads.schooling.optimisation, heads.schooling.augmentation
    assert (how.optimizer, how.lr, how.momentum, how.weight_decay) == ("nesterov", 0.01, 0.9, 1e-4)
    assert (how.epochs, how.milestones, how.gamma, how.batch_size) == (90, (30, 60, 90), 0.1, 256)
    assert (crop.jitter, crop.lighting, crop.min_scale, crop.size) == (0.4, 0.1, 0.08, 224)
    # The third milestone is the end of training, so it never acts.
    assert [how.factor()(epoch) for epoch in (0, 29, 30, 59, 60, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    inat = recipes.resnet50_mhead_8xb32_steplr_84e_inat18().heads.schooling
    assert (inat.optimisation.epochs, inat.optimisation.milestones) == (84, (24, 48, 72))
    assert (inat.augmentation.jitter, inat.augmentation.lighting) == (0.0, 0.0)
    assert inat.evaluate_every == 10  # epochs, as published
    places = recipes.resnet50_mhead_8xb32_steplr_28e_places205().heads.schooling
    assert (places.optimisation.epochs, places.optimisation.milestones) == (28, (7, 14, 21))
    assert places.evaluate_every == 10
    assert (places.augmentation.crop, places.augmentation.resize) == ("resize-then-random", 256)

    lars = recipes.resnet50_8xb512_coslr_90e_in1k().schooling.optimisation
    assert (lars.optimizer, lars.lr, lars.weight_decay, lars.batch_size) == ("lars", 1.6, 0.0, 4096)
    assert [lars.factor()(epoch) for epoch in (0, 45)] == pytest.approx([1, 0.5])
    official = recipes.lincls_lars_90e_in1k().schooling
    assert (official.optimisation.optimizer, official.keep, official.evaluate_every) == ("larc", "best", 1)
    moco = recipes.resnet50_8xb32_steplr_100e_in1k().schooling.optimisation
    assert (moco.optimizer, moco.lr, moco.milestones, moco.epochs) == ("sgd", 30.0, (60, 80), 100)
    swav = recipes.resnet50_8xb32_coslr_100e_in1k().schooling.optimisation
    assert (swav.lr, swav.weight_decay, swav.schedule) == (0.3, 1e-6, "cosine")
    v3 = recipes.resnet50_8xb128_coslr_90e_in1k().schooling.optimisation
    assert (v3.lr, v3.batch_size, v3.epochs) == (0.4, 1024, 90)


def test_every_recipe_says_its_own_name_and_can_be_resized() -> None:
    assert len(recipes.RECIPES) == 14
    for name, make in recipes.RECIPES.items():
        assert make().name == name
        assert "32" in str(recipes.adapted(make(), size=32))


@pytest.mark.parametrize("side", [1, 3])
def test_norm_equals_batch_norm_without_affine(side: int) -> None:
    ours, torchs = FrozenFeatureNorm(5), nn.BatchNorm2d(5, affine=False)
    for _ in range(3):
        features = torch.randn(4, 5, side, side) * 3 + 1
        assert torch.allclose(ours(features), torchs(features), atol=1e-6)
    assert torch.allclose(ours.running_mean, torchs.running_mean)
    assert torch.allclose(ours.running_var, torchs.running_var)
    ours.eval(), torchs.eval()
    assert torch.allclose(ours(features), torchs(features), atol=1e-6)


def test_norm_survives_one_value_and_none() -> None:
    norm = FrozenFeatureNorm(5)
    assert torch.equal(norm(torch.randn(1, 5, 1, 1)), torch.zeros(1, 5, 1, 1))
    before = norm.running_mean.clone()
    assert norm(torch.randn(0, 5, 2, 2)).shape == (0, 5, 2, 2)
    assert torch.equal(norm.running_mean, before)


def test_pooling_of_the_published_network() -> None:
    shapes = [(64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7)]
    maps = [torch.zeros(1, channels, side, side) for channels, side in shapes]
    for pooling in ("specified", "adaptive"):
        pooled = [pool(part) for pool, part in zip(stage_pools(maps, pooling), maps, strict=True)]
        assert [part.shape[-1] for part in pooled] == [12, 6, 4, 3, 2]
        assert [part.numel() for part in pooled] == [9216, 9216, 8192, 9216, 8192]
    assert isinstance(stage_pools(maps, "specified")[0], nn.AvgPool2d)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("resnet50", 64), ("resnet10", 224)])
def test_heads_follow_the_stage_shapes(name: str, size: int) -> None:
    backbone = build_backbone(name, width=8, stem="imagenet" if size > 32 else "small")
    with evaluation_mode(backbone), torch.no_grad():
        heads = stage_heads(backbone, "specified", size=size, classes=7)
        maps = backbone.stages(torch.rand(2, 3, size, size))
        scores = [head(part) for head, part in zip(heads, maps, strict=True)]
    assert all(part.shape == (2, 7) for part in scores)
    assert all(head.fc.in_features <= 9216 for head in heads)
    assert backbone.training


def test_five_heads_learn_and_the_trunk_stays(tmp_path: Path) -> None:
    who, data = subject(), splits()
    before = fingerprint(who.backbone.state_dict())
    result = mhead().run(who, data, machine=machine(tmp_path))
    assert set(result.metrics) == {f"feature{n}{end}" for n in range(1, 6) for end in ("", "_top5")}
    assert result.metrics["feature5"] > 45  # chance is 17, after nine steps
    assert fingerprint(who.backbone.state_dict()) == before == result.detail["trunk_sha256"]
    assert [row["epoch"] for row in result.detail["history"]] == [1, 2, 3]
    assert np.asarray(result.detail["confusion"]).sum() == 41
    assert set(result.detail["per_class"]["feature1"]) == set(KINDS)
    assert Result.read(tmp_path / "result.json").metrics == result.metrics
    assert not any("adaptive pooling" in note for note in result.notes)  # the recipe itself asks for it


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 1.0), ("lars", 1.6), ("larc", 1.6)])
def test_avgpool_learns_with_each_optimiser(optimizer: str, lr: float) -> None:
    result = avgpool(optimizer=optimizer, lr=lr, epochs=20, batch_size=16).run(subject(), splits(), machine=machine())
    assert result.metrics["top1"] > 30  # chance is 17; LARS is slow in so few steps
    assert result.metrics["top5"] >= result.metrics["top1"]


def test_the_best_epoch_is_kept_when_asked() -> None:
    result = avgpool(keep="best", lr=30.0, epochs=4).run(subject(), splits(), machine=machine())
    history = [row["top1"] for row in result.detail["history"]]
    assert result.metrics["top1"] == max(history)
    assert result.detail["epoch"] == 1 + history.index(max(history))
    assert any("best of the evaluated epochs" in note for note in result.notes)


def test_an_interrupted_run_goes_on_to_the_same_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = mhead().run(subject(), splits(), machine=machine(tmp_path / "straight"))

    score = ClassifierTrainer._score

    def stop_in_epoch_two(self: ClassifierTrainer, watch: Watch) -> Scored:
        if watch.step == 6:
            raise KeyboardInterrupt
        return score(self, watch)

    stopping = machine(tmp_path / "resumed", checkpoint_minutes=0.0)
    monkeypatch.setattr(ClassifierTrainer, "_score", stop_in_epoch_two)
    with pytest.raises(KeyboardInterrupt):
        mhead().run(subject(), splits(), machine=stopping)
    monkeypatch.undo()
    resumed = mhead().run(subject(), splits(), machine=machine(tmp_path / "resumed"))
    assert resumed.metrics == straight.metrics
    assert resumed.detail["history"] == straight.detail["history"]
    ours, theirs = _heads(tmp_path / "resumed"), _heads(tmp_path / "straight")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    again = mhead().run(subject(), splits(), machine=machine(tmp_path / "resumed"))  # nothing is left to train
    assert again.metrics == straight.metrics


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    avgpool(epochs=1).run(subject(), splits(), machine=machine(tmp_path))
    with pytest.raises(UserError, match=r"another run \(different protocol\)"):
        avgpool(epochs=2).run(subject(), splits(), machine=machine(tmp_path))
    with pytest.raises(UserError, match=r"another run \(different data\)"):
        avgpool(epochs=1).run(subject(), splits(train=60), machine=machine(tmp_path))


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    alone = mhead().run(subject(), splits(), machine=machine(tmp_path / "one"))
    script = Path(__file__).with_name("linear_in_process.py")
    done = launch([str(tmp_path / "two"), "mhead", "32"], world=2, code=script.read_text())
    assert done.returncode == 0, done.stdout
    together = Result.read(tmp_path / "two" / "result.json")
    assert together.metrics == pytest.approx(alone.metrics)
    assert together.detail["test_images"] == 41  # an odd count, shared without counting any twice
    ours, theirs = _heads(tmp_path / "two"), _heads(tmp_path / "one")
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-3, atol=1e-5), name


def test_published_class_counts_are_noted_and_other_networks_refused() -> None:
    recipe = recipes.resnet50_mhead_8xb32_steplr_28e_places205()
    small = replace(recipe.heads, schooling=mhead(epochs=1).heads.schooling)
    result = replace(recipe, heads=small).run(subject(), splits(), machine=machine())
    assert result.protocol == "places205"
    assert "6 classes; the published protocol is on 205" in result.notes[0]
    assert any("adaptive pooling" in note for note in result.notes)

    who = subject()
    who.backbone.stage_channels = who.backbone.stage_channels[1:]
    with pytest.raises(UserError, match="gives 4 feature maps"):
        mhead().run(who, splits(), machine=machine())


def test_a_rate_that_diverges_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"learning rate 1e\+38 is too high"):
        avgpool(lr=1e38).run(subject(), splits(), machine=machine())
    with pytest.raises(UserError, match="--epochs 0"):
        avgpool(epochs=0).run(subject(), splits(), machine=machine())


def test_half_precision_features_reach_the_heads_as_float32() -> None:
    who, images = subject(), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        exact, half = (features_of(who.backbone, "stages", kind)(images) for kind in ("fp32", "bf16"))
    for one, other in zip(exact, half, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).abs().max() < 0.05 * one.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("make", [mhead, avgpool])
def test_a_gpu_gives_the_numbers_of_the_cpu(make: Any) -> None:
    on_gpu = make().run(subject(), splits(), machine=replace(machine(), device="cuda"))
    on_cpu = make().run(subject(), splits(), machine=machine())
    assert on_gpu.metrics == pytest.approx(on_cpu.metrics, abs=5)  # two of 41 images may fall either way


def test_tally_counts_by_hand() -> None:
    tally = AccuracyMeter(7, torch.device("cpu"))
    scores = torch.eye(7) + 0.01 * torch.arange(7.0)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 0])  # the last row's best is 6, and 0 is its least
    tally.add(scores, labels)
    tally.total()
    assert tally.top1 == pytest.approx(100 * 6 / 7)
    assert tally.top5 == pytest.approx(100 * 6 / 7)
    detail = tally.detail(None)
    assert detail["per_class"] == {"0": 50.0, "1": 100, "2": 100, "3": 100, "4": 100, "5": 100, "6": None}
    assert detail["confusion"][0][6] == 1


def test_unlabelled_data_is_refused() -> None:
    plain = ArraySource(tiny.pixels(8), name="plain")
    with pytest.raises(UserError, match="plain: has no labels"):
        avgpool().run(subject(), Splits(train=plain, test=plain), machine=machine())
