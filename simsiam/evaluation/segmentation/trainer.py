"""One training of a segmentor: its data and their check, its step, its scoring and its pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from simsiam.config import loader_workers
from simsiam.data import inventory
from simsiam.data.images import turned_notes
from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.checks import (
    Looked,
    absent_classes,
    bad_of,
    complain,
    mask_problems,
    single_class,
    without,
)
from simsiam.data.segmentation.loader import MaskBatch, MaskLoader
from simsiam.data.segmentation.masks import MaskSplits
from simsiam.data.splits import data_id
from simsiam.engine import distributed, optimizers, precision
from simsiam.engine.distributed import any_process, gathered
from simsiam.engine.fit import Plan, Training
from simsiam.engine.logs import Display
from simsiam.engine.optimizers import Group
from simsiam.errors import UserError
from simsiam.evaluation.fine_tuning import FineTuning, Scored, Smaller, TrainingResult, Watch, share_buffers
from simsiam.evaluation.palette import write_picture
from simsiam.evaluation.place import Place, seeded
from simsiam.evaluation.segmentation.inference import TrainedSegmentor
from simsiam.evaluation.segmentation.metrics import PixelCounts
from simsiam.evaluation.segmentation.pictures import Example, grid
from simsiam.evaluation.segmentation.segmentor import Segmentor, check_complete, segmentation_loss
from simsiam.evaluation.segmentation.settings import CPU_RECIPE, CPU_WORK, Segmentation
from simsiam.results import read_json, write_json
from simsiam.wording import counted, in_words

CHECKED_FILE = "data-checked.json"
PROBLEMS_FILE = "data-problems.txt"
PICTURE = "pictures/predictions.jpg"
PICTURES = 6


@dataclass(frozen=True, kw_only=True)
class SegmentationTrainer:
    """A segmentor with its data and settings."""

    settings: Segmentation
    network: Segmentor
    data: MaskSplits
    place: Place

    def fit(self) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the last iteration; raises as `FineTuning.run` does."""
        course, device = self.settings.course, self.place.process.device
        precision.prepare(course.precision, device)
        self.network.to(device)
        if self._channels_last:
            self.network.to(memory_format=torch.channels_last)
        group = Group(name="network", parameters=self.network.parameters(), lr=course.scaled_lr)
        with (
            closing(self._loader()) as loader,
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),  # the steps seed it, for dropout
        ):
            return FineTuning(
                network=self.network,
                optimizer=optimizers.sgd([group], momentum=course.momentum, weight_decay=course.weight_decay),
                plan=Plan(
                    epochs=course.iterations // course.interval,
                    steps_per_epoch=course.interval,
                    schedule=course.factor,
                    schedule_by="step",
                    images_per_step=course.batch_size,
                    checkpoint_minutes=self.place.machine.checkpoint_minutes,
                ),
                step=self._step,
                batches=loader.epoch,
                score=self._score,
                lr=course.scaled_lr,
                metric="miou",
                learns=f"masks of {in_words(self.data.train.classes)}",
                smaller=self._smaller,
            ).run(self.place)

    @property
    def _smaller(self) -> Smaller | None:
        """The recipe for a CPU in place of a large one for one's own masks."""
        how = self.settings
        if how.expected_classes is not None or how.work <= CPU_WORK:
            return None
        return Smaller(flag=f"--recipe {CPU_RECIPE}", share=CPU_WORK / how.work)

    @property
    def _channels_last(self) -> bool:
        return self.place.machine.wants_channels_last(self.place.process.device.type == "cuda")

    @property
    def _normalisation(self) -> Normalisation:
        return Normalisation(mean=self.place.subject.mean, std=self.place.subject.std)

    def _loader(self) -> MaskLoader:
        course, process = self.settings.course, self.place.process
        rows = distributed.per_device_batch(course.batch_size, process.world)
        if rows % course.accumulate:
            raise UserError(
                f"--accumulate {course.accumulate}: does not divide the {counted(rows, 'image')} of a device."
            )
        design, crop = self.settings.design, self.settings.augmentation.crop
        if rows == 1 and crop <= design.output_stride and f"{design.backbone_norm} {design.norm}" != "frozen group":
            raise UserError(
                f"--batch-size {course.batch_size}: one image a device, and crops of {crop} pixels that the network "
                f"reduces to a single place: BatchNorm has nothing to compare. Take --batch-size {2 * process.world} "
                "or more, or a larger --size."
            )
        return MaskLoader(
            self.data.train,
            self.settings.augmentation,
            self._normalisation,
            steps=course.interval,
            global_batch=course.batch_size,
            batch=rows,
            first=rows * process.rank,
            seed=self.place.subject.seed,
            device=process.device,
            channels_last=self._channels_last,
            workers=loader_workers(self.place.machine, world=process.world),
        )

    def _step(self, training: Training) -> Callable[[MaskBatch], dict[str, Tensor]]:
        course = self.settings.course
        self.network.train()
        compiled = self.place.machine.compile == "on"
        network = distributed.parallel(self.network, self.place.process, compiled=compiled)

        def step(batch: MaskBatch) -> dict[str, Tensor]:
            done = training.epoch * course.interval + training.step
            torch.manual_seed(dropout_seed(self.place.subject.seed, done, self.place.process.rank))
            training.optimizer.zero_grad(set_to_none=True)
            sums = batch.images.new_zeros(2)  # the main head's loss and the auxiliary one's
            parts = course.accumulate
            for number, (images, masks) in enumerate(
                zip(batch.images.chunk(parts), batch.masks.chunk(parts), strict=True), 1
            ):
                alone = isinstance(network, DistributedDataParallel) and number < parts
                with network.no_sync() if alone else nullcontext():
                    losses = self._losses(network, images, masks) / parts
                    (losses[0] + course.auxiliary_weight * losses[1]).backward()  # type: ignore[no-untyped-call]
                sums += losses.detach()
            training.optimizer.step()
            return {"loss": sums[0] + course.auxiliary_weight * sums[1], "main_loss": sums[0]}

        return step

    def _losses(self, network: Callable[[Tensor], Any], images: Tensor, masks: Tensor) -> Tensor:
        with precision.autocast(self.settings.course.precision, self.place.process.device):
            scores = network(images)
        size = (masks.shape[1], masks.shape[2])
        return torch.stack(
            [
                segmentation_loss(self.network.scores_at(part, size), masks, mean_over=self.settings.course.mean_over)
                for part in (scores.main, scores.auxiliary)
            ]
        )

    def _score(self, watch: Watch) -> Scored:
        names, process = self.data.test.classes, self.place.process
        mine = np.array_split(np.arange(len(self.data.test)), process.world)[process.rank]
        counts = PixelCounts(len(names), process.device)
        share_buffers(self.network)
        for each in watch.over(self.trained.predict(self.data.test, mine), len(mine)):
            counts.add(each.found, each.mask)
        counts.total()
        per_class = {"IoU": _by_class(names, counts.iou), "accuracy": _by_class(names, counts.accuracy)}
        images = {"train_images": len(self.data.train), "test_images": len(self.data.test)}
        return Scored(metrics=counts.figures(), detail={"per_class": per_class, **images})

    @property
    def trained(self) -> TrainedSegmentor:
        """The network as it stands, ready to look at images."""
        return TrainedSegmentor(
            network=self.network,
            settings=self.settings,
            classes=self.data.train.classes,
            normalisation=self._normalisation,
            device=self.place.process.device,
            workers=loader_workers(self.place.machine, world=self.place.process.world),
        )

    def draw_examples(self) -> list[dict[str, str]]:
        """Draw a few images spread over the test set, with their masks and what is found; what the result says."""
        source, count = self.data.test, len(self.data.test)
        chosen = np.unique(np.linspace(0, count - 1, min(PICTURES, count)).round().astype(int))
        if self.place.process.is_main:
            examples = [
                Example(
                    image=source.read(each.index),
                    truth=source.mask(each.index),
                    found=each.found.cpu().numpy().astype(np.uint8),
                )
                for each in self.trained.predict(source, chosen)
            ]
            write_picture(self.place.folder / PICTURE, grid(examples, source.classes))
        return [{"file": PICTURE, "caption": "Test images: image, ground truth, prediction."}]


def trainer_for(settings: Segmentation, data: MaskSplits, place: Place) -> SegmentationTrainer:
    """A fresh segmentor on the subject's weights, ready to be trained."""
    subject, classes = place.subject, data.train.classes
    with seeded(subject.seed):
        network = Segmentor(copy.deepcopy(subject.backbone), len(classes), settings.design)
    check_complete(network, subject.backbone.state_dict())
    network.requires_grad_(True)
    backbone = network.backbone
    made_of = {  # what `load_segmentor` builds the network from again
        "backbone": backbone.name,
        "width": backbone.width,
        "stem": backbone.stem,
        "stem_padding": int(backbone.conv1.padding[0]),
        "classes": list(classes),
        "mean": list(subject.mean),
        "std": list(subject.std),
    }
    place = place.part("", data=data_id(data.train, data.test).sha256, segmentor=made_of)
    return SegmentationTrainer(settings=settings, network=network, data=data, place=place)


def check_data(data: MaskSplits, place: Place) -> tuple[MaskSplits, list[str]]:
    """Look at every file once, each process at its share; raises UserError with all that is wrong.

    Returns the sets, without what is wrong where they say so, and a word on classes that no mask shows. What was found
    is kept in the folder, and holds while the data's content stays the same.
    """
    process = place.process
    stamp, known = place.folder / CHECKED_FILE, data_id(data.train, data.test).sha256
    kept = read_json(stamp) if process.is_main and stamp.exists() else {}
    whole = not (kept.get("left_out") or data.train.unmatched or data.test.unmatched)
    if any_process(kept.get("data") == known and (data.skip_bad or whole), process.device):
        return without(data, gathered([tuple(each) for each in kept.get("left_out", ())])), list(kept.get("notes", ()))
    looked = _looked(data, place)
    found = list(dict.fromkeys(gathered([problem for each in looked for problem in each.problems])))
    if data.skip_bad:
        found = list(dict.fromkeys(gathered([problem for each in looked for problem in each.lasting])))
    keeps = place.machine.out is not None and process.is_main
    listing = place.folder / PROBLEMS_FILE if keeps else None
    complain(found, data.train.name, listing=listing, skippable=not data.skip_bad)
    bad = gathered(bad_of(data, looked))
    data = without(data, bad)
    if (lacking := single_class(data.train)) is not None:
        raise UserError(lacking)
    good = [each for each in looked if not each.skippable]
    notes = turned_notes(data.train.name, gathered([each.turned for each in good]))
    notes += absent_classes(data.train, gathered(sorted({number for each in good for number in each.classes})))
    if process.is_main:
        images = len(data.train) + len(data.test)
        write_json(stamp, {"data": known, "images": images, "notes": notes, "left_out": bad})
        for note in (*(inventory.lines([data.train, data.test]) if bad else ()), *notes):
            print(f"note: {note}")
    return data, notes


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


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed for each step and process, so that a resumed run drops the same channels."""
    return int(np.random.SeedSequence((seed, step, rank, 4)).generate_state(1)[0])


def _by_class(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Without the classes that neither truth nor prediction has."""
    return {name: value for name, value in zip(names, values, strict=True) if value == value}
