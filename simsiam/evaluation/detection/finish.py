"""A detection evaluation from end to end: rates tried, the detector trained, scored, drawn and written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simsiam.config import Machine, as_dict
from simsiam.data.detection.boxes import BoxSource
from simsiam.data.detection.checks import Which, with_objects
from simsiam.data.splits import data_id
from simsiam.engine.distributed import barrier
from simsiam.errors import UserError
from simsiam.evaluation.detection.anchor_fit import anchor_fit, object_sides
from simsiam.evaluation.detection.data import BoxSets
from simsiam.evaluation.detection.files import FILE, TrainedDetector, save_detector
from simsiam.evaluation.detection.pictures import draw_examples
from simsiam.evaluation.detection.settings import DetectionSettings
from simsiam.evaluation.detection.trainer import DetectorTrainer
from simsiam.evaluation.fine_tuning import TrainingResult
from simsiam.evaluation.place import Place, place_of
from simsiam.evaluation.protocol import Measured
from simsiam.evaluation.rate_search import MOST_HELD_OUT, Trial, best, sweep_note, try_cells
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, plural


def train_and_score(
    settings: DetectionSettings, subject: PretrainedBackbone, data: BoxSets, *, machine: Machine
) -> Measured:
    """What `Detection.score` does; raises as it does."""
    _refuse_unfit(settings, data)
    learnt = replace(data, train=_to_learn_from(settings, data.train))
    with place_of(settings, subject, data_id(learnt.train, learnt.test).sha256, machine) as place:
        if place.process.is_main:
            (place.folder / FILE).unlink(missing_ok=True)  # of an earlier run; the file stands for a finished training
        trials = _sweep(settings, learnt, place)
        chosen = settings
        if trials and settings.sweep_choice == "best":
            chosen = replace(settings, lr=best(trials, settings.main_metric).cell["lr"])
        trainer = _trainer(chosen, learnt, place)
        trained = trainer.fit()
        detail: dict[str, Any] = {**trained.detail, "lr": chosen.scaled_lr}
        if trials:
            detail["lr_sweep"] = [trial.row for trial in trials]
        if machine.out is not None and place.process.is_main:
            detail["pictures"] = _keep(trainer)
        barrier()
    notes = _notes(settings, data, chosen.lr, len(data.train) - len(learnt.train))
    if trials:
        notes.append(sweep_note(trials, settings.sweep_iterations, choice=settings.sweep_choice, lr=chosen.lr))
    notes += remarks(settings, subject, data)
    return Measured(metrics=trained.metrics, detail=detail, notes=notes)


def _trainer(settings: DetectionSettings, data: BoxSets, place: Place, folder: str = "") -> DetectorTrainer:
    place = place.part(folder, protocol=as_dict(settings), data=data_id(data.train, data.test).sha256)
    return DetectorTrainer(settings=settings, data=data, place=place)


def _to_learn_from(settings: DetectionSettings, source: BoxSource) -> BoxSource:
    """Without the images that have nothing to learn from, where the settings leave them out.

    Of the published sets an image without any annotation is left out in every case, as published; in a folder of
    one's own it is a negative that `kept` keeps.
    """
    which: Which = "difficult" if settings.difficult == "learnt" else "ordinary"
    learnt = with_objects(source, which)
    if not len(learnt):
        raise UserError(
            f"{source.name}: no object to learn from in {counted(len(source), 'image')}: all are marked as crowds or "
            "as difficult. Correct iscrowd or difficult in the annotations, or learn the latter by --difficult learnt."
        )
    if settings.background == "left_out":
        return learnt
    return source if settings.benchmark == "folder" else with_objects(source, "any")


def remarks(settings: DetectionSettings, subject: PretrainedBackbone, data: BoxSets) -> list[str]:
    """What to know before training on a set of one's own: objects too small to see, or far from all anchors."""
    if settings.benchmark != "folder":  # the published sets have the published sizes and anchors
        return []
    found = []
    for source, what in ((data.train, "training"), (data.test, "test")):
        sides = object_sides(source, settings.test_images)
        if tiny := int((sides.amin(1) < 1).sum()) if len(sides) else 0:
            found.append(
                f"{tiny} of {counted(len(sides), f'{what} object')} {plural(tiny, 'is', 'are')} under a pixel wide or "
                "high at the size that the network sees: raise --test-images.short-sides, or cut the images into tiles."
            )
    fit = anchor_fit(data.train, settings.test_images, settings.architecture, subject.backbone)
    return [*found, fit.remark] if fit is not None and fit.remark is not None else found


def _sweep(settings: DetectionSettings, data: BoxSets, place: Place) -> list[Trial]:
    """Each rate on a short schedule, scored on training images held out for it; empty where none is to be tried."""
    if not settings.lr_sweep:
        return []
    train = data.train
    order = np.random.default_rng((place.subject.seed, 3)).permutation(len(train))
    count = min(MOST_HELD_OUT, max(1, len(order) // 5))
    if count >= len(order):
        raise UserError(f"--lr-sweep: {train.name} has {counted(len(order), 'image')}, too few to hold some out.")
    held = replace(data, train=train.subset(np.sort(order[count:])), test=train.subset(np.sort(order[:count])))
    short = settings.for_iterations(settings.sweep_iterations)
    short = replace(short, evaluate_every=short.length, lr_sweep=())

    def trial(cell: dict[str, float]) -> TrainingResult:
        return _trainer(replace(short, lr=cell["lr"]), held, place, f"grid/lr{cell['lr']:g}").fit()

    cells, facts = [{"lr": lr} for lr in settings.lr_sweep], {"iterations": short.length, "held_out_images": count}
    return try_cells(cells, trial, metric=settings.main_metric, flag="--lr-sweep", facts=facts)


def _keep(trainer: DetectorTrainer) -> list[dict[str, str]]:
    """Write the detector and its pictures; what the result says of the latter."""
    kept = TrainedDetector(
        detector=trainer.detector.eval(),
        classes=trainer.data.train.classes,
        images=trainer.settings.test_images,
        mean=trainer.place.subject.mean,
        std=trainer.place.subject.std,
    )
    save_detector(trainer.place.folder, kept)
    return draw_examples(kept, trainer.data.test, trainer.place.folder)


def _refuse_unfit(settings: DetectionSettings, data: BoxSets) -> None:
    """Data that the settings cannot be trained or scored on."""
    if data.train.classes != data.test.classes:
        raise UserError(
            f"{data.train.name} and {data.test.name}: the classes differ "
            f"({', '.join(data.train.classes[:5])} ... and {', '.join(data.test.classes[:5])} ...). "
            "Both must have the same names in the same order."
        )
    counted_ones = sum(int(data.test.target(index).ordinary.sum()) for index in range(len(data.test)))
    if not counted_ones:
        raise UserError(
            f"{data.test.name}: no test object that counts in a score: the images have none, or crowds and difficult "
            "ones alone. Name a test set with objects by --test, or correct iscrowd or difficult in the annotations."
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
    if settings.architecture.backbone_norm == "frozen" or settings.architecture.head_norm == "none":
        notes.append("BatchNorm is not trained throughout, as it is in the published recipe")
    return notes
