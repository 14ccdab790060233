"""One training of a segmentor: its step, its data and its scoring every so many iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from simsiam.config import loader_workers
from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.loader import MaskBatch, MaskLoader
from simsiam.data.segmentation.masks import MaskSplits
from simsiam.engine import distributed, optimizers, precision
from simsiam.engine.fit import Plan, Training
from simsiam.engine.optimizers import Group
from simsiam.errors import UserError
from simsiam.evaluation.fine_tuning import FineTuning, Scored, TrainingResult, Watch, share_buffers
from simsiam.evaluation.place import Place
from simsiam.evaluation.segmentation.inference import Tester
from simsiam.evaluation.segmentation.metrics import PixelCounts
from simsiam.evaluation.segmentation.segmentor import Segmentor, segmentation_loss
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.wording import counted


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
            ).run(self.place)

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
        network: Any = distributed.parallel(self.network, self.place.process)
        if self.place.machine.compile == "on":
            network = torch.compile(network)

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
        for each in watch.over(self.tester().predict(self.data.test, mine), len(mine)):
            counts.add(each.found, each.mask)
        counts.total()
        per_class = {"IoU": _by_class(names, counts.iou), "accuracy": _by_class(names, counts.accuracy)}
        images = {"train_images": len(self.data.train), "test_images": len(self.data.test)}
        return Scored(metrics=counts.figures(), detail={"per_class": per_class, **images})

    def tester(self) -> Tester:
        """The network as it stands, ready to look at images."""
        return Tester(
            network=self.network,
            settings=self.settings,
            normalisation=self._normalisation,
            device=self.place.process.device,
            workers=loader_workers(self.place.machine, world=self.place.process.world),
        )


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed for each step and process, so that a resumed run drops the same channels."""
    return int(np.random.SeedSequence((seed, step, rank, 4)).generate_state(1)[0])


def _by_class(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Without the classes that neither truth nor prediction has."""
    return {name: value for name, value in zip(names, values, strict=True) if value == value}
