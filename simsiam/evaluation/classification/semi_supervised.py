"""Semi-supervised fine-tuning: the whole network trained on a part of the labels, over a grid of learning rates.

Source: the model zoo's configurations for 1 % and 10 % of ImageNet's labels (3 rates x 3 multipliers of the head's
rate, 20 epochs each); the lists are those of SimCLR (Chen et al. 2020).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from simsiam.config import Machine, as_dict
from simsiam.data.splits import Splits
from simsiam.evaluation.classification.training_config import TrainingConfig
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, left_out

if TYPE_CHECKING:
    from simsiam.data.sources import Source
    from simsiam.engine.distributed import Process
    from simsiam.evaluation.classification.trainer import TrainingResult


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid."""

    lr: float  # of the backbone
    head_multiplier: float  # the head learns at lr x head_multiplier

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"lr{self.lr:g}-head{self.head_multiplier:g}"


@dataclass(frozen=True, kw_only=True)
class SemiSupervised(Protocol[Splits]):
    """Fine-tuning on few labels; `train` is the labelled part."""

    protocol: ClassVar[str] = "semi_supervised"
    schooling: TrainingConfig  # its lr is replaced by each of `lrs`
    lrs: tuple[float, ...]
    head_multipliers: tuple[float, ...]
    selection: Literal["test", "held-out"]  # test: the published practice; held-out: part of train decides
    held_out_fraction: float  # of train's images of each class, for `held-out`
    expected_classes: int | None

    @property
    def main_metric(self) -> str:
        """Top-1 of the chosen cell."""
        return "top1"

    def data_id(self, data: Splits) -> DataId:
        """Both splits."""
        return data.data_id

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1 and top5 (percent) of the chosen cell; `detail["grid"]` has every cell's accuracy.

        Each cell trains in its own folder under `machine.out`, so an interrupted grid goes on where it stopped.
        """
        from simsiam.data.classification.loader import class_count
        from simsiam.evaluation.fine_tuning import run_folder, run_processes

        classes = class_count(data.train, data.test)
        cells = [Cell(lr=lr, head_multiplier=by) for lr in self.lrs for by in self.head_multipliers]
        choice = (
            data if self.selection == "test" else stratified_split(data.train, self.held_out_fraction, subject.seed)
        )
        with run_processes(machine.device) as process, run_folder(machine.out) as folder:
            runs = {
                cell: self._train(cell, subject, choice, classes, machine, process, folder / "grid" / cell.name)
                for cell in cells
            }
            best = max(cells, key=lambda cell: runs[cell].metrics["top1"])
            chosen = runs[best]
            if self.selection == "held-out":
                chosen = self._train(best, subject, data, classes, machine, process, folder / "chosen")
        grid = [{"lr": c.lr, "head_multiplier": c.head_multiplier, **runs[c].metrics} for c in cells]
        detail: dict[str, Any] = {
            **chosen.detail,
            "grid": grid,
            "chosen": {"lr": best.lr, "head_multiplier": best.head_multiplier},
            "selection": self.selection,
            "history": chosen.history,
            "labelled_images": len(data.train),
        }
        return Measured(metrics=chosen.metrics, detail=detail, notes=self._notes(classes, chosen.bad))

    def _train(
        self,
        cell: Cell,
        subject: PretrainedBackbone,
        data: Splits,
        classes: int,
        machine: Machine,
        process: Process,
        folder: Path,
    ) -> TrainingResult:
        from simsiam.engine.optimizers import Group
        from simsiam.evaluation.classification.linear_heads import FineTuned, seeded
        from simsiam.evaluation.classification.trainer import Classifier, ClassifierTrainer

        with seeded(subject.seed):
            network = FineTuned(copy.deepcopy(subject.backbone), classes, precision=self.schooling.precision)
        network.requires_grad_(True)
        optimisation = replace(self.schooling.optimisation, lr=cell.lr)
        head_lr = cell.lr * cell.head_multiplier
        school = ClassifierTrainer(
            settings=replace(self.schooling, optimisation=optimisation),
            subject=subject,
            train=data.train,
            test=data.test,
            machine=machine,
            process=process,
            folder=folder,
            identity={
                "protocol": as_dict(self),
                "cell": cell.name,
                "weights": subject.weights.sha256,
                "data": data.data_id.sha256,
                "seed": subject.seed,
            },
        )
        return school.fit(
            Classifier(
                features=lambda images: images,
                network=network,
                names=("top1",),
                groups=[
                    Group(name="backbone", parameters=network.backbone.parameters(), lr=cell.lr),
                    Group(name="head", parameters=network.head.parameters(), lr=head_lr),
                ],
                classes=classes,
            )
        )

    def _notes(self, classes: int, bad: int) -> list[str]:
        notes = []
        if self.selection == "test":
            notes.append("the grid cell was chosen on the test set, as published; selection=held-out does not")
        if self.expected_classes is not None and classes != self.expected_classes:
            notes.append(f"{counted(classes, 'class', 'classes')}; the published protocol has {self.expected_classes}")
        if bad:
            notes.append(f"{left_out(bad, 'image')} (skipped.csv)")
        return notes


def stratified_split(source: Source, fraction: float, seed: int) -> Splits:
    """Part of a labelled source held out as the test set."""
    import numpy as np

    from simsiam.data.classification.loader import stratified_rows

    held = stratified_rows(source, fraction=fraction, seed=seed)
    return Splits(train=source.subset(np.flatnonzero(~held)), test=source.subset(np.flatnonzero(held)))
