"""Semi-supervised fine-tuning: the published grid, the choice of a cell, untouched originals, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from simsiam.engine.checkpoints import Checkpoints
from simsiam.errors import UserError
from simsiam.evaluation.classification.linear_heads import FineTuned
from simsiam.evaluation.classification.semi_supervised import SemiSupervised, stratified_split
from simsiam.evaluation.classification.trainer import ClassifierTrainer
from simsiam.evaluation.fine_tuning import TrainingResult
from simsiam.recipes import linear as recipes
from simsiam.results import Result
from simsiam.weights.load import fingerprint
from tests.evaluation.classification.labelled_subjects import KINDS, fine_tuned, machine, splits, subject
from tests.processes import launch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _small(selection: Literal["test", "held-out"] = "test", **changes: object) -> SemiSupervised:
    return fine_tuned(**{"lrs": (0.1, 1e-9), "head_multipliers": (1.0, 10.0), "selection": selection, **changes})


def test_the_published_grid() -> None:
    one, ten = recipes.semi_supervised_1_percent(), recipes.semi_supervised_10_percent()
    assert one.lrs == ten.lrs == (0.1, 0.01, 0.001)
    assert one.head_multipliers == (1.0, 10.0, 100.0)
    how = one.schooling.optimisation
    assert (how.epochs, how.batch_size, how.milestones, how.gamma) == (20, 256, (12, 16), 0.2)
    assert (how.weight_decay, ten.schooling.optimisation.weight_decay) == (5e-4, 1e-4)
    assert [how.factor()(epoch) for epoch in (11, 12, 16)] == pytest.approx([1, 0.2, 0.04])


def test_the_best_cell_is_reported_with_the_grid_and_the_subject_stays(tmp_path: Path) -> None:
    who = subject()
    before = fingerprint(who.backbone.state_dict())
    result = _small().run(who, splits(), machine=machine(tmp_path))
    grid = result.detail["grid"]
    assert [(cell["lr"], cell["head_multiplier"]) for cell in grid] == [(0.1, 1), (0.1, 10), (1e-9, 1), (1e-9, 10)]
    assert result.metrics["top1"] == max(cell["top1"] for cell in grid)
    assert result.detail["chosen"]["lr"] == 0.1
    assert "chosen on the test set" in result.notes[0]
    assert fingerprint(who.backbone.state_dict()) == before


def test_backbone_and_head_learn_at_their_own_rates(tmp_path: Path) -> None:
    who = subject()
    _small(lrs=(1e-9,), head_multipliers=(1e8,)).run(who, splits(), machine=machine(tmp_path))
    stored = Checkpoints(tmp_path / "grid" / "lr1e-09-head1e+08" / "checkpoints", keep=1).latest()
    assert stored is not None
    groups = {group["name"]: group["initial_lr"] for group in stored["optimizer"]["param_groups"]}
    assert groups == {"backbone": 1e-9, "head": pytest.approx(0.1)}
    state, start = stored["modules"]["network"], who.backbone.state_dict()
    assert torch.allclose(state["backbone.conv1.weight"], start["conv1.weight"], atol=1e-6)
    assert not torch.allclose(state["backbone.bn1.running_mean"], start["bn1.running_mean"])  # it does train
    assert state["head.bias"].abs().max() > 1e-3


def test_a_held_out_part_of_train_can_choose() -> None:
    result = _small("held-out", held_out_fraction=0.2).run(subject(), splits(), machine=machine())
    assert result.detail["selection"] == "held-out"
    assert result.detail["chosen"]["lr"] == 0.1
    assert not any("test set" in note for note in result.notes)
    assert result.detail["test_images"] == 41
    parts = stratified_split(splits().train, 0.2, 0)
    assert (len(parts.train), len(parts.test)) == (72, 18)


def test_an_interrupted_grid_goes_on_at_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _small().run(subject(), splits(), machine=machine(tmp_path / "whole"))
    fit, trained = ClassifierTrainer.fit, []

    def stop_at_third(self: ClassifierTrainer) -> TrainingResult:
        trained.append(self.place.folder.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(ClassifierTrainer, "fit", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        _small().run(subject(), splits(), machine=machine(tmp_path / "resumed"))
    resumed = _small().run(subject(), splits(), machine=machine(tmp_path / "resumed"))
    assert resumed.metrics == whole.metrics
    assert resumed.detail["grid"] == whole.detail["grid"]


def test_a_share_without_images_does_not_stop_the_step() -> None:
    network = FineTuned(subject().backbone, 4, precision="fp32").train()
    before = network.backbone.bn1.running_mean.clone()
    scores = network(torch.empty(0, 3, 32, 32))[0]
    assert scores.shape == (0, 4)
    scores.sum().backward()
    assert torch.equal(network.backbone.bn1.running_mean, before)
    assert network(torch.rand(3, 3, 32, 32))[0].shape == (3, 4)
    assert network.backbone.training


def test_a_cell_that_diverges_does_not_end_the_grid(tmp_path: Path) -> None:
    result = _small(lrs=(1e30, 0.1), head_multipliers=(1.0,)).run(subject(), splits(), machine=machine(tmp_path))
    lost, kept = result.detail["grid"]
    assert lost == {"lr": 1e30, "head_multiplier": 1.0, "top1": None, "outcome": "diverged"}
    assert kept["top1"] == result.metrics["top1"] > 16
    assert result.detail["chosen"]["lr"] == 0.1
    assert "diverged: lr 1e+30 with head multiplier 1" in result.notes
    with pytest.raises(UserError, match=r"--lrs 1e\+30: every rate is too high"):
        _small(lrs=(1e30,)).run(subject(), splits(), machine=machine(tmp_path / "all"))


def test_a_last_step_of_one_image_trains_on_the_running_statistics(tmp_path: Path) -> None:
    who = subject(stem="imagenet")  # whose last map is a single value at 32 pixels
    assert who.backbone.stages(torch.zeros(1, 3, 32, 32))[-1].shape[2:] == (1, 1)
    result = _small(lrs=(0.1,), head_multipliers=(1.0,)).run(who, splits(train=61), machine=machine(tmp_path))
    assert result.metrics["top1"] > 16
    network = FineTuned(who.backbone, 4, precision="fp32").train()
    before = network.backbone.bn1.running_mean.clone()
    network(torch.rand(1, 3, 32, 32))
    assert torch.equal(network.backbone.bn1.running_mean, before)
    network(torch.rand(1, 3, 64, 64))  # four values: a batch's own statistics exist
    assert not torch.equal(network.backbone.bn1.running_mean, before)


def test_two_processes_score_with_the_statistics_that_are_saved(tmp_path: Path) -> None:
    script = Path(__file__).with_name("linear_in_process.py")
    done = launch([str(tmp_path), "fine_tuned", "6"], world=2, code=script.read_text())
    assert done.returncode == 0, done.stdout  # each took three images a step, whose statistics differ much
    result = Result.read(tmp_path / "result.json")
    stored = Checkpoints(tmp_path / "grid" / "lr0.1-head10" / "checkpoints", keep=1).latest()
    assert stored is not None
    network = FineTuned(subject().backbone, len(KINDS), precision="fp32")
    network.load_state_dict(stored["modules"]["network"])
    test = splits().test
    pixels = torch.stack([torch.from_numpy(np.array(test.read(row))) for row in range(len(test))])
    images = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        found = network.eval()(images)[0].argmax(1)
    confusion = np.zeros((len(KINDS), len(KINDS)), int)
    np.add.at(confusion, (np.asarray(test.labels), found.numpy()), 1)
    assert result.detail["confusion"] == confusion.tolist()


def test_a_rate_that_torch_cannot_hold_is_refused_with_its_flags() -> None:
    with pytest.raises(UserError, match=r"--lrs 1e\+38 times --head-multipliers 100: the classifier's rate must be"):
        _small(lrs=(1.0, 1e38), head_multipliers=(100.0,)).check()
    _small(lrs=(1e36,), head_multipliers=(100.0,)).check()
