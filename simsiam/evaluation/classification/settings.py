"""What several classification protocols share: which features they measure, and how a classifier is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simsiam import limits
from simsiam.config import Machine
from simsiam.data.classification.transforms import Augmentation
from simsiam.data.preprocess import Preprocess
from simsiam.errors import UserError
from simsiam.limits import Count, Positive, Share
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    import numpy as np
    import torch

    from simsiam.data.classification.voc import MultiLabelSet
    from simsiam.data.sources import Source
    from simsiam.engine.optimizers import Group, Schedule
    from simsiam.features.extraction import Features

NORM_FLOOR = 1e-5  # added to each row's norm


@dataclass(frozen=True, kw_only=True)
class PooledFeatures:
    """Pooled features of a centre crop."""

    resize: Count  # Pixels that the short edge is resized to, before the centre crop.
    size: Count  # Pixels of the crop.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the backbone's forward pass.
    batch_size: Count  # Images in a forward pass; it does not change the figure beyond rounding.

    def preprocess(self, subject: PretrainedBackbone) -> Preprocess:
        """How images come in."""
        return Preprocess(kind="center", resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)

    def extract(self, subject: PretrainedBackbone, source: Source, machine: Machine) -> Features:
        """The features of a source."""
        from simsiam.features.store import Extraction, features_of

        extraction = Extraction(
            preprocess=self.preprocess(subject),
            layers="pooled",
            pooling="specified",
            precision=self.precision,
            storage="fp32",
            batch_size=self.batch_size,
        )
        return features_of(subject, source, extraction, machine=machine)


@dataclass(frozen=True, kw_only=True)
class SvmFeatures:
    """Which features the SVMs see."""

    layers: Literal["stages", "pooled"]  # stages: every feature map; pooled: the pooled output alone.
    # How maps are pooled to about 9,000 numbers: as published, or to a grid that fits other maps.
    pooling: Literal["specified", "adaptive"]
    kind: Literal["squash", "center"]  # How an image is brought to size: squash both edges, or cut out its centre.
    resize: Count  # Pixels that the short edge is resized to, for --kind center.
    size: Count  # Pixels of the image that the network sees.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the backbone's forward pass.
    storage: Literal["fp32", "fp16"]  # Number format of the features in their files.
    batch_size: Count  # Images in a forward pass; it does not change the figure beyond rounding.

    def extract(self, subject: PretrainedBackbone, part: MultiLabelSet, machine: Machine) -> Features:
        """The features of one set."""
        from simsiam.features.store import Extraction, features_of

        preprocess = Preprocess(kind=self.kind, resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)
        extraction = Extraction(
            preprocess=preprocess,
            layers=self.layers,
            pooling=self.pooling,
            precision=self.precision,
            storage=self.storage,
            batch_size=self.batch_size,
        )
        return features_of(subject, part.source, extraction, machine=machine)


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Optimiser, schedule and length of a supervised training; the rate changes between epochs only."""

    optimizer: Literal["sgd", "nesterov", "lars", "larc"]  # sgd, nesterov, or one of two forms of LARS.
    lr: Positive  # Learning rate at --batch-size; it is not scaled.
    momentum: Share  # Momentum of SGD.
    weight_decay: float  # Weight decay, on every parameter that is trained.
    schedule: Literal["steps", "cosine"]  # How the rate falls: in steps at the milestones, or as a cosine.
    milestones: tuple[int, ...]  # Epochs at which the rate falls by gamma, with --schedule steps.
    gamma: Share  # Factor of the rate at a milestone.
    epochs: Count  # Passes over the training images.
    batch_size: Count  # Images in a step, over all devices.

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """The optimiser over the groups, each at its own initial rate."""
        from simsiam.engine import optimizers
        from simsiam.engine.optimizers import LARS

        if self.optimizer in ("sgd", "nesterov"):
            nesterov = self.optimizer == "nesterov" and self.momentum > 0  # without momentum both are the same
            return optimizers.sgd(groups, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=nesterov)
        return LARS(
            [
                {"params": list(g.parameters), "name": g.name, "lr": g.lr, "initial_lr": g.lr, "schedule": g.schedule}
                for g in groups
            ],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            form="mmselfsup" if self.optimizer == "lars" else "larc",
        )

    def factor(self) -> Schedule:
        """Epochs done -> factor of the initial rate."""
        from simsiam.engine import optimizers

        if self.schedule == "cosine":
            return lambda epoch: optimizers.cosine(epoch, self.epochs)
        return lambda epoch: optimizers.steps(epoch, self.milestones, self.gamma)

    def check(self) -> None:
        """Raise UserError for a number that nothing can be trained with."""
        limits.check(self, prefixes=False)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of a supervised training that is scored on the way."""

    optimisation: Optimisation
    augmentation: Augmentation
    test_resize: Count  # Pixels that a test image's short edge is resized to, before the centre crop.
    evaluate_every: Count  # Epochs from one scoring to the next; the last epoch is always scored.
    # Which epoch is reported: the last, or the best by test accuracy, as main_lincls does.
    keep: Literal["last", "best"]
    precision: Literal["fp32", "tf32", "bf16"]  # Number format of the forward passes; published: fp32.


def normalised(features: np.ndarray) -> np.ndarray:
    """Each row in float64, divided by its L2 norm + 1e-5; UserError on a NaN or an infinity."""
    import numpy as np

    rows = np.array(features, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        bad = int((~np.isfinite(norms[:, 0])).argmax())
        raise UserError(
            f"the features hold a NaN or an infinity (first in row {bad}): the weights diverged in training, or half "
            "precision overflowed. Extract in fp32, or use another checkpoint."
        )
    rows /= norms + NORM_FLOOR
    return rows
