"""Semi-supervised fine-tuning: the whole network trained on a part of the labels, over a grid of learning rates.

Source: the model zoo's configurations for 1 % and 10 % of ImageNet's labels (3 rates x 3 multipliers of the head's
rate, 20 epochs each); the lists are those of SimCLR (Chen et al. 2020).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from simsiam import limits
from simsiam.config import Machine
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import TrainingConfig
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count, Positive, Share
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, left_out

if TYPE_CHECKING:
    from simsiam.data.sources import Source
    from simsiam.evaluation.classification.inference import TrainedClassifier
    from simsiam.evaluation.fine_tuning import TrainingResult
    from simsiam.evaluation.place import Place


@dataclass(frozen=True, kw_only=True)
class SemiSupervised(Protocol[Splits]):
    """Fine-tuning on few labels; `train` is the labelled part."""

    protocol: ClassVar[str] = "semi_supervised"
    main_metric: ClassVar[str] = "top1"  # top-1 of the chosen cell
    everyday: ClassVar[tuple[str, ...]] = ("epochs", "batch_size", "lrs", "head_multipliers")
    schooling: TrainingConfig  # its lr is replaced by each of `lrs`
    lrs: tuple[Positive, ...]  # Learning rates to try, each with every head multiplier.
    head_multipliers: tuple[Positive, ...]  # Multiples of the learning rate to try for the classifier.
    # What chooses the rates: the test set, as published, or a part of the training set.
    selection: Literal["test", "held-out"]
    held_out_fraction: Share  # Share of each class held out for --selection held-out.
    expected_classes: Count | None  # Classes of the published data set; another number is allowed and noted.

    def check(self) -> None:
        """Raise UserError for settings that nothing can be trained with."""
        super().check()
        lr, by = max(self.lrs, default=0.0), max(self.head_multipliers, default=0.0)
        if lr * by > limits.MOST:
            raise UserError(
                f"--lrs {lr:g} times --head-multipliers {by:g}: the classifier's rate must be {limits.MOST:g} at most."
            )

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1 and top5 (percent) of the chosen cell; `detail["grid"]` has every cell's accuracy.

        Each cell trains in its own folder under `machine.out`, so an interrupted grid resumes at its cell. One that
        diverges is recorded as such, and the others train all the same.
        """
        from simsiam.data.classification.loader import class_count
        from simsiam.evaluation.classification.inference import save_classifier
        from simsiam.evaluation.place import place_of
        from simsiam.evaluation.rate_search import best, diverged_note, try_cells

        classes = class_count(data.train, data.test)
        cells = [{"lr": lr, "head_multiplier": by} for lr in self.lrs for by in self.head_multipliers]
        choice = (
            data if self.selection == "test" else stratified_split(data.train, self.held_out_fraction, subject.seed)
        )
        with place_of(self, subject, data.data_id.sha256, machine) as place:
            top = float("-inf")

            def train(cell: dict[str, float]) -> TrainingResult:
                nonlocal top
                trained, classifier = self._train(cell, choice, classes, place, f"grid/{_name(cell)}")
                if (score := trained.metrics[self.main_metric]) > top:
                    top = score
                    save_classifier(machine.out, classifier)
                return trained

            trials = try_cells(cells, train, metric=self.main_metric, flag="--lrs")
            chosen = best(trials, self.main_metric)
            trained = chosen.result
            if self.selection == "held-out":
                trained, classifier = self._train(chosen.cell, data, classes, place, "chosen")
                save_classifier(machine.out, classifier)
        assert trained is not None
        detail: dict[str, Any] = {
            **trained.detail,
            "grid": [trial.row for trial in trials],
            "chosen": chosen.cell,
            "selection": self.selection,
        }
        notes = self._notes(classes, trained.detail.get("skipped", 0))
        if lost := diverged_note(trials):
            notes.append(lost)
        return Measured(metrics=trained.metrics, detail=detail, notes=notes)

    def _train(
        self, cell: dict[str, float], data: Splits, classes: int, place: Place, folder: str
    ) -> tuple[TrainingResult, TrainedClassifier]:
        from simsiam.engine.optimizers import Group
        from simsiam.evaluation.classification.inference import of_linear
        from simsiam.evaluation.classification.linear_heads import FineTuned
        from simsiam.evaluation.classification.trainer import Classifier, ClassifierTrainer
        from simsiam.evaluation.place import seeded

        with seeded(place.subject.seed):
            network = FineTuned(copy.deepcopy(place.subject.backbone), classes, precision=self.schooling.precision)
        network.requires_grad_(True)
        lr, head_lr = cell["lr"], cell["lr"] * cell["head_multiplier"]
        classifier = Classifier(
            features=lambda images: images,
            network=network,
            names=("top1",),
            groups=[
                Group(name="backbone", parameters=network.backbone.parameters(), lr=lr),
                Group(name="head", parameters=network.head.parameters(), lr=head_lr),
            ],
            classes=classes,
        )
        place = place.part(folder, cell=_name(cell), data=data.data_id.sha256)
        schooling = replace(self.schooling, optimisation=replace(self.schooling.optimisation, lr=lr))
        trained = ClassifierTrainer(settings=schooling, data=data, place=place, classifier=classifier).fit()
        return trained, of_linear(schooling, place.subject, network.backbone, network.head, data.train.classes)

    def _notes(self, classes: int, bad: int) -> list[str]:
        notes = []
        if self.selection == "test":
            notes.append("the grid cell was chosen on the test set, as published; selection=held-out does not")
        if self.expected_classes is not None and classes != self.expected_classes:
            notes.append(f"{counted(classes, 'class', 'classes')}; the published protocol has {self.expected_classes}")
        if bad:
            notes.append(f"{left_out(bad, 'image')} (skipped.csv)")
        return notes


def _name(cell: dict[str, float]) -> str:
    """As the cell's folder is called."""
    return f"lr{cell['lr']:g}-head{cell['head_multiplier']:g}"


def stratified_split(source: Source, fraction: float, seed: int) -> Splits:
    """Part of a labelled source held out as the test set."""
    import numpy as np

    from simsiam.data.classification.loader import stratified_rows

    held = stratified_rows(source, fraction=fraction, seed=seed)
    return Splits(train=source.subset(np.flatnonzero(~held)), test=source.subset(np.flatnonzero(held)))
