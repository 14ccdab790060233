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
CLOSEST = 100  # iterations between two evaluations of a shortened training, at least


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which object an anchor or a proposal stands for, by the overlap (IoU) of the two boxes."""

    positive: Share  # from here on it stands for the object that it overlaps most
    negative: Share  # below, it is background; between the two it takes no part
    low_quality: Literal["on", "off"]  # on: the boxes that overlap an object most stand for it in any case ...
    lowest: Share  # ... from this overlap on


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How many of an image's anchors or proposals are trained on."""

    count: Count  # an image
    positive_fraction: Share  # at most; background fills up


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """How many proposals come out of the region proposal network."""

    before_nms: Count  # the best of each level
    kept: Count  # an image


@dataclass(frozen=True, kw_only=True)
class Rpn:
    """The region proposal network (Ren et al. 2015)."""

    channels: int  # of its 3x3 convolution; 0: as many as the map has
    scales: tuple[Positive, ...]  # an anchor's side in strides of its level
    ratios: tuple[Positive, ...]  # height / width
    assignment: Assignment
    sampling: Sampling
    border: Literal["inside", "any"]  # inside: anchors that cross the image's border do not train
    train: Proposals
    test: Proposals
    nms: Share


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The head that classifies proposals and refines their boxes."""

    head: Literal["res5", "4conv1fc"]  # res5: the backbone's last stage; else four convolutions, one linear layer
    channels: int  # of the four convolutions
    hidden: int  # of the linear layer
    pool: Count  # side of RoIAlign's output
    assignment: Assignment
    sampling: Sampling
    deviations: tuple[Positive, Positive, Positive, Positive]  # box targets are divided by these: x, y, width, height


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The mask head (He et al. 2017)."""

    convs: int  # 3x3 convolutions before the upsampling; 0 in the C4 form, which takes res5's output
    channels: int
    pool: Count  # side of RoIAlign's output
    threshold: Share  # of a mask's probability


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What counts as a detection."""

    score: Share  # at least
    nms: Share  # per class
    detections: Count  # an image, at most


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A whole detector."""

    features: Literal["c4", "fpn"]  # c4: the last stage but one; fpn: a pyramid over all residual stages
    pyramid_channels: int  # of every level; 0 with c4
    backbone_norm: Literal["trained", "frozen"]  # trained: BatchNorm with the batch's statistics, as published
    head_norm: Literal["batch", "none"]  # BatchNorm in pyramid and heads, and after res5
    rpn: Rpn
    boxes: Boxes
    masks: Masks | None  # None: boxes only
    test: Selection


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """A detector, how it is trained and by which rule it is scored."""

    name: str  # of the recipe
    benchmark: Benchmark  # Result.protocol is detection_ and this
    metric: Literal["voc", "coco"]  # voc: AP50 by the 11-point rule; coco: mean AP over overlaps from 0.5 to 0.95
    architecture: Architecture
    difficult: Literal["ignored", "learnt"]  # VOC's difficult objects, in training
    background: Literal[
        "kept", "left_out"
    ]  # training images with difficult objects or crowds alone; your own negatives
    train_images: BoxTransform
    test_images: BoxTransform
    lr: Positive  # at `lr_batch` images a step; scaled in proportion to the batch size
    lr_batch: Count
    batch_size: Count  # global, over all devices
    accumulate: Count  # passes a step; more than 1 only without BatchNorm that learns
    momentum: Share
    weight_decay: float  # on every parameter
    unit: Literal["iterations", "epochs"]  # of the next two, and of evaluate_every
    length: Count
    milestones: tuple[int, ...]  # where the rate falls by gamma
    gamma: Share
    warmup_iterations: int  # a linear rise from warmup_ratio of the rate
    warmup_ratio: Share
    evaluate_every: Count  # must divide the length
    precise_bn_iterations: int  # training batches to measure BatchNorm's statistics on before a test; 0: running means
    precision: Literal["fp32", "tf32", "bf16"]
    lr_sweep: tuple[Positive, ...]  # rates to try first, each on its own short schedule; empty: none
    sweep_iterations: Count  # of that schedule, in which the rate falls at the same fractions
    sweep_choice: Literal["report", "best"]  # report: train at `lr` all the same; best: at the one that scored best
    expected_classes: Count | None  # of the published data set; other counts are allowed and noted

    @property
    def main_metric(self) -> str:
        """AP50 on VOC, box AP on COCO."""
        return "ap50" if self.metric == "voc" else "box_ap"

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
