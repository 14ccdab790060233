"""A segmentation protocol from start to end: data checks, the rate search, the training, the pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simsiam.config import Machine, loader_workers
from simsiam.data.segmentation.checks import Looked, absent_classes, complain, mask_problems, single_class
from simsiam.data.segmentation.masks import MaskSource, MaskSplits
from simsiam.data.source import split_held_out
from simsiam.data.splits import data_id
from simsiam.engine.distributed import any_process, gathered
from simsiam.engine.logs import Display
from simsiam.errors import UserError
from simsiam.evaluation.fine_tuning import TrainingResult
from simsiam.evaluation.palette import write_picture
from simsiam.evaluation.place import Place, place_of, seeded
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.evaluation.rate_search import MOST_HELD_OUT, Trial, best, sweep_note, try_cells
from simsiam.evaluation.segmentation.pictures import Example, grid
from simsiam.evaluation.segmentation.segmentor import Segmentor, check_complete
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.evaluation.segmentation.trainer import SegmentationTrainer
from simsiam.results import read_json, write_json
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

CHECKED_FILE = "data-checked.json"
PROBLEMS_FILE = "data-problems.txt"
PICTURE = "pictures/predictions.jpg"
PICTURES = 6


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
    with place_of(protocol, subject, data_id(data.train, data.test).sha256, machine) as place:
        absent = check_data(data, place)
        trials = _sweep(settings, data.train, place)
        chosen = settings
        if settings.search.sweep_choice == "best" and trials:
            chosen = replace(settings, course=replace(settings.course, lr=best(trials, "miou").cell["lr"]))
        trainer = _trainer(chosen, data, place.part("", part="main"))
        trained = trainer.fit()
        detail: dict[str, Any] = {
            **trained.detail,
            "loaded_tensors": len(subject.backbone.state_dict()),  # all of them: `check_complete`
            "lr": chosen.course.scaled_lr,
        }
        if trials:
            detail["lr_sweep"] = [trial.row for trial in trials]
        if machine.out is not None:
            detail["pictures"] = [{"file": PICTURE, "caption": "Test images: image, ground truth, prediction."}]
            if place.process.is_main:
                write_picture(place.folder / PICTURE, grid(examples(trainer, data.test), data.test.classes))
    notes = [*data.notes, *absent, *_notes(settings, chosen, trained, data)]
    if trials:
        iterations, choice = settings.search.sweep_iterations, settings.search.sweep_choice
        notes.append(sweep_note(trials, iterations, choice=choice, lr=chosen.course.lr))
    return Measured(metrics=trained.metrics, detail=detail, notes=notes)


def _trainer(settings: Segmentation, data: MaskSplits, place: Place) -> SegmentationTrainer:
    """A fresh segmentor on the subject's weights, ready to be trained."""
    subject = place.subject
    with seeded(subject.seed):
        network = Segmentor(copy.deepcopy(subject.backbone), len(data.train.classes), settings.design)
    check_complete(network, subject.backbone.state_dict())
    network.requires_grad_(True)
    made_of = describe(network, data.train.classes, subject)
    place = place.part("", data=data_id(data.train, data.test).sha256, segmentor=made_of)
    return SegmentationTrainer(settings=settings, network=network, data=data, place=place)


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


def check_data(data: MaskSplits, place: Place) -> list[str]:
    """Look at every file once, each process at its share; raises UserError with all that is wrong.

    Returns a word on classes that no mask shows. A folder whose data were whole once is not looked at again while
    their content stays the same.
    """
    process = place.process
    stamp, known = place.folder / CHECKED_FILE, data_id(data.train, data.test).sha256
    kept = read_json(stamp) if process.is_main and stamp.exists() else {}
    if any_process(kept.get("data") == known, process.device):
        return list(kept.get("notes", ()))
    looked = _looked(data, place)
    found = list(dict.fromkeys(gathered([problem for each in looked for problem in each.problems])))
    keeps = place.machine.out is not None and process.is_main
    complain(found, data.train.name, listing=place.folder / PROBLEMS_FILE if keeps else None)
    if (lacking := single_class(data.train)) is not None:
        raise UserError(lacking)
    notes = absent_classes(data.train, gathered(sorted({number for each in looked for number in each.classes})))
    if process.is_main:
        write_json(stamp, {"data": known, "images": len(data.train) + len(data.test), "notes": notes})
        for note in notes:
            print(f"note: {note}")
    return notes


def _looked(data: MaskSplits, place: Place) -> list[Looked]:
    """What this process's share of the images shows."""
    process = place.process
    total = -(-(len(data.train) + len(data.test)) // process.world)
    display = Display(total, shows=process.is_main)
    display.start(0)
    looked: list[Looked] = []
    threads = loader_workers(place.machine, world=process.world) + 1
    shares = mask_problems(data.train, data.test, threads=threads, rank=process.rank, world=process.world)
    problems = 0
    try:
        for done, found in enumerate(shares, 1):
            looked.append(found)
            problems += len(found.problems)
            display.update(done, f"checking images and masks {done}/{total}  problems {problems}")
    finally:
        display.stop()
    return looked


def examples(trainer: SegmentationTrainer, source: MaskSource) -> list[Example]:
    """A few images spread over a set, with their masks and what the network says."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(PICTURES, len(source))).round().astype(int))
    return [
        Example(
            image=source.read(each.index),
            truth=source.mask(each.index),
            found=each.found.cpu().numpy().astype(np.uint8),
        )
        for each in trainer.tester().predict(source, chosen)
    ]


def _sweep(settings: Segmentation, train: MaskSource, place: Place) -> list[Trial]:
    """Each rate on a short schedule, scored on held-out training images; empty where none is to be tried."""
    search = settings.search
    if not search.lr_sweep:
        return []
    parts = split_held_out(train, images=MOST_HELD_OUT, seed=place.subject.seed)
    assert isinstance(parts.train, MaskSource)
    assert isinstance(parts.held_out, MaskSource)
    data = MaskSplits(train=parts.train, test=parts.held_out)
    short = replace(settings.course, iterations=search.sweep_iterations, evaluate_every=search.sweep_iterations)

    def trial(cell: dict[str, float]) -> TrainingResult:
        course = replace(short, lr=cell["lr"])
        course.check(settings.design)
        name = f"lr{cell['lr']:g}"
        return _trainer(
            replace(settings, course=course), data, place.part(f"grid/{name}", part=f"lr {cell['lr']:g}")
        ).fit()

    cells, facts = (
        [{"lr": lr} for lr in search.lr_sweep],
        {"iterations": short.iterations, "held_out_images": len(data.test)},
    )
    return try_cells(cells, trial, metric="miou", flag="--lr-sweep", facts=facts)


def _notes(settings: Segmentation, chosen: Segmentation, trained: TrainingResult, data: MaskSplits) -> list[str]:
    notes = chosen.notes
    classes = len(data.train.classes)
    if settings.expected_classes is not None and classes != settings.expected_classes:
        notes.append(f"{counted(classes, 'class', 'classes')}; the published data set has {settings.expected_classes}")
    absent = [name for name in data.test.classes if name not in trained.detail["per_class"]["IoU"]]
    if absent:
        notes.append(
            f"{counted(len(absent), 'class is', 'classes are')} neither in the test masks nor in the predictions and "
            f"not in the means: {', '.join(absent)}"
        )
    return notes
