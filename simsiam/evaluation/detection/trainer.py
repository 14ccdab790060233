"""Fine-tuning a detector over `engine.fit`, scored every few thousand iterations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simsiam.config import Machine, loader_workers
from simsiam.data.detection.boxes import BoxBatch, BoxSource, DifficultLearnt
from simsiam.data.detection.loader import BoxLoader, Normalisation
from simsiam.engine import distributed, precision, schedules
from simsiam.engine.distributed import Process
from simsiam.engine.fit import EpochEnd, Plan, Training
from simsiam.engine.logs import Display, MetricsLog
from simsiam.engine.optimizers import Group, sgd
from simsiam.evaluation.classification.linear_heads import seeded
from simsiam.evaluation.detection.detector import Detector, build_detector
from simsiam.evaluation.detection.precise_norm import measure_norms
from simsiam.evaluation.detection.scoring import DetectorInference, score
from simsiam.evaluation.detection.settings import DetectionSettings
from simsiam.evaluation.fine_tuning import share_buffers, train_and_evaluate
from simsiam.weights.pretrained import PretrainedBackbone

Losses = Callable[[BoxBatch, slice, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A detector at the end of its training, and what was measured on the way."""

    detector: Detector
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    history: list[dict[str, float]]  # one row an evaluation


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """One fine-tuning: settings, weights, data and machine together.

    Args:
        train: checked, without the images that the settings leave out.
        folder: of checkpoints and logs.
        identity: what the run is; a folder that holds another run's state is refused.
    """

    settings: DetectionSettings
    subject: PretrainedBackbone
    train: BoxSource
    test: BoxSource
    machine: Machine
    process: Process
    folder: Path
    identity: dict[str, Any]

    def run(self) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the end.

        Raises UserError when the loss stops being finite, or when the folder belongs to another run;
        `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        detector = self._detector()
        training = self._training(detector)
        losses = self._losses(detector)
        loader = self._loader()
        plan = plan_of(self.settings, loader.steps, checkpoint_minutes=self.machine.checkpoint_minutes)

        def batches(round: int, first: int) -> Iterator[BoxBatch]:
            start = round * plan.steps_per_epoch
            return loader.run(start + first, start + plan.steps_per_epoch)

        def evaluate(end: EpochEnd, log: MetricsLog, display: Display) -> None:
            self._measure_norms(detector, loader, losses, end.global_step, display)
            self._evaluate(detector, training, end.global_step, log, display)

        with closing(loader):
            train_and_evaluate(
                training,
                make_step=lambda: self._step(detector, training, losses),
                batches=batches,
                evaluate=evaluate,
                plan=plan,
                folder=self.folder,
                process=self.process,
                lr=self.settings.scaled_lr,
                cure="Lower --lr, or let --lr-sweep try several.",
            )
        extra = training.extra
        assert extra is not None
        return TrainingResult(detector=detector, history=extra["history"], **extra["last"])

    def _detector(self) -> Detector:
        precision.prepare(self.settings.precision, self.process.device)
        with seeded(self.subject.seed):
            detector = build_detector(self.settings.architecture, self.subject.backbone, len(self.train.classes))
        detector.to(self.process.device)
        if channels_last(self.settings, self.machine, self.process.device):
            detector.to(memory_format=torch.channels_last)
        return detector

    def _training(self, detector: Detector) -> Training:
        how = self.settings
        parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
        return Training(
            modules={"detector": detector},
            optimizer=sgd(
                [Group(name="detector", parameters=parameters, lr=how.scaled_lr)],
                momentum=how.momentum,
                weight_decay=how.weight_decay,
            ),
            recipe=self.identity,
            extra={"history": [], "last": None},
        )

    def _loader(self) -> BoxLoader:
        learnt = self.train if self.settings.difficult == "ignored" else DifficultLearnt(self.train)
        return BoxLoader(
            learnt,
            self.settings.train_images,
            normalisation=self._normalisation,
            batch_size=self.settings.batch_size,
            seed=self.subject.seed,
            device=self.process.device,
            rank=self.process.rank,
            world=self.process.world,
            workers=loader_workers(self.machine, world=self.process.world),
        )

    @property
    def _normalisation(self) -> Normalisation:
        return Normalisation(mean=self.subject.mean, std=self.subject.std)

    def _losses(self, detector: Detector) -> Losses:
        """The forward pass of training over some rows of a batch."""
        network = distributed.parallel(detector, self.process)
        as_channels_last = channels_last(self.settings, self.machine, self.process.device)

        def losses(batch: BoxBatch, rows: slice, generator: torch.Generator) -> dict[str, Tensor]:
            images = batch.images[rows]
            if as_channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            sizes = [(frame.height, frame.width) for frame in batch.frames[rows]]
            with precision.autocast(self.settings.precision, self.process.device):
                found: dict[str, Tensor] = network(images, sizes, batch.targets[rows], generator)
            return found

        return losses

    def _step(self, detector: Detector, training: Training, losses: Losses) -> Callable[[BoxBatch], dict[str, Tensor]]:
        detector.train()
        passes = self.settings.accumulate

        def step(batch: BoxBatch) -> dict[str, Tensor]:
            generator = step_generator(self.subject.seed, batch, self.process.rank)
            training.optimizer.zero_grad(set_to_none=True)
            sums: dict[str, Tensor] = {}
            for rows in shares(len(batch.targets), passes):
                found = losses(batch, rows, generator)
                loss = torch.stack(list(found.values())).sum()
                (loss / passes).backward()  # type: ignore[no-untyped-call]
                for name, value in {"loss": loss, **found}.items():
                    part = value.detach() / passes
                    sums[name] = sums[name] + part if name in sums else part
            training.optimizer.step()
            return sums

        return step

    def _measure_norms(
        self, detector: Detector, loader: BoxLoader, losses: Losses, iteration: int, display: Display
    ) -> None:
        """BatchNorm's statistics over the training batches that come next, where the recipe asks for it."""
        count = self.settings.precise_bn_iterations
        if not count:
            return

        def forward(batch: BoxBatch) -> None:
            generator = step_generator(self.subject.seed, batch, self.process.rank)
            losses(batch, slice(None), generator)

        def batches() -> Iterator[BoxBatch]:
            for done, batch in enumerate(loader.run(iteration, iteration + count)):
                display.update(iteration, f"BatchNorm's statistics: batch {done:,} of {count:,}")
                yield batch

        measure_norms(detector, batches(), forward)

    def _evaluate(
        self, detector: Detector, training: Training, iteration: int, log: MetricsLog, display: Display
    ) -> None:
        """Score the detector as it is now; what is kept is the last evaluation, as published, not the best."""
        share_buffers(detector)  # every process scores with the statistics that are saved
        finder = DetectorInference(
            detector=detector,
            images=self.settings.test_images,
            normalisation=self._normalisation,
            precision=self.settings.precision,
            process=self.process,
            workers=loader_workers(self.machine, world=self.process.world),
        )
        predictions = finder.all(
            self.test, lambda done, total: display.update(iteration, f"scoring: image {done:,} of {total:,}")
        )
        scores = score(self.settings.metric, predictions, self.test)
        extra = training.extra
        assert extra is not None
        extra["history"].append({"step": iteration, **scores.metrics})
        extra["last"] = {"metrics": scores.metrics, "per_class": scores.per_class}
        log.write("evaluation", step=iteration, **scores.metrics)
        shown = "  ".join(f"{name} {value:.2f}" for name, value in scores.metrics.items())
        display.say(f"iteration {iteration:,}: {shown}")
        detector.train()


def plan_of(settings: DetectionSettings, steps_per_pass: int, *, checkpoint_minutes: float) -> Plan:
    """The schedule in iterations; one "epoch" of the loop is the stretch between two evaluations."""
    unit = 1 if settings.unit == "iterations" else steps_per_pass
    milestones = [milestone * unit for milestone in settings.milestones]

    def factor(iteration: float) -> float:
        rise = schedules.linear_warmup(int(iteration), settings.warmup_iterations, settings.warmup_ratio)
        return rise * schedules.steps(iteration, milestones, settings.gamma)

    return Plan(
        epochs=settings.length // settings.evaluate_every,
        steps_per_epoch=settings.evaluate_every * unit,
        schedule=factor,
        schedule_by="step",
        images_per_step=settings.batch_size,
        checkpoint_minutes=checkpoint_minutes,
    )


def channels_last(settings: DetectionSettings, machine: Machine, device: torch.device) -> bool:
    """Whether convolutions run on channels-last memory; `auto`: with bf16 on a GPU."""
    if machine.channels_last == "auto":
        return device.type == "cuda" and settings.precision == "bf16"
    return machine.channels_last == "on"


def step_generator(seed: int, batch: BoxBatch, rank: int) -> torch.Generator:
    """What the samplers draw from: a function of seed, position and process alone, so that a resumed run agrees."""
    state = np.random.SeedSequence((seed, batch.epoch, batch.step, rank)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def shares(count: int, parts: int) -> list[slice]:
    """`count` rows in `parts` contiguous pieces of like size; none is empty."""
    edges = np.linspace(0, count, min(parts, count) + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]
