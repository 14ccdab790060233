"""A tiny backbone and tiny labelled sets for the linear, fine-tuning and probe tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simsiam.backbones import build_backbone
from simsiam.config import Machine, Stem
from simsiam.data.sources import ArraySource
from simsiam.data.splits import Splits
from simsiam.evaluation.classification.linear import LinearAvgPool, LinearMultiHead
from simsiam.evaluation.classification.semi_supervised import SemiSupervised
from simsiam.recipes import linear as recipes
from simsiam.results import WeightsId
from simsiam.weights.pretrained import PretrainedBackbone
from tests import tiny

KINDS = tuple(f"kind{number}" for number in range(6))


def subject(*, name: str = "resnet10", width: int = 8, stem: Stem = "small") -> PretrainedBackbone:
    """A random backbone at 32 pixels whose BatchNorm statistics fit its input."""
    torch.manual_seed(0)
    backbone = build_backbone(name, width=width, stem=stem)
    for part in backbone.modules():  # the published zero would leave the blocks' branches out
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(part.weight)
    with torch.no_grad():
        backbone.train()(torch.rand(64, 3, 32, 32))
    backbone.eval()
    return PretrainedBackbone(
        backbone=backbone,
        size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        weights=WeightsId(source="random", sha256="0" * 64),
        seed=0,
    )


def splits(*, train: int = 90, test: int = 41) -> Splits:
    """Six classes that a tint tells apart."""
    tint = np.random.default_rng(5).integers(0, 256, (len(KINDS), 3))

    def source(count: int, seed: int) -> ArraySource:
        labels = np.arange(count) % len(KINDS)
        pixels = tiny.pixels(count, seed=seed) * 0.3 + tint[labels][:, None, None] * 0.7
        return ArraySource(pixels.astype(np.uint8), labels, name="tinted", classes=KINDS)

    return Splits(train=source(train, 0), test=source(test, 1))


def machine(out: Path | None = None, **changes: Any) -> Machine:
    """The CPU without workers."""
    return Machine(out=out, device="cpu", workers=0, **changes)


def mhead(**optimisation: Any) -> LinearMultiHead:
    """The five heads at 32 pixels, changed as asked; 3 epochs and batches of 32 unless said otherwise."""
    recipe = recipes.linear_mhead_cifar10()
    schooling = recipe.heads.schooling
    changed = replace(schooling.optimisation, **{"epochs": 3, "batch_size": 32, "milestones": (2,), **optimisation})
    schooling = replace(schooling, optimisation=changed, evaluate_every=1)
    return replace(recipe, heads=replace(recipe.heads, schooling=schooling))


def avgpool(*, keep: str = "last", **optimisation: Any) -> LinearAvgPool:
    """The pooled head at 32 pixels, likewise."""
    recipe = recipes.linear_cifar10()
    changed = replace(recipe.schooling.optimisation, **{"epochs": 3, "batch_size": 32, "lr": 1.0, **optimisation})
    schooling = replace(recipe.schooling, optimisation=changed, evaluate_every=1, keep=keep)  # type: ignore[arg-type]
    return replace(recipe, schooling=schooling)


def fine_tuned(*, batch_size: int = 30, **changes: Any) -> SemiSupervised:
    """Fine-tuning at 32 pixels, two epochs at one rate, changed as asked."""
    recipe = recipes.semi_supervised_1_percent()
    optimisation = replace(recipe.schooling.optimisation, epochs=2, batch_size=batch_size, milestones=(1,))
    augmentation = replace(recipe.schooling.augmentation, size=32, resize=32)
    schooling = replace(recipe.schooling, optimisation=optimisation, augmentation=augmentation, test_resize=32)
    return replace(recipe, **{"schooling": schooling, "lrs": (0.1,), "head_multipliers": (10.0,), **changes})
