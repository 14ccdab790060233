"""BatchNorm's statistics measured anew before a test: the averages, and that nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from simsiam.data.detection.boxes import BoxBatch, Frame
from simsiam.errors import UserError
from simsiam.evaluation.detection.detector import Detector
from simsiam.evaluation.detection.trainer import measure_norms
from simsiam.recipes import detection as recipes
from tests.detection_command import SHORT, evaluate
from tests.detection_command import voc as voc
from tests.detection_command import weights as weights
from tests.evaluation.detection import small_detectors as small


def made(seed: int) -> BoxBatch:
    images, sizes, targets = small.batch(seed=seed)
    frames = [Frame(index=0, height=h, width=w, original_height=h, original_width=w) for h, w in sizes]
    return BoxBatch(images=images * seed, frames=frames, targets=targets, epoch=0, step=seed)


def norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_the_mean_over_the_batches_of_what_each_layer_saw(training: bool) -> None:
    detector = small.detector("c4 masks").train(training)
    layers = norms(detector)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].detach().clone()))

    def forward(batch: BoxBatch) -> None:
        assert detector.training
        sizes = [(frame.height, frame.width) for frame in batch.frames]
        losses = detector(batch.images, sizes, batch.targets, small.seeded(batch.step))
        assert not any(loss.requires_grad for loss in losses.values())

    measure_norms(detector, [made(1), made(2), made(3)], forward)
    assert detector.training is training
    for name, layer in layers.items():
        assert len(seen[name]) >= 3  # stage 4 sees the proposals for boxes, and again for masks
        means = [x.mean((0, 2, 3)) for x in seen[name]]
        variances = [x.var((0, 2, 3), unbiased=True) for x in seen[name]]
        torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
        assert layer.momentum == 0.1
    after = detector.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{name}.{kind}" for name in layers for kind in kinds}


def test_the_command_measures_before_each_test_and_resumes_to_the_same(
    weights: Path, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: str, *flags: object) -> dict[str, Tensor]:
        assert evaluate("voc0712", weights, "--data", voc, "--out", tmp_path / out, *SHORT, *flags) == 0
        return load_file(tmp_path / out / "detector.safetensors")

    measure = ("--precise-bn-iterations", 3)
    running, measured = run("running"), run("measured", *measure)
    count = "features.trunk.bn1.num_batches_tracked"
    assert (int(running[count]), int(measured[count])) == (4, 3)
    learnt = [name for name in running if "running_" not in name and "num_batches" not in name]
    assert all(torch.equal(running[name], measured[name]) for name in learnt)  # the training is the same
    variance = "features.trunk.bn1.running_var"
    assert not torch.equal(running[variance], measured[variance])

    forward, calls = Detector.forward, []

    def fails_in_the_last_step(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:  # two steps, three batches for the statistics, two steps
            raise RuntimeError("power cut")
        return forward(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "forward", fails_in_the_last_step)
        with pytest.raises(RuntimeError, match="power cut"):
            run("cut", *measure, "--checkpoint-minutes", "0")
    cut = run("cut", *measure)
    assert all(torch.equal(tensor, cut[name]) for name, tensor in measured.items())


def test_frozen_statistics_are_not_measured() -> None:
    recipe = recipes.transfer_c4_voc0712()
    recipe.check()
    frozen = replace(recipe, architecture=replace(recipe.architecture, backbone_norm="frozen"))
    with pytest.raises(UserError, match="--precise-bn-iterations 200: frozen BatchNorm keeps"):
        frozen.check()
    with pytest.raises(UserError, match="must not be below zero"):
        replace(recipe, precise_bn_iterations=-1).check()


def test_who_measures() -> None:
    published = (recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712, recipes.mask_rcnn_r50_fpn_mstrain_1x_coco)
    assert {make().precise_bn_iterations for make in published} == {0}
    papers = (recipes.transfer_c4_voc07, recipes.transfer_c4_voc0712, recipes.transfer_c4_coco)
    assert {make().precise_bn_iterations for make in papers} == {200}
    assert recipes.transfer_c4_voc07().for_iterations(5).precise_bn_iterations == 5
