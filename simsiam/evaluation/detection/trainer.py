"""Fine-tuning a detector: its step, its data and its scoring every few thousand iterations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from simsiam.config import Machine, loader_workers
from simsiam.data.detection.boxes import BoxBatch, DifficultLearnt
from simsiam.data.detection.loader import BoxLoader
from simsiam.engine import distributed, optimizers, precision
from simsiam.engine.fit import Plan, Training
from simsiam.engine.optimizers import Group, sgd
from simsiam.evaluation.detection.average_precision import best_threshold, score
from simsiam.evaluation.detection.data import BoxSets
from simsiam.evaluation.detection.detector import Detector, build_detector
from simsiam.evaluation.detection.inference import TrainedDetector, draw_examples, find_all, save_detector
from simsiam.evaluation.detection.settings import CPU_WORK, DetectionSettings
from simsiam.evaluation.fine_tuning import FineTuning, Scored, Smaller, TrainingResult, Watch, share_buffers
from simsiam.evaluation.place import Place, seeded
from simsiam.wording import in_words


def measure_norms(detector: Detector, batches: Iterable[BoxBatch], losses: Callable[[BoxBatch], object]) -> None:
    """Replace every running mean and variance by its average over some batches; nothing else changes.

    The momentum and the mode, training or evaluation, are afterwards what they were; where the batches or a pass
    raise, so are the statistics.

    Args:
        detector: without frozen BatchNorm, whose statistics belong to the weights.
        batches: of training images, augmented as in training.
        losses: a forward pass in training mode, the whole of it: the heads' BatchNorm sees the sampled proposals.
    """
    norms = [part for part in detector.modules() if isinstance(part, _BatchNorm)]
    before = [(copy.deepcopy(dict(norm.named_buffers())), norm.momentum) for norm in norms]
    try:
        update_bn(batches, _Forward(detector, losses))
    except BaseException:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
            norm.momentum = momentum
        raise


class _Forward(nn.Module):
    """The detector as a function of a batch, which is how `update_bn` calls it."""

    def __init__(self, detector: Detector, losses: Callable[[BoxBatch], object]) -> None:
        super().__init__()
        self.detector, self._losses = detector, losses
        self.train(detector.training)  # which `update_bn` restores at the end

    def forward(self, batch: BoxBatch) -> None:
        """One pass, for its effect on BatchNorm; `update_bn` asks for no gradients."""
        self._losses(batch)


Losses = Callable[[BoxBatch, slice, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class DetectorTrainer:
    """One fine-tuning of a detector.

    Args:
        data: checked, without the training images that the settings leave out.
    """

    settings: DetectionSettings
    data: BoxSets
    place: Place

    def fit(self) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the end; raises as `FineTuning.run` does."""
        how = self.settings
        losses = self._losses()
        with closing(self._loader()) as loader:
            plan = plan_of(how, loader.steps, checkpoint_minutes=self.place.machine.checkpoint_minutes)

            def batches(stretch: int, first: int) -> Iterator[BoxBatch]:
                start = stretch * plan.steps_per_epoch
                return loader.run(start + first, start + plan.steps_per_epoch)

            def measured(watch: Watch) -> Scored:
                self._measure_norms(loader, losses, watch)
                return self._score(watch)

            group = Group(
                name="detector",
                parameters=[parameter for parameter in self.detector.parameters() if parameter.requires_grad],
                lr=how.scaled_lr,
            )
            return FineTuning(
                network=self.detector,
                optimizer=sgd([group], momentum=how.momentum, weight_decay=how.weight_decay),
                plan=plan,
                step=lambda training: self._step(training, losses),
                batches=batches,
                score=measured,
                lr=how.scaled_lr,
                metric=how.main_metric,
                module="detector",
                learns=f"{'masks' if how.architecture.masks else 'boxes'} of {in_words(self.data.train.classes)}",
                smaller=smaller_of(how),
            ).run(self.place)

    @cached_property
    def detector(self) -> Detector:
        """The network, from the subject's weights on its way to the last iteration's."""
        process = self.place.process
        precision.prepare(self.settings.precision, process.device)
        with seeded(self.place.subject.seed):
            backbone, classes = self.place.subject.backbone, self.data.train.classes
            detector = build_detector(self.settings.architecture, backbone, len(classes))
        detector.to(process.device)
        if channels_last(self.settings, self.place.machine, process.device):
            detector.to(memory_format=torch.channels_last)
        return detector

    def _loader(self) -> BoxLoader:
        learnt = self.data.train if self.settings.difficult == "ignored" else DifficultLearnt(self.data.train)
        return BoxLoader(
            learnt,
            self.settings.train_images,
            normalisation=self.trained.normalisation,
            batch_size=self.settings.batch_size,
            seed=self.place.subject.seed,
            device=self.place.process.device,
            rank=self.place.process.rank,
            world=self.place.process.world,
            workers=loader_workers(self.place.machine, world=self.place.process.world),
        )

    @property
    def trained(self) -> TrainedDetector:
        """The detector as it stands, with what its use needs."""
        return TrainedDetector(
            detector=self.detector,
            classes=self.data.train.classes,
            images=self.settings.test_images,
            mean=self.place.subject.mean,
            std=self.place.subject.std,
        )

    def keep(self, score: float | None) -> list[dict[str, str]]:
        """Write the detector, shown from this score on, and its pictures; what the result says of the latter."""
        self.detector.eval()
        trained = replace(self.trained, score=score)
        save_detector(self.place.folder, trained)
        return draw_examples(trained, self.data.test, self.place.folder)

    def _losses(self) -> Losses:
        """The forward pass of training over some rows of a batch."""
        network = distributed.parallel(self.detector, self.place.process)
        as_channels_last = channels_last(self.settings, self.place.machine, self.place.process.device)

        def losses(batch: BoxBatch, rows: slice, generator: torch.Generator) -> dict[str, Tensor]:
            images = batch.images[rows]
            if as_channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            sizes = [(frame.height, frame.width) for frame in batch.frames[rows]]
            with precision.autocast(self.settings.precision, self.place.process.device):
                found: dict[str, Tensor] = network(images, sizes, batch.targets[rows], generator)
            return found

        return losses

    def _step(self, training: Training, losses: Losses) -> Callable[[BoxBatch], dict[str, Tensor]]:
        self.detector.train()
        passes = self.settings.accumulate

        def step(batch: BoxBatch) -> dict[str, Tensor]:
            generator = step_generator(self.place.subject.seed, batch, self.place.process.rank)
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

    def _measure_norms(self, loader: BoxLoader, losses: Losses, watch: Watch) -> None:
        """BatchNorm's statistics over the training batches that come next, where the recipe asks for it."""
        count = self.settings.precise_bn_iterations
        if not count:
            return

        def forward(batch: BoxBatch) -> None:
            losses(batch, slice(None), step_generator(self.place.subject.seed, batch, self.place.process.rank))

        def batches() -> Iterator[BoxBatch]:
            for done, batch in enumerate(loader.run(watch.step, watch.step + count)):
                watch.check()  # at each: the processes exchange their statistics in every pass
                watch.display.update(watch.step, f"BatchNorm's statistics: batch {done:,} of {count:,}")
                yield batch

        measure_norms(self.detector, batches(), forward)

    def _score(self, watch: Watch) -> Scored:
        """The detector as it is now; what is reported is the last scoring, as published, not the best."""
        share_buffers(self.detector)  # every process scores with the statistics that are saved
        found = find_all(
            self.trained,
            self.data.test,
            watch.over,
            precision=self.settings.precision,
            process=self.place.process,
            workers=loader_workers(self.place.machine, world=self.place.process.world),
        )
        scores = score(self.settings.metric, found, self.data.test)
        self.detector.train()
        images = {"train_images": len(self.data.train), "test_images": len(self.data.test)}
        chosen = best_threshold(found, self.data.test)
        detail = {"per_class": scores.per_class, **images, "threshold": chosen}
        return Scored(metrics=scores.metrics, detail=detail)


def plan_of(settings: DetectionSettings, steps_per_pass: int, *, checkpoint_minutes: float) -> Plan:
    """The schedule in iterations; one "epoch" of the loop is the stretch between two evaluations."""
    unit = 1 if settings.unit == "iterations" else steps_per_pass
    milestones = [milestone * unit for milestone in settings.milestones]

    def factor(iteration: float) -> float:
        rise = optimizers.linear_warmup(int(iteration), settings.warmup_iterations, settings.warmup_ratio)
        return rise * optimizers.steps(iteration, milestones, settings.gamma)

    return Plan(
        epochs=settings.length // settings.evaluate_every,
        steps_per_epoch=settings.evaluate_every * unit,
        schedule=factor,
        schedule_by="step",
        images_per_step=settings.batch_size,
        checkpoint_minutes=checkpoint_minutes,
    )


def smaller_of(how: DetectionSettings) -> Smaller | None:
    """The recipe for a CPU in place of a large one for one's own data."""
    recipe = f"folder_{'masks' if how.architecture.masks else 'boxes'}_cpu"
    if how.benchmark != "folder" or how.unit != "iterations" or how.work <= CPU_WORK:
        return None
    return Smaller(flag=f"--recipe {recipe}", share=CPU_WORK / how.work)


def channels_last(settings: DetectionSettings, machine: Machine, device: torch.device) -> bool:
    """Whether convolutions run on channels-last memory; `auto`: with bf16 on a GPU."""
    return machine.wants_channels_last(device.type == "cuda" and settings.precision == "bf16")


def step_generator(seed: int, batch: BoxBatch, rank: int) -> torch.Generator:
    """What the samplers draw from: a function of seed, position and process alone, so that a resumed run agrees."""
    state = np.random.SeedSequence((seed, batch.epoch, batch.step, rank)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def shares(count: int, parts: int) -> list[slice]:
    """`count` rows in `parts` contiguous pieces of like size; none is empty."""
    edges = np.linspace(0, count, min(parts, count) + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]
