"""Detection transfer: a detector around the backbone, fine-tuned as a whole and scored by average precision.

Sources: the model zoo's configurations (Faster R-CNN R50-C4 on VOC07+12, Mask R-CNN on COCO); He et al. 2020 (MoCo),
appendix, for the C4 form with an extra BatchNorm; Chen & He 2021, table 5, for the transfer settings.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from simsiam import limits
from simsiam.config import Machine
from simsiam.data.detection.transforms import BoxTransform
from simsiam.errors import UserError
from simsiam.evaluation.detection.settings import Architecture
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from simsiam.data.detection.boxes import BoxSource

Benchmark = Literal["voc0712", "voc07", "coco", "coco_2x", "coco_c4", "coco_c4_2x", "cityscapes_instances", "folder"]
ACCUMULATION = (
    "--accumulate {count}: BatchNorm takes its statistics over the images of one pass, so {count} small passes are "
    "another method than one large one. It is allowed with --architecture.backbone-norm frozen and "
    "--architecture.head-norm none; else use a smaller --batch-size (the rate follows), --precision bf16 or more "
    "devices."
)
CLOSEST = 100  # iterations between two evaluations of a shortened training, at least


@dataclass(frozen=True, kw_only=True)
class BoxSets:
    """What a detector learns from and what it is scored on."""

    train: BoxSource
    test: BoxSource
    notes: tuple[str, ...] = ()  # what was done to them, for the result


@dataclass(frozen=True, kw_only=True)
class Detection(Protocol[BoxSets]):
    """A detector, how it is trained and by which rule it is scored."""

    benchmark: Benchmark  # Result.protocol is detection_ and this
    metric: Literal["voc", "coco"]  # voc: AP50 by the 11-point rule; coco: mean AP over overlaps from 0.5 to 0.95
    architecture: Architecture
    difficult: Literal["ignored", "learnt"]  # VOC's difficult objects, in training
    background: Literal["kept", "left_out"]  # training images that have objects, but none to learn from
    train_images: BoxTransform
    test_images: BoxTransform
    lr: float  # at `lr_batch` images a step; scaled in proportion to the batch size
    lr_batch: int
    batch_size: int  # global, over all devices
    accumulate: int  # passes a step; more than 1 only without BatchNorm that learns
    momentum: float
    weight_decay: float  # on every parameter
    unit: Literal["iterations", "epochs"]  # of the next two, and of evaluate_every
    length: int
    milestones: tuple[int, ...]  # where the rate falls by gamma
    gamma: float
    warmup_iterations: int  # a linear rise from warmup_ratio of the rate
    warmup_ratio: float
    evaluate_every: int  # must divide the length
    precise_bn_iterations: int  # training batches to measure BatchNorm's statistics on before a test; 0: running means
    precision: Literal["fp32", "tf32", "bf16"]
    lr_sweep: tuple[float, ...]  # rates to try first, each on its own short schedule; empty: none
    sweep_iterations: int  # of that schedule, in which the rate falls at the same fractions
    sweep_choice: Literal["report", "best"]  # report: train at `lr` all the same; best: at the one that scored best
    expected_classes: int | None  # of the published data set; other counts are allowed and noted

    @property
    def protocol(self) -> str:  # type: ignore[override]  # one class serves several benchmarks, told apart by a field
        """What Result.protocol says."""
        return f"detection_{self.benchmark}"

    @property
    def main_metric(self) -> str:
        """AP50 on VOC, box AP on COCO."""
        return "ap50" if self.metric == "voc" else "box_ap"

    @property
    def scaled_lr(self) -> float:
        """The rate at this batch size."""
        return self.lr * self.batch_size / self.lr_batch

    def for_iterations(self, count: int) -> Detection:
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

    def data_id(self, data: BoxSets) -> DataId:
        """Name of the training set, hash and size of both sets together."""
        joined = hashlib.sha256(f"{data.train.fingerprint()}\n{data.test.fingerprint()}".encode()).hexdigest()
        return DataId(name=data.train.name, sha256=joined, images=len(data.train) + len(data.test))

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

    def score(self, subject: PretrainedBackbone, data: BoxSets, *, machine: Machine) -> Measured:
        """Average precisions in percent: ap50, ap50_area, ap, ap75 (VOC), or box_* and mask_* (COCO).

        Trains in `machine.out` from its last checkpoint on. Raises UserError as the settings, data or weights ask
        for it, and `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        from simsiam.evaluation.detection.finish import train_and_score

        self.check()
        return train_and_score(self, subject, data, machine=machine)
