"""The second stage: proposals are classified, refined and masked (Girshick 2015; He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from simsiam.data.detection.boxes import LearnTarget
from simsiam.evaluation.detection import boxes as box_maths
from simsiam.evaluation.detection.heads import BoxPredictor, Description, MaskHead
from simsiam.evaluation.detection.masks import mask_targets
from simsiam.evaluation.detection.pooling import pool
from simsiam.evaluation.detection.settings import Architecture, Boxes, Selection


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What was found in one image, best first; boxes in pixels of the resized image."""

    boxes: Tensor  # N x 4
    scores: Tensor  # N
    labels: Tensor  # N, from 1
    masks: Tensor | None  # N x side x side, probabilities within the box


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The proposals of one image that are trained on, those that stand for an object first."""

    boxes: Tensor  # R x 4
    objects: Tensor  # P: the object of each of the first P


class RoiHeads(nn.Module):
    """Box head and mask head over the levels of a feature extractor.

    Args:
        describe: what turns pooled boxes into vectors.
        mask_head: None for boxes only.
        strides: of the levels that are pooled from.
        classes: without background.
    """

    def __init__(
        self,
        settings: Architecture,
        *,
        describe: Description,
        mask_head: MaskHead | None,
        strides: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.settings, self.strides = settings, tuple(strides)
        self.describe = describe
        self.predict = BoxPredictor(describe.dims, classes)
        self.mask_head = mask_head

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        truths: Sequence[LearnTarget],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Cross-entropy and L1 per sampled proposal, and the masks' mean binary cross-entropy."""
        how = self.settings.boxes
        sampled = [choose(boxes, truth, how, generator) for boxes, truth in zip(proposals, truths, strict=True)]
        described = self.describe(pool(maps, [each.boxes for each in sampled], self.strides, how.pool))
        scores, deltas = self.predict(described.vectors)
        labels, positive, targets = [], [], []
        for each, truth in zip(sampled, truths, strict=True):
            own = truth.labels[each.objects]
            labels.append(functional.pad(own, (0, len(each.boxes) - len(own))))
            positive.append(torch.arange(len(each.boxes), device=own.device) < len(own))
            targets.append(
                box_maths.encode(truth.boxes[each.objects], each.boxes[: len(own)], deviations=how.deviations)
            )
        label, rows = torch.cat(labels), torch.nonzero(torch.cat(positive)).flatten()
        refined = deltas[rows, label[rows] - 1]
        found = {
            "roi_class": functional.cross_entropy(scores, label),
            "roi_box": (refined - torch.cat(targets)).abs().sum() / len(label) + deltas.sum() * 0,
        }
        if self.mask_head is not None:
            found["mask"] = self._mask_loss(maps, sampled, truths, described.maps, rows, label)
        return found

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        sampled: Sequence[Sampled],
        truths: Sequence[LearnTarget],
        described: Tensor | None,
        rows: Tensor,
        label: Tensor,
    ) -> Tensor:
        assert self.mask_head is not None
        objects = [each.boxes[: len(each.objects)] for each in sampled]
        if not len(rows):  # the head runs all the same: processes that average gradients wait for each other
            objects[0], rows = sampled[0].boxes[:1], rows.new_zeros(1)
            return self._mask_logits(maps, objects, described, rows, torch.ones_like(label[:1])).sum() * 0
        logits = self._mask_logits(maps, objects, described, rows, label[rows])
        targets = []
        for each, boxes, truth in zip(sampled, objects, truths, strict=True):
            assert truth.masks is not None
            targets.append(mask_targets(truth.masks, boxes, each.objects, logits.shape[-1]))
        return functional.binary_cross_entropy_with_logits(logits, torch.cat(targets))

    def _mask_logits(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], described: Tensor | None, rows: Tensor, labels: Tensor
    ) -> Tensor:
        """From the box head's own maps where it has some (C4), else pooled anew."""
        assert self.mask_head is not None
        assert self.settings.masks is not None
        features = pool(maps, boxes, self.strides, self.settings.masks.pool) if described is None else described[rows]
        logits: Tensor = self.mask_head(features, labels)
        return logits

    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Classify and refine the proposals of each image (R_b x 4), and draw the masks of what was found."""
        how = self.settings.boxes
        scores, deltas = self.predict(self.describe(pool(maps, proposals, self.strides, how.pool)).vectors)
        counts = [len(each) for each in proposals]
        found = []
        for boxes, size, score, delta in zip(
            proposals, sizes, scores.softmax(1).split(counts), deltas.split(counts), strict=True
        ):
            refined = box_maths.decode(delta, boxes, size, how.deviations)  # R x classes x 4
            found.append(keep_best(refined, score[:, 1:], self.settings.test))
        return found if self.mask_head is None else self._with_masks(maps, found)

    def _with_masks(self, maps: Sequence[Tensor], found: Sequence[Detections]) -> list[Detections]:
        assert self.mask_head is not None
        boxes = [each.boxes for each in found]
        labels = torch.cat([each.labels for each in found])
        described = None
        if self.describe.map_channels is not None:
            described = self.describe(pool(maps, boxes, self.strides, self.settings.boxes.pool)).maps
        rows = torch.arange(len(labels), device=labels.device)
        masks = self._mask_logits(maps, boxes, described, rows, labels).sigmoid()
        parts = torch.split(masks, [len(each) for each in boxes])
        return [
            Detections(boxes=each.boxes, scores=each.scores, labels=each.labels, masks=part)
            for each, part in zip(found, parts, strict=True)
        ]


def choose(proposals: Tensor, truth: LearnTarget, how: Boxes, generator: torch.Generator) -> Sampled:
    """Assign an image's proposals, add the objects themselves, and sample."""
    assigned = box_maths.assign(proposals, truth.boxes, how.assignment)
    # After the assignment: were they in it, each would be its own best match and no proposal could be.
    own = torch.arange(len(truth.boxes), device=proposals.device)
    boxes, assigned = torch.cat([truth.boxes, proposals]), torch.cat([own, assigned])
    positive, negative = box_maths.sample(assigned, how.sampling, generator)
    return Sampled(boxes=boxes[torch.cat([positive, negative])], objects=assigned[positive])


def keep_best(boxes: Tensor, scores: Tensor, how: Selection) -> Detections:
    """Non-maximum suppression per class, and the best over all classes.

    Args:
        boxes: R x classes x 4.
        scores: R x classes.
    """
    rows, classes = torch.nonzero(scores > how.score, as_tuple=True)
    box, score = boxes[rows, classes], scores[rows, classes]
    best = batched_nms(box, score, classes, how.nms)[: how.detections]
    return Detections(boxes=box[best], scores=score[best], labels=classes[best] + 1, masks=None)
