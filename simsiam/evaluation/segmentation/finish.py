"""A segmentation protocol from start to end: data checks, the rate search, the training, the pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from simsiam.config import Machine, as_dict, loader_workers
from simsiam.data.segmentation.checks import complain, mask_problems, single_class
from simsiam.data.segmentation.masks import MaskSource, MaskSplits
from simsiam.data.source import split_held_out
from simsiam.data.splits import data_id
from simsiam.engine.distributed import Process, any_process
from simsiam.engine.logs import Display
from simsiam.errors import UserError
from simsiam.evaluation.classification.linear_heads import seeded
from simsiam.evaluation.fine_tuning import RateTooHigh, rates_were, run_folder, run_processes
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.evaluation.segmentation.pictures import Example, save_grid
from simsiam.evaluation.segmentation.segmentor import Segmentor, check_complete
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.evaluation.segmentation.trainer import SegmentationTrainer, TrainingResult
from simsiam.results import read_json, write_json
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

CHECKED_FILE = "data-checked.json"
PROBLEMS_FILE = "data-problems.txt"
PICTURE = "pictures/predictions.jpg"
PICTURES = 6
MOST_HELD_OUT = 500  # images that score the rates of a search


def train_and_score(
    protocol: Protocol[MaskSplits],
    settings: Segmentation,
    subject: PretrainedBackbone,
    data: MaskSplits,
    machine: Machine,
) -> Measured:
    """Check the data, search the rate where asked, train, and score the last iteration.

    Raises UserError for data, weights or settings that nothing can be trained with; `engine.stopping.Interrupted`
    when asked to stop, with the state saved.
    """
    settings.course.check(settings.design)
    if data.train.classes != data.test.classes:
        raise UserError(f"{data.train.name} and {data.test.name}: the two sets have different classes.")
    with run_processes(machine.device) as process, run_folder(machine.out) as folder:
        check_data(data, folder, process, machine)
        place = _Place(protocol=protocol, subject=subject, machine=machine, process=process, folder=folder)
        rates = _search(place, settings, data.train)
        chosen = settings
        if settings.search.sweep_choice == "best" and rates:
            best = max(rates, key=lambda row: -1.0 if row["miou"] is None else row["miou"])
            chosen = replace(settings, course=replace(settings.course, lr=best["lr"]))
        lesson = place.lesson(chosen, data, part="main", folder=folder)
        learnt = lesson.fit()
        detail = _detail(learnt, data, lesson.tensors, rates, chosen)
        if machine.out is not None:
            detail["pictures"] = [{"file": PICTURE, "caption": "Test images: image, ground truth, prediction."}]
            if process.is_main:
                save_grid(folder / PICTURE, examples(lesson, data.test), data.test.classes)
    return Measured(metrics=learnt.metrics, detail=detail, notes=_notes(settings, chosen, learnt, data))


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What all trainings of one evaluation share."""

    protocol: Protocol[MaskSplits]
    subject: PretrainedBackbone
    machine: Machine
    process: Process
    folder: Path

    def lesson(self, settings: Segmentation, data: MaskSplits, *, part: str, folder: Path) -> SegmentationTrainer:
        """A fresh segmentor on the subject's weights, ready to be trained."""
        with seeded(self.subject.seed):
            network = Segmentor(copy.deepcopy(self.subject.backbone), len(data.train.classes), settings.design)
        network.requires_grad_(True)
        return SegmentationTrainer(
            settings=settings,
            network=network,
            tensors=check_complete(network, self.subject.backbone.state_dict()),
            subject=self.subject,
            train=data.train,
            test=data.test,
            machine=self.machine,
            process=self.process,
            folder=folder,
            identity={
                "protocol": as_dict(self.protocol),
                "part": part,
                "weights": self.subject.weights.sha256,
                "data": data_id(data.train, data.test).sha256,
                "seed": self.subject.seed,
                "segmentor": describe(network, data.train.classes, self.subject),
            },
        )


def describe(network: Segmentor, classes: Sequence[str], subject: PretrainedBackbone) -> dict[str, Any]:
    """What `simsiam predict` builds the network from again."""
    backbone = network.backbone
    return {
        "backbone": backbone.name,
        "width": backbone.width,
        "stem": backbone.stem,
        "stem_padding": int(backbone.conv1.padding[0]),
        "classes": list(classes),
        "mean": list(subject.mean),
        "std": list(subject.std),
    }


def check_data(data: MaskSplits, folder: Path, process: Process, machine: Machine) -> None:
    """Look at every file once, each process at its share; raises UserError with all that is wrong.

    A folder whose data were whole once is not looked at again while their content stays the same.
    """
    stamp, known = folder / CHECKED_FILE, data_id(data.train, data.test).sha256
    seen = process.is_main and stamp.exists() and read_json(stamp).get("data") == known
    if any_process(seen, process.device):
        return
    found = _problems(data, process, machine)
    if process.world > 1:
        shares: list[list[str]] = [[] for _ in range(process.world)]
        dist.all_gather_object(shares, found)
        found = [problem for share in shares for problem in share]
    found = list(dict.fromkeys(found))
    keeps = machine.out is not None and process.is_main
    complain(found, data.train.name, listing=folder / PROBLEMS_FILE if keeps else None)
    if (lacking := single_class(data.train)) is not None:
        raise UserError(lacking)
    if process.is_main:
        write_json(stamp, {"data": known, "images": len(data.train) + len(data.test)})


def _problems(data: MaskSplits, process: Process, machine: Machine) -> list[str]:
    """What is wrong with this process's share of the images."""
    total = -(-(len(data.train) + len(data.test)) // process.world)
    display = Display(total, shows=process.is_main)
    display.start(0)
    problems: list[str] = []
    threads = loader_workers(machine, world=process.world) + 1
    shares = mask_problems(data.train, data.test, threads=threads, rank=process.rank, world=process.world)
    try:
        for done, found in enumerate(shares, 1):
            problems += found
            display.update(done, f"checking images and masks {done}/{total}  problems {len(problems)}")
    finally:
        display.stop()
    return problems


def examples(lesson: SegmentationTrainer, source: MaskSource) -> list[Example]:
    """A few images spread over a set, with their masks and what the network says."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(PICTURES, len(source))).round().astype(int))
    return [
        Example(
            image=source.read(each.index),
            truth=source.mask(each.index),
            found=each.found.cpu().numpy().astype(np.uint8),
        )
        for each in lesson.tester().predict(source, chosen)
    ]


def _search(place: _Place, settings: Segmentation, train: MaskSource) -> list[dict[str, Any]]:
    """mIoU of each rate on held-out training images; None for one at which the loss stopped being finite."""
    rates = settings.search.lr_sweep
    if not rates:
        return []
    parts = split_held_out(train, images=MOST_HELD_OUT, seed=place.subject.seed)
    assert isinstance(parts.train, MaskSource)
    assert isinstance(parts.held_out, MaskSource)
    data = MaskSplits(train=parts.train, test=parts.held_out)
    iterations = settings.search.sweep_iterations
    rows: list[dict[str, Any]] = []
    for lr in rates:
        course = replace(settings.course, lr=lr, iterations=iterations, evaluate_every=iterations)
        course.check(settings.design)
        folder = place.folder / "grid" / f"lr{lr:g}"
        try:
            learnt = place.lesson(replace(settings, course=course), data, part=f"lr {lr:g}", folder=folder).fit()
        except RateTooHigh:
            rows.append({"lr": lr, "miou": None})
            continue
        rows.append({"lr": lr, **learnt.metrics})
    if all(row["miou"] is None for row in rows):
        raise UserError(f"--lr-sweep {' '.join(f'{lr:g}' for lr in rates)}: every rate is too high; try lower ones.")
    return rows


def _detail(
    learnt: TrainingResult, data: MaskSplits, tensors: int, rates: list[dict[str, Any]], chosen: Segmentation
) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "per_class": {"IoU": learnt.iou, "accuracy": learnt.accuracy},
        "history": learnt.history,
        "training_images": len(data.train),
        "test_images": len(data.test),
        "loaded_tensors": tensors,
        "lr": chosen.course.scaled_lr,
    }
    if rates:
        detail["lr_sweep"] = rates
    return detail


def _notes(settings: Segmentation, chosen: Segmentation, learnt: TrainingResult, data: MaskSplits) -> list[str]:
    notes = chosen.notes
    classes = len(data.train.classes)
    if settings.expected_classes is not None and classes != settings.expected_classes:
        notes.append(f"{counted(classes, 'class', 'classes')}; the published data set has {settings.expected_classes}")
    absent = [name for name in data.test.classes if name not in learnt.iou]
    if absent:
        notes.append(
            f"{counted(len(absent), 'class is', 'classes are')} neither in the test masks nor in the predictions and "
            f"not in the means: {', '.join(absent)}"
        )
    if settings.search.lr_sweep:
        how = "the best was taken" if settings.search.sweep_choice == "best" else "for the record only"
        notes.append(
            f"{rates_were(settings.search.lr_sweep)} tried for "
            f"{counted(settings.search.sweep_iterations, 'iteration')} on held-out training images ({how}); "
            f"trained at {chosen.course.lr:g}"
        )
    return notes
