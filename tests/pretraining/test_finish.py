"""What a person is told to do with a finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from simsiam.backbones import build_backbone
from simsiam.config import Pretraining
from simsiam.pretraining.finish import next_steps
from simsiam.pretraining.verdict import Verdict
from simsiam.recipes.pretrain import cifar10, demo, folder

HEALTHY = Verdict(status="healthy", summary="")
PACE = {"seconds": 3600.0}


def steps_of(recipe: Pretraining, root: Path) -> str:
    return "\n".join(next_steps(root, recipe, HEALTHY, PACE))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_network_that_torchvision_has_is_said_to_load_there_and_does(name: str, tmp_path: Path) -> None:
    recipe = replace(folder(), model=replace(folder().model, backbone=name))
    assert f"backbone.pth loads in torchvision's {name}" in steps_of(recipe, tmp_path)
    network = getattr(torchvision.models, name)(weights=None)
    network.fc = torch.nn.Identity()
    network.load_state_dict(build_backbone(name, width=recipe.model.width, stem=recipe.model.stem).state_dict())


@pytest.mark.parametrize("make", [demo, cifar10])
def test_other_shapes_are_not_said_to_load_there(make: Callable[[], Pretraining], tmp_path: Path) -> None:
    said = steps_of(make(), tmp_path)
    assert "loads in torchvision" not in said
    assert f"simsiam.load_backbone('{tmp_path}')" in said
    assert "--to onnx" in said


def test_the_run_can_be_looked_at_and_made_longer(tmp_path: Path) -> None:
    said = steps_of(replace(folder(), epochs=30), tmp_path)
    assert f"simsiam browse {tmp_path} IMAGES" in said
    assert "--epochs 60" in said
    assert "2.0 h" in said
