"""One training of a segmentor: the step, the scoring every so many iterations, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from simsiam.config import Machine, loader_workers
from simsiam.data.segmentation.loader import MaskBatch, MaskLoader, Normalisation
from simsiam.data.segmentation.masks import MaskSource
from simsiam.engine import distributed, optimizers, precision
from simsiam.engine.distributed import Process
from simsiam.engine.fit import EpochEnd, Plan, Training
from simsiam.engine.logs import Display, MetricsLog
from simsiam.engine.optimizers import Group
from simsiam.errors import UserError
from simsiam.evaluation.fine_tuning import share_buffers, train_and_evaluate
from simsiam.evaluation.segmentation.inference import Tester
from simsiam.evaluation.segmentation.metrics import PixelCounts
from simsiam.evaluation.segmentation.segmentor import Segmentor, segmentation_loss
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The last scoring, and all of them."""

    metrics: dict[str, float]
    iou: dict[str, float]  # by class, percent; without those that neither truth nor prediction has
    accuracy: dict[str, float]  # likewise; without those that the truth lacks
    history: list[dict[str, float]]


@dataclass(kw_only=True)
class SegmentationTrainer:
    """A segmentor with its data, machine and settings.

    Args:
        tensors: of the weights that are in the network.
        identity: what the run is; a folder that holds another run's state is refused.
    """

    settings: Segmentation
    network: Segmentor
    tensors: int
    subject: PretrainedBackbone
    train: MaskSource
    test: MaskSource
    machine: Machine
    process: Process
    folder: Path
    identity: dict[str, Any]

    def fit(self) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the last iteration.

        Raises RateTooHigh when the loss stops being finite; UserError when the folder belongs to another run;
        `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        course = self.settings.course
        precision.prepare(course.precision, self.process.device)
        self.network.to(self.process.device)
        if self._channels_last:
            self.network.to(memory_format=torch.channels_last)
        group = Group(name="network", parameters=self.network.parameters(), lr=course.scaled_lr)
        training = Training(
            modules={"network": self.network},
            optimizer=optimizers.sgd([group], momentum=course.momentum, weight_decay=course.weight_decay),
            recipe=self.identity,
            extra={"history": [], "kept": None},
        )
        self._run(training)
        assert training.extra is not None
        kept = training.extra["kept"]
        return TrainingResult(
            metrics=kept["metrics"], iou=kept["iou"], accuracy=kept["accuracy"], history=training.extra["history"]
        )

    def _run(self, training: Training) -> None:
        course = self.settings.course
        plan = Plan(
            epochs=course.iterations // course.interval,
            steps_per_epoch=course.interval,
            schedule=course.factor,
            schedule_by="step",
            images_per_step=course.batch_size,
            checkpoint_minutes=self.machine.checkpoint_minutes,
        )
        cuda = [self.process.device] if self.process.device.type == "cuda" else []
        with (
            closing(self._loader()) as loader,
            torch.random.fork_rng(devices=cuda),  # the steps seed torch's own generator, for dropout
        ):
            train_and_evaluate(
                training,
                make_step=lambda: self._step(training),
                batches=loader.epoch,
                evaluate=lambda end, log, display: self._evaluate(training, end, log, display),
                plan=plan,
                folder=self.folder,
                process=self.process,
                lr=course.scaled_lr,
                cure="Lower --lr, or let --lr-sweep try several.",
            )

    @property
    def _channels_last(self) -> bool:
        wish = self.machine.channels_last
        return wish == "on" or (wish == "auto" and self.process.device.type == "cuda")

    @property
    def _normalisation(self) -> Normalisation:
        return Normalisation(mean=self.subject.mean, std=self.subject.std)

    def _loader(self) -> MaskLoader:
        course, process = self.settings.course, self.process
        rows = distributed.per_device_batch(course.batch_size, process.world)
        if rows % course.accumulate:
            raise UserError(
                f"--accumulate {course.accumulate}: does not divide the {counted(rows, 'image')} of a device."
            )
        return MaskLoader(
            self.train,
            self.settings.augmentation,
            self._normalisation,
            steps=course.interval,
            global_batch=course.batch_size,
            batch=rows,
            first=rows * process.rank,
            seed=self.subject.seed,
            device=process.device,
            channels_last=self._channels_last,
            workers=loader_workers(self.machine, world=process.world),
        )

    def _step(self, training: Training) -> Callable[[MaskBatch], dict[str, Tensor]]:
        course = self.settings.course
        self.network.train()
        network: Any = distributed.parallel(self.network, self.process)
        if self.machine.compile == "on":
            network = torch.compile(network)

        def step(batch: MaskBatch) -> dict[str, Tensor]:
            done = training.epoch * course.interval + training.step
            torch.manual_seed(dropout_seed(self.subject.seed, done, self.process.rank))
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
        with precision.autocast(self.settings.course.precision, self.process.device):
            scores = network(images)
        size = (masks.shape[1], masks.shape[2])
        return torch.stack(
            [
                segmentation_loss(self.network.scores_at(part, size), masks, mean_over=self.settings.course.mean_over)
                for part in (scores.main, scores.auxiliary)
            ]
        )

    def _evaluate(self, training: Training, end: EpochEnd, log: MetricsLog, display: Display) -> None:
        counts = self._count(end, display)
        figures = counts.figures()
        names = self.test.classes
        extra = training.extra
        assert extra is not None
        extra["history"].append({"iteration": end.global_step, **figures})
        extra["kept"] = {
            "metrics": figures,
            "iou": _by_class(names, counts.iou),
            "accuracy": _by_class(names, counts.accuracy),
        }
        log.write("evaluation", epoch=end.epoch, step=end.global_step, **figures)
        shown = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
        display.say(f"iteration {end.global_step}: {shown}")

    def _count(self, end: EpochEnd, display: Display) -> PixelCounts:
        mine = np.array_split(np.arange(len(self.test)), self.process.world)[self.process.rank]
        counts = PixelCounts(len(self.test.classes), self.process.device)
        share_buffers(self.network)
        for done, each in enumerate(self.tester().predict(self.test, mine), 1):
            counts.add(each.found, each.mask)
            display.update(end.global_step, f"scoring {done}/{len(mine)}")
        counts.total()
        return counts

    def tester(self) -> Tester:
        """The network as it stands, ready to look at images."""
        return Tester(
            network=self.network,
            settings=self.settings,
            normalisation=self._normalisation,
            device=self.process.device,
            workers=loader_workers(self.machine, world=self.process.world),
        )


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed for each step and process, so that a resumed run drops the same channels."""
    return int(np.random.SeedSequence((seed, step, rank, 4)).generate_state(1)[0])


def _by_class(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if value == value}
