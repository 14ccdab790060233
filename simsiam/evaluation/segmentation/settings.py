"""What a segmentor is made of, how it is trained and how it is scored, as records of the recipe (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simsiam import limits
from simsiam.data.segmentation.transforms import MaskAugmentation
from simsiam.errors import UserError
from simsiam.limits import Count, Positive, Share
from simsiam.wording import counted

ACCUMULATION_REFUSED = (
    "--accumulate {parts}: BatchNorm takes its statistics over the images that pass together, so {parts} small passes "
    "are not one large batch: the network would train on other statistics than the batch size says. Use a smaller "
    "--batch-size (the rate follows it), or layers that do not depend on the batch: --backbone-norm frozen "
    "with --norm group."
)


CPU_RECIPE = "fcn_d16_192x192_1k_folder_cpu"
CPU_WORK = 1000 * 8 * 192**2  # `Segmentation.work` of it


@dataclass(frozen=True, kw_only=True)
class SegmentorConfig:
    """The network around the backbone."""

    output_stride: Count  # Pixels of the image to one of the last map; late strides become dilations.
    head_channels: Count  # Channels of the head.
    auxiliary_channels: Count  # Channels of the auxiliary head, on the map before the last.
    dropout: Share  # Share of channels dropped before each classifier.
    corners: Literal["aligned", "half-pixel"]  # How scores are resized: align_corners True or False.
    norm: Literal["batch", "group"]  # Normalisation of the heads; batch as published.
    backbone_norm: Literal["trained", "frozen"]  # frozen: BatchNorm keeps the statistics of the weights.


@dataclass(frozen=True, kw_only=True)
class SegmentationSchedule:
    """Loss, optimiser and length; the rate changes every iteration."""

    iterations: Count  # Length of the training.
    batch_size: Count  # Images in a step, over all devices; the rate follows it.
    accumulate: Count  # Forward passes per step; more than 1 only if no BatchNorm is trained.
    lr: Positive  # Learning rate for a batch of --lr-batch; scaled in proportion to --batch-size.
    lr_batch: Count  # Batch size that --lr is for.
    min_lr: float  # What the rate falls to: (lr - min_lr) x (1 - t)^power + min_lr.
    power: Positive  # Power of the rate's fall.
    momentum: Share  # Momentum of SGD.
    weight_decay: float  # Weight decay, on every parameter.
    auxiliary_weight: float  # Weight of the auxiliary head's loss.
    mean_over: Literal["all", "labelled"]  # Pixels that a loss is averaged over.
    evaluate_every: Count  # Iterations from one scoring, with a checkpoint, to the next.
    precision: Literal["fp32", "tf32", "bf16"]  # Number format of the forward passes; published: fp32.

    @property
    def scaled_lr(self) -> float:
        """The initial rate at this batch size."""
        return self.lr * self.batch_size / self.lr_batch

    @property
    def interval(self) -> int:
        """Iterations from one scoring to the next."""
        return min(self.evaluate_every, self.iterations)

    def factor(self, iteration: float) -> float:
        """The rate at an iteration as a factor of the initial one."""
        from simsiam.engine.optimizers import polynomial

        floor = min(1.0, self.min_lr / self.scaled_lr)
        return polynomial(iteration, self.iterations, self.power, floor)

    def check(self, design: SegmentorConfig) -> None:
        """Raise UserError for what nothing can be trained with."""
        limits.check(self, prefixes=False)
        if self.iterations % self.interval:
            down = self.iterations // self.interval * self.interval
            raise UserError(
                f"--iterations {self.iterations}: not a multiple of --evaluate-every {self.evaluate_every}; "
                f"use {down} or {down + self.interval}, or another --evaluate-every."
            )
        if self.accumulate > 1 and (design.norm == "batch" or design.backbone_norm == "trained"):
            raise UserError(ACCUMULATION_REFUSED.format(parts=self.accumulate))


@dataclass(frozen=True, kw_only=True)
class Testing:
    """How an image is scored: one scale, not flipped."""

    test_long: Count  # Pixels that a test image's long edge must fit in.
    test_short: Count  # Pixels that its short edge must fit in.
    windows: Literal["whole", "slide"]  # whole: an image in one pass; slide: overlapping windows, averaged.
    window: Count  # Pixels of a window's side.
    window_stride: Count  # Pixels from one window to the next.


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """Several rates tried on a short schedule, scored on a tenth of the training images that is held out for it."""

    lr_sweep: tuple[Positive, ...]  # Learning rates to try first on a short schedule: --lr-sweep 0.003 0.01.
    sweep_iterations: Count  # Length of such a schedule.
    sweep_choice: Literal["report", "best"]  # report: train at --lr all the same; best: at the rate with the best mIoU.


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """All settings of a segmentation protocol."""

    augmentation: MaskAugmentation
    design: SegmentorConfig
    course: SegmentationSchedule
    testing: Testing
    search: RateSearch
    expected_classes: Count | None  # Classes of the published data set; another number is allowed and noted.
    published_iterations: Count | None  # Length of the published training; another is noted.

    @property
    def work(self) -> int:
        """Pixels of all crops that pass through the network."""
        return self.course.iterations * self.course.batch_size * self.augmentation.crop**2

    @property
    def notes(self) -> list[str]:
        """In what this differs from the published settings that a reader must know of."""
        notes = []
        course = self.course
        if self.published_iterations is not None and course.iterations != self.published_iterations:
            notes.append(
                f"{counted(course.iterations, 'iteration')}; the published protocol has {self.published_iterations:,}"
            )
        if course.batch_size != course.lr_batch:
            notes.append(
                f"batch {course.batch_size} in place of {course.lr_batch}: the rate was scaled linearly from "
                f"{course.lr:g} to {course.scaled_lr:g}"
            )
        return notes
