"""What a detector finds on a whole set, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from simsiam.data.detection.boxes import BoxBatch, BoxSource, Frame, Prediction
from simsiam.data.detection.instance_masks import encode
from simsiam.data.detection.loader import ordered_batches
from simsiam.data.detection.transforms import BoxTransform
from simsiam.data.preprocess import Normalisation
from simsiam.engine import precision
from simsiam.engine.distributed import Process, gathered
from simsiam.engine.precision import Precision
from simsiam.evaluation.detection.detector import Detector
from simsiam.evaluation.detection.masks import paste
from simsiam.evaluation.detection.roi import Detections

Watched = Callable[[Iterable[BoxBatch], int], Iterator[BoxBatch]]
TEST_BATCH = 1  # images: what is found on one then depends on no other's padding


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Average precisions in percent."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]  # metric -> class -> value


@dataclass(frozen=True, kw_only=True)
class DetectorInference:
    """A detector and how images come into it."""

    detector: Detector
    images: BoxTransform
    normalisation: Normalisation
    precision: Precision
    process: Process
    workers: int

    def all(self, source: BoxSource, watched: Watched) -> list[Prediction]:
        """What is found on every image, in the source's order; the processes share the work and all get the whole.

        Args:
            watched: (batches, images in all) -> the same batches, watched; it may raise to leave.
        """
        self.detector.eval()
        batches = ordered_batches(
            source,
            self.images,
            normalisation=self.normalisation,
            batch_size=TEST_BATCH,
            device=self.process.device,
            rank=self.process.rank,
            world=self.process.world,
            workers=self.workers,
        )
        mine = -(-(len(source) - self.process.rank) // self.process.world)
        found = gathered([prediction for batch in watched(batches, mine) for prediction in self._on(batch)])
        return sorted(found, key=lambda prediction: prediction.image)

    def _on(self, batch: BoxBatch) -> Iterator[Prediction]:
        sizes = [(frame.height, frame.width) for frame in batch.frames]
        with torch.no_grad(), precision.autocast(self.precision, self.process.device):
            detections = self.detector.detect(batch.images, sizes)
        for frame, each in zip(batch.frames, detections, strict=True):
            yield in_image(each, frame, self._threshold)

    @property
    def _threshold(self) -> float:
        masks = self.detector.architecture.masks
        return masks.threshold if masks is not None else 0.5


def in_image(found: Detections, frame: Frame, threshold: float) -> Prediction:
    """Detections on a resized image in the image's own pixels, on the CPU, masks drawn and encoded."""
    boxes = frame.to_image(found.boxes.float().cpu())
    masks = None
    if found.masks is not None:
        size = (frame.original_height, frame.original_width)
        # One by one: a hundred masks of a large photo would be gigabytes as pixels.
        masks = tuple(
            encode(paste(mask[None], box[None], size, threshold))[0]
            for mask, box in zip(found.masks.float().cpu(), boxes, strict=True)
        )
    return Prediction(
        image=frame.index, boxes=boxes, scores=found.scores.float().cpu(), labels=found.labels.cpu(), masks=masks
    )


def score(metric: Literal["voc", "coco"], predictions: list[Prediction], source: BoxSource) -> Scores:
    """By VOC's rules or by COCO's; raises UserError where the set has no object to score."""
    if metric == "voc":
        from simsiam.evaluation.detection.voc_ap import voc_scores

        voc = voc_scores(predictions, source)
        return Scores(metrics=voc.metrics, per_class=voc.per_class)
    from simsiam.evaluation.detection.coco_ap import coco_scores

    coco = coco_scores(predictions, source)
    return Scores(metrics=coco.metrics, per_class=coco.per_class)
