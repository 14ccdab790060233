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


@dataclass(frozen=True, kw_only=True)
class SegmentorConfig:
    """The network around the backbone."""

    output_stride: Count  # pixels of the image to one of the last map; late strides become dilations
    head_channels: Count
    auxiliary_channels: Count  # of the head on the map before the last
    dropout: Share  # of whole channels, before each classifier
    corners: Literal["aligned", "half-pixel"]  # how scores are resized: align_corners True or False
    norm: Literal["batch", "group"]  # of the heads; batch as published
    backbone_norm: Literal["trained", "frozen"]  # frozen: BatchNorm keeps the statistics of the weights


@dataclass(frozen=True, kw_only=True)
class SegmentationSchedule:
    """Loss, optimiser and length; the rate changes every iteration."""

    iterations: Count
    batch_size: Count  # global
    accumulate: Count  # passes that a device's share of the batch is cut into; above 1 only without BatchNorm training
    lr: Positive  # for a batch of `lr_batch`; scaled linearly for others
    lr_batch: Count
    min_lr: float  # the rate falls to this: (lr - min_lr) x (1 - t)^power + min_lr
    power: Positive
    momentum: Share
    weight_decay: float  # on every parameter
    auxiliary_weight: float  # of the auxiliary head's loss
    mean_over: Literal["all", "labelled"]  # pixels that a loss is divided by
    evaluate_every: Count  # iterations; a checkpoint as often
    precision: Literal["fp32", "tf32", "bf16"]

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
        from simsiam.engine.schedules import polynomial

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

    test_long: Count  # pixels: resized to fit this long edge
    test_short: Count  # and this short edge
    windows: Literal["whole", "slide"]  # whole: in one pass; slide: overlapping windows, averaged
    window: Count  # pixels of a window's side
    window_stride: Count  # pixels from one to the next


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """Several rates tried on a short schedule, scored on a tenth of the training images that is held out for it."""

    lr_sweep: tuple[Positive, ...]  # rates for a batch of `lr_batch`; empty: no search
    sweep_iterations: Count
    sweep_choice: Literal["report", "best"]  # report: train at `lr` all the same; best: at the rate with the best mIoU


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """All settings of a segmentation protocol."""

    augmentation: MaskAugmentation
    design: SegmentorConfig
    course: SegmentationSchedule
    testing: Testing
    search: RateSearch
    expected_classes: Count | None  # of the published data set; others are noted
    published_iterations: Count | None  # other lengths are noted

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
