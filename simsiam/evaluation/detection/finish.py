"""A detection evaluation from end to end: rates tried, the detector trained, scored, drawn and written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simsiam.config import Machine, as_dict
from simsiam.data.detection.checks import Which, with_objects
from simsiam.data.splits import data_id
from simsiam.engine.distributed import Process, barrier
from simsiam.errors import UserError
from simsiam.evaluation.detection.anchor_fit import anchor_fit
from simsiam.evaluation.detection.data import BoxSets
from simsiam.evaluation.detection.files import FILE, TrainedDetector, save_detector
from simsiam.evaluation.detection.pictures import draw_examples
from simsiam.evaluation.detection.settings import DetectionSettings
from simsiam.evaluation.detection.trainer import Trainer, TrainingResult
from simsiam.evaluation.fine_tuning import RateTooHigh, rates_were, run_folder, run_processes
from simsiam.evaluation.protocol import Measured
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, plural

MOST_HELD_OUT = 500  # training images that the rates of a sweep are compared on


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """Everything about an evaluation but the learning rate and the length."""

    subject: PretrainedBackbone
    data: BoxSets
    machine: Machine
    process: Process

    def train(self, settings: DetectionSettings, folder: Path) -> TrainingResult:
        """Fine-tune in a folder, from its last checkpoint on."""
        trainer = Trainer(
            settings=settings,
            subject=self.subject,
            train=self.data.train,
            test=self.data.test,
            machine=self.machine,
            process=self.process,
            folder=folder,
            identity={
                "protocol": as_dict(settings),
                "weights": self.subject.weights.sha256,
                "data": data_id(self.data.train, self.data.test).sha256,
                "seed": self.subject.seed,
            },
        )
        return trainer.run()


def train_and_score(
    settings: DetectionSettings, subject: PretrainedBackbone, data: BoxSets, *, machine: Machine
) -> Measured:
    """What `Detection.score` does; raises as it does."""
    _refuse_unfit(settings, data)
    learnt = replace(data, train=with_objects(data.train, _trained_on(settings)))
    with run_processes(machine.device) as process, run_folder(machine.out) as folder:
        if process.is_main:
            (folder / FILE).unlink(missing_ok=True)  # of an earlier run; the file stands for a finished training
        setting = _Setting(subject=subject, data=learnt, machine=machine, process=process)
        sweep = _sweep(setting, settings, folder)
        lr = _best(sweep, settings.main_metric) if sweep and settings.sweep_choice == "best" else settings.lr
        trained = setting.train(replace(settings, lr=lr), folder)
        detail: dict[str, Any] = {
            "per_class": trained.per_class,
            "history": trained.history,
            "lr": lr * settings.batch_size / settings.lr_batch,
            "train_images": len(learnt.train),
            "test_images": len(data.test),
        }
        if sweep:
            detail["lr_sweep"] = sweep
        if machine.out is not None:
            detail["pictures"] = _keep(trained, settings, setting, folder)
        barrier()
    left_out = len(data.train) - len(learnt.train)
    notes = _notes(settings, data, lr, left_out)
    if (remark := anchor_remark(settings, subject, data)) is not None:
        notes.append(remark)
    return Measured(metrics=trained.metrics, detail=detail, notes=notes)


def _trained_on(settings: DetectionSettings) -> Which:
    """Which kind of object an image must have to be trained on."""
    if settings.background == "kept":
        return "any"
    return "difficult" if settings.difficult == "learnt" else "ordinary"


def anchor_remark(settings: DetectionSettings, subject: PretrainedBackbone, data: BoxSets) -> str | None:
    """What to know before training on a set of one's own: objects that the anchors are far from, and the cure."""
    if settings.benchmark != "folder":  # the published sets have the published anchors
        return None
    fit = anchor_fit(data.train, settings.test_images, settings.architecture, subject.backbone)
    return fit.remark if fit is not None else None


def _sweep(setting: _Setting, settings: DetectionSettings, folder: Path) -> list[dict[str, Any]]:
    """What each rate of the sweep reached on training images held out for it; None where the loss ran away."""
    if not settings.lr_sweep:
        return []
    order = np.random.default_rng((setting.subject.seed, 3)).permutation(len(setting.data.train))
    count = min(MOST_HELD_OUT, max(1, len(order) // 5))
    if count >= len(order):
        raise UserError(
            f"--lr-sweep: {setting.data.train.name} has {counted(len(order), 'image')}, too few to hold some out."
        )
    held, learnt = np.sort(order[:count]), np.sort(order[count:])
    train = setting.data.train
    trial = replace(setting, data=replace(setting.data, train=train.subset(learnt), test=train.subset(held)))
    short = settings.for_iterations(settings.sweep_iterations)
    short = replace(short, evaluate_every=short.length, lr_sweep=())
    rows: list[dict[str, Any]] = []
    for lr in settings.lr_sweep:
        try:
            metrics: dict[str, Any] = dict(trial.train(replace(short, lr=lr), folder / "grid" / f"lr{lr:g}").metrics)
        except RateTooHigh:
            metrics = {settings.main_metric: None}
        rows.append({"lr": lr, "iterations": short.length, "held_out_images": count, **metrics})
    return rows


def _best(sweep: list[dict[str, Any]], metric: str) -> float:
    """The rate that scored best; raises UserError where every one of them was too high."""
    reached = [row for row in sweep if row[metric] is not None]
    if not reached:
        rates = ", ".join(f"{row['lr']:g}" for row in sweep)
        raise UserError(f"--lr-sweep: the loss ran away at each of {rates}. Try lower ones.")
    return float(max(reached, key=lambda row: row[metric])["lr"])


def _keep(
    trained: TrainingResult, settings: DetectionSettings, setting: _Setting, folder: Path
) -> list[dict[str, str]]:
    """Write the detector and its pictures; what the result says of the latter."""
    if not setting.process.is_main:
        return []
    kept = TrainedDetector(
        detector=trained.detector.eval(),
        classes=setting.data.train.classes,
        images=settings.test_images,
        mean=setting.subject.mean,
        std=setting.subject.std,
    )
    save_detector(folder, kept)
    return draw_examples(kept, setting.data.test, folder)


def _refuse_unfit(settings: DetectionSettings, data: BoxSets) -> None:
    """Data that the settings cannot be trained or scored on."""
    if data.train.classes != data.test.classes:
        raise UserError(
            f"{data.train.name} and {data.test.name}: the classes differ "
            f"({', '.join(data.train.classes[:5])} ... and {', '.join(data.test.classes[:5])} ...). "
            "Both must have the same names in the same order."
        )
    if settings.architecture.masks is not None and not (data.train.has_masks and data.test.has_masks):
        without = data.train if not data.train.has_masks else data.test
        raise UserError(
            f"{without.name}: {settings.name} learns masks, and this set has boxes only. Take a recipe without masks "
            "(--recipe folder_boxes), or COCO annotations with segmentations."
        )


def _notes(settings: DetectionSettings, data: BoxSets, lr: float, left_out: int) -> list[str]:
    notes = list(data.notes)
    if settings.batch_size != settings.lr_batch:
        scaled = lr * settings.batch_size / settings.lr_batch
        notes.append(f"batch {settings.batch_size} instead of {settings.lr_batch}: the rate {lr:g} became {scaled:g}")
        if settings.unit == "iterations":
            seen, usual = (settings.length * batch for batch in (settings.batch_size, settings.lr_batch))
            notes.append(
                f"{counted(settings.length, 'iteration')} saw {counted(seen, 'image')}, at batch "
                f"{settings.lr_batch} {usual:,}"
            )
    classes = len(data.train.classes)
    if settings.expected_classes is not None and classes != settings.expected_classes:
        notes.append(f"{counted(classes, 'class', 'classes')}; the published benchmark has {settings.expected_classes}")
    if left_out:
        notes.append(
            f"{counted(left_out, 'training image')} without an object to learn from "
            f"{plural(left_out, 'was', 'were')} left out"
        )
    if settings.lr_sweep:
        chosen = f"{lr:g} was taken" if settings.sweep_choice == "best" else f"trained at {lr:g} all the same"
        notes.append(
            f"{rates_were(settings.lr_sweep)} compared on held-out training images after "
            f"{counted(settings.sweep_iterations, 'iteration')}; "
            f"{chosen}"
        )
    if settings.architecture.backbone_norm == "frozen" or settings.architecture.head_norm == "none":
        notes.append("BatchNorm is not trained throughout, as it is in the published recipe")
    return notes
