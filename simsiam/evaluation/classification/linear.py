"""Linear classification on a frozen backbone: a head on each of five stages, or one on the pooled features.

Sources: Goyal et al. 2019 (the heads on each stage); the model zoo's configurations (all settings); Chen & He 2021,
appendix A (AvgPool with LARS). The backbone stays in evaluation mode, so its BatchNorm statistics stay too; that no
tensor of it changed is checked at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from simsiam.config import Machine
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import TrainingConfig
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, left_out

if TYPE_CHECKING:
    from simsiam.evaluation.classification.trainer import Classifier


@dataclass(frozen=True, kw_only=True)
class StageHeads:
    """One classifier on each of the five feature maps, all five trained in one pass through the backbone."""

    stages: Count  # Feature maps of the backbone, each with a classifier.
    # How maps are pooled to about 9,000 numbers: as published, or to a grid that fits other maps.
    pooling: Literal["specified", "adaptive"]
    schooling: TrainingConfig
    expected_classes: Count | None  # Classes of the published data set; another number is allowed and noted.


@dataclass(frozen=True, kw_only=True)
class _StageProtocol(Protocol[Splits]):
    """A head on each stage; what the benchmarks below have in common."""

    everyday: ClassVar[tuple[str, ...]] = ("epochs", "batch_size", "lr")
    heads: StageHeads

    @property
    def main_metric(self) -> str:
        """The last stage's top-1."""
        return f"feature{self.heads.stages}"

    def fitted(self, recipe: Self, subject: PretrainedBackbone, data: Splits) -> Self:
        """A head on each map of the backbone."""
        maps = len(subject.backbone.stage_channels)
        if not maps:
            raise UserError(
                f"{self.name}: {subject.backbone.name} gives pooled features and no feature maps; use linear-avgpool."
            )
        if self.heads.stages != recipe.heads.stages:
            return self
        return replace(self, heads=replace(self.heads, stages=maps))

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """Top-1 of each stage as feature1 to feature5, and feature1_top5 to feature5_top5; percent."""
        return _score_stages(self, self.heads, subject, data, machine)


class LinearMultiHead(_StageProtocol):
    """Feature1 to Feature5 of the model zoo page."""

    protocol: ClassVar[str] = "linear_mhead"


class INaturalist2018(_StageProtocol):
    """The five heads on iNaturalist 2018."""

    protocol: ClassVar[str] = "inaturalist2018"


class Places205(_StageProtocol):
    """The five heads on Places205."""

    protocol: ClassVar[str] = "places205"


@dataclass(frozen=True, kw_only=True)
class LinearAvgPool(Protocol[Splits]):
    """AvgPool of the model zoo page: one linear classifier on globally pooled features."""

    protocol: ClassVar[str] = "linear_avgpool"
    main_metric: ClassVar[str] = "top1"  # top-1
    everyday: ClassVar[tuple[str, ...]] = ("epochs", "batch_size", "lr")
    schooling: TrainingConfig
    expected_classes: Count | None  # Classes of the published data set; another number is allowed and noted.

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1 and, where there are more than five classes, top5; percent."""
        from simsiam.data.classification.loader import class_count
        from simsiam.engine.optimizers import Group
        from simsiam.evaluation.classification.inference import of_linear, save_classifier
        from simsiam.evaluation.classification.linear_heads import Heads, features_of, linear
        from simsiam.evaluation.classification.trainer import Classifier
        from simsiam.evaluation.place import seeded

        classes = class_count(data.train, data.test)
        with seeded(subject.seed):
            network = Heads([linear(subject.backbone.features, classes)])
        rate = self.schooling.optimisation.lr
        classifier = Classifier(
            features=features_of(subject.backbone, "pooled", self.schooling.precision),
            network=network,
            names=("top1",),
            groups=[Group(name="heads", parameters=network.parameters(), lr=rate)],
            classes=classes,
        )
        measured = _train_heads(self, self.schooling, self.expected_classes, classifier, subject, data, machine)
        head = network.heads[0]
        trained = of_linear(self.schooling, subject, subject.backbone, head, data.train.classes)
        save_classifier(machine.out, trained)
        return measured


def _score_stages(
    protocol: Protocol[Splits], heads: StageHeads, subject: PretrainedBackbone, data: Splits, machine: Machine
) -> Measured:
    from torch import nn

    from simsiam.data.classification.loader import class_count
    from simsiam.engine.optimizers import Group
    from simsiam.evaluation.classification.linear_heads import Heads, features_of, stage_heads
    from simsiam.evaluation.classification.trainer import Classifier
    from simsiam.evaluation.place import seeded
    from simsiam.features.extraction import evaluation_mode

    schooling = heads.schooling
    classes = class_count(data.train, data.test)
    maps = len(subject.backbone.stage_channels)
    if maps != heads.stages:
        raise UserError(
            f"{protocol.name}: {subject.backbone.name} gives {counted(maps, 'feature map')}, and the recipe has a "
            f"head on each of {heads.stages}. Give --stages {maps}."
        )
    with seeded(subject.seed), evaluation_mode(subject.backbone):
        parts = stage_heads(subject.backbone, heads.pooling, size=schooling.augmentation.size, classes=classes)
    network = Heads(parts)
    classifier = Classifier(
        features=features_of(subject.backbone, "stages", schooling.precision),
        network=network,
        names=tuple(f"feature{stage + 1}" for stage in range(maps)),
        groups=[Group(name="heads", parameters=network.parameters(), lr=schooling.optimisation.lr)],
        classes=classes,
    )
    measured = _train_heads(protocol, schooling, heads.expected_classes, classifier, subject, data, machine)
    measured.detail["dims"] = [part.fc.in_features for part in parts]
    if heads.pooling == "specified" and any(isinstance(part.pool, nn.AdaptiveAvgPool2d) for part in parts):
        measured.notes.append("adaptive pooling where the maps are not those of ResNet-50 at 224 pixels")
    return measured


def _train_heads(
    protocol: Protocol[Splits],
    schooling: TrainingConfig,
    expected_classes: int | None,
    classifier: Classifier,
    subject: PretrainedBackbone,
    data: Splits,
    machine: Machine,
) -> Measured:
    """Train the heads on the frozen trunk, and prove the trunk unchanged."""
    from simsiam.evaluation.classification.trainer import ClassifierTrainer
    from simsiam.evaluation.place import place_of
    from simsiam.features.extraction import evaluation_mode
    from simsiam.weights.load import fingerprint

    before = fingerprint(subject.backbone.state_dict())
    with place_of(protocol, subject, data.data_id.sha256, machine) as place, evaluation_mode(subject.backbone):
        subject.backbone.to(place.process.device)
        trained = ClassifierTrainer(settings=schooling, data=data, place=place, classifier=classifier).fit()
    after = fingerprint(subject.backbone.state_dict())
    if after != before:
        raise RuntimeError(f"{protocol.name}: the frozen backbone changed in training ({before[:8]} -> {after[:8]})")
    detail: dict[str, Any] = {**trained.detail, "trunk_sha256": after, "trunk": "unchanged"}
    notes = _notes(schooling, expected_classes, classifier.classes, detail.get("skipped", 0))
    return Measured(metrics=trained.metrics, detail=detail, notes=notes)


def _notes(schooling: TrainingConfig, expected: int | None, classes: int, bad: int) -> list[str]:
    notes = []
    if expected is not None and classes != expected:
        notes.append(
            f"{counted(classes, 'class', 'classes')}; the published protocol is on {expected}, so its "
            f"figures do not compare"
        )
    if schooling.keep == "best":
        notes.append("the best of the evaluated epochs by test accuracy, as the official script keeps it")
    if bad:
        notes.append(f"{left_out(bad, 'image')} (skipped.csv)")
    return notes
