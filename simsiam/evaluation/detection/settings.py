"""What a detector is made of and how it is trained, as records of the recipe (no torch here: recipes print at once)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from simsiam import limits
from simsiam.data.detection.transforms import BoxTransform
from simsiam.errors import UserError
from simsiam.limits import Count, Positive, Share

Benchmark = Literal["voc0712", "voc07", "coco", "coco_2x", "coco_c4", "coco_c4_2x", "cityscapes_instances", "folder"]
ACCUMULATION = (
    "--accumulate {count}: BatchNorm takes its statistics over the images of one pass, so {count} small passes are "
    "another method than one large one. It is allowed with --architecture.backbone-norm frozen and "
    "--architecture.head-norm none; else use a smaller --batch-size (the rate follows), --precision bf16 or more "
    "devices."
)
CPU_WORK = 1500 * 4 * 256 * 384  # `DetectionSettings.work` of the recipes for a CPU
CLOSEST = 100  # iterations between two evaluations of a shortened training, at least


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which object an anchor or a proposal stands for, by the overlap (IoU) of the two boxes."""

    positive: Share  # Overlap (IoU) with an object from which a box stands for it.
    negative: Share  # Overlap below which a box is background; between the two it takes no part.
    # on: the boxes that overlap an object most stand for it even below the first limit.
    low_quality: Literal["on", "off"]
    lowest: Share  # Overlap that such a box needs at least.


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How many of an image's anchors or proposals are trained on."""

    count: Count  # Boxes of an image that are trained on.
    positive_fraction: Share  # Largest share of them that stands for objects; background fills up.


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """How many proposals come out of the region proposal network."""

    before_nms: Count  # Best proposals of each level before overlaps are removed.
    kept: Count  # Proposals of an image that are kept.


@dataclass(frozen=True, kw_only=True)
class Rpn:
    """The region proposal network (Ren et al. 2015)."""

    channels: int  # Channels of its 3x3 convolution; 0: as many as the map has.
    scales: tuple[Positive, ...]  # Sides of anchors, in strides of their level.
    ratios: tuple[Positive, ...]  # Height over width of anchors.
    assignment: Assignment
    sampling: Sampling
    border: Literal["inside", "any"]  # inside: anchors that cross the image's border are not trained on.
    train: Proposals
    test: Proposals
    nms: Share  # Overlap from which the weaker of two proposals is removed.


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The head that classifies proposals and refines their boxes."""

    # res5: the backbone's last stage; 4conv1fc: four convolutions and a linear layer.
    head: Literal["res5", "4conv1fc"]
    channels: int  # Channels of the four convolutions.
    hidden: int  # Width of the linear layer.
    pool: Count  # Side of RoIAlign's output.
    assignment: Assignment
    sampling: Sampling
    deviations: tuple[Positive, Positive, Positive, Positive]  # What box targets are divided by: x, y, width, height.


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The mask head (He et al. 2017)."""

    convs: int  # 3x3 convolutions before the upsampling; 0 in the C4 form, which has res5 before it.
    channels: int  # Channels of the mask head.
    pool: Count  # Side of RoIAlign's output.
    threshold: Share  # Probability from which a pixel belongs to the mask.


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What counts as a detection."""

    score: Share  # Smallest score of a detection.
    nms: Share  # Overlap from which the weaker of two detections of a class is removed.
    detections: Count  # Most detections of an image.


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A whole detector."""

    features: Literal["c4", "fpn"]  # c4: the last stage but one; fpn: a pyramid over all residual stages.
    pyramid_channels: int  # Channels of every level of the pyramid; 0 with c4.
    # trained: BatchNorm with the batch's statistics, as published; frozen: those of the weights.
    backbone_norm: Literal["trained", "frozen"]
    head_norm: Literal["batch", "none"]  # batch: BatchNorm in pyramid and heads, and after res5.
    rpn: Rpn
    boxes: Boxes
    masks: Masks | None  # None: boxes only
    test: Selection


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """A detector, how it is trained and by which rule it is scored."""

    name: str  # of the recipe
    benchmark: Benchmark  # Result.protocol is detection_ and this
    metric: Literal["voc", "coco"]  # voc: AP50 by the 11-point rule; coco: mean AP over overlaps from 0.5 to 0.95.
    architecture: Architecture
    difficult: Literal["ignored", "learnt"]  # What training does with VOC's difficult objects.
    # What training does with images that have difficult objects or crowds alone, or none: your own negatives.
    background: Literal["kept", "left_out"]
    train_images: BoxTransform
    test_images: BoxTransform
    lr: Positive  # Learning rate for a batch of --lr-batch; scaled in proportion to --batch-size.
    lr_batch: Count  # Batch size that --lr is for.
    batch_size: Count  # Images in a step, over all devices; the rate follows it.
    accumulate: Count  # Forward passes per step; more than 1 only if no BatchNorm is trained.
    momentum: Share  # Momentum of SGD.
    weight_decay: float  # Weight decay, on every parameter.
    unit: Literal["iterations", "epochs"]  # Unit of --length, --milestones and --evaluate-every.
    length: Count  # Length of the training.
    milestones: tuple[int, ...]  # Where the rate falls by gamma.
    gamma: Share  # Factor of the rate at a milestone.
    warmup_iterations: int  # Iterations over which the rate rises.
    warmup_ratio: Share  # Share of the rate that the rise begins at.
    evaluate_every: Count  # From one scoring to the next; must divide --length.
    # Training batches that BatchNorm's statistics are measured on before a scoring; 0: running means.
    precise_bn_iterations: int
    precision: Literal["fp32", "tf32", "bf16"]  # Number format of the forward passes; published: fp32.
    lr_sweep: tuple[Positive, ...]  # Learning rates to try first on a short schedule: --lr-sweep 0.01 0.02.
    sweep_iterations: Count  # Length of such a schedule.
    sweep_choice: Literal["report", "best"]  # report: train at --lr all the same; best: at the rate that scored best.
    expected_classes: Count | None  # Classes of the published data set; another number is allowed and noted.

    @property
    def main_metric(self) -> str:
        """AP50 on VOC, box AP on COCO."""
        return "ap50" if self.metric == "voc" else "box_ap"

    @property
    def work(self) -> int:
        """Pixels of all images that pass through the network, where the length is in iterations."""
        return self.length * self.batch_size * self.test_images.short_sides[0] * self.test_images.long_side

    @property
    def scaled_lr(self) -> float:
        """The rate at this batch size."""
        return self.lr * self.batch_size / self.lr_batch

    def for_iterations(self, count: int) -> Self:
        """The same training in another number of iterations, and under a name that says so.

        The rate falls at the same fractions of the whole and the warm-up takes at most a fifth. The evaluations are
        as many, or fewer where that many do not divide `count` or would come every few iterations. No rate of a
        sweep is tried for longer, and BatchNorm is not measured for longer.
        """
        evaluations = max(1, min(self.length // self.evaluate_every, count // CLOSEST))
        while count % evaluations:
            evaluations -= 1
        return replace(
            self,
            name=f"{self.name}-{count}it",
            unit="iterations",
            length=count,
            milestones=tuple(round(milestone / self.length * count) for milestone in self.milestones),
            warmup_iterations=min(self.warmup_iterations, max(1, count // 5)),
            evaluate_every=count // evaluations,
            sweep_iterations=min(self.sweep_iterations, count),
            precise_bn_iterations=min(self.precise_bn_iterations, count),
        )

    def check(self) -> None:
        """Raise UserError for settings that nothing can be trained with."""
        limits.check(self, prefixes=True)
        if self.lr_sweep and self.unit == "iterations" and self.sweep_iterations > self.length:
            raise UserError(
                f"--sweep-iterations {self.sweep_iterations}: longer than the training itself ({self.length}); a sweep "
                "tries each rate on a short schedule."
            )
        if self.length % self.evaluate_every:
            raise UserError(
                f"--evaluate-every {self.evaluate_every}: must divide --length {self.length} ({self.unit}), so that "
                "the end is evaluated too."
            )
        self._check_norms()

    def _check_norms(self) -> None:
        """What BatchNorm rules out."""
        if self.precise_bn_iterations and self.architecture.backbone_norm == "frozen":
            raise UserError(
                f"--precise-bn-iterations {self.precise_bn_iterations}: frozen BatchNorm keeps the statistics of its "
                "weights. Give 0, or --architecture.backbone-norm trained."
            )
        if self.accumulate > 1:
            if self.architecture.backbone_norm != "frozen" or self.architecture.head_norm != "none":
                raise UserError(ACCUMULATION.format(count=self.accumulate))
            if self.batch_size % self.accumulate:
                raise UserError(f"--accumulate {self.accumulate}: must divide --batch-size {self.batch_size}.")
