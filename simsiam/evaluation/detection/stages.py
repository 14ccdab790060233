"""The two stages: where something may be (Ren et al. 2015), and what it is (Girshick 2015; He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.data.detection.boxes import LearnTarget
from simsiam.evaluation.detection import boxes as box_maths
from simsiam.evaluation.detection.boxes import cell_anchors, grid_anchors, trainable
from simsiam.evaluation.detection.heads import BoxPredictor, Description, MaskHead, mask_targets, pool
from simsiam.evaluation.detection.settings import Architecture, Boxes, Proposals, Rpn, Selection

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True, kw_only=True)
class Level:
    """The network's answer on one feature map of H x W with A anchors a position; N = H x W x A."""

    logits: Tensor  # B x N
    deltas: Tensor  # B x N x 4
    anchors: Tensor  # N x 4
    grid: tuple[int, int, int]  # H, W, stride


class RegionProposals(nn.Module):
    """One 3x3 convolution and two 1x1 ones, shared by all levels.

    Args:
        channels: of the feature maps.
        strides: of each level, in pixels.
    """

    def __init__(self, settings: Rpn, *, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.settings, self.strides = settings, tuple(strides)
        anchors = len(settings.scales) * len(settings.ratios)
        hidden = settings.channels or channels
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, anchors, 1)
        self.deltas = nn.Conv2d(hidden, anchors * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Level]:
        """Score and refine every anchor of every level (each map B x C x H x W)."""
        levels = []
        for features, stride in zip(maps, self.strides, strict=True):
            hidden = functional.relu(self.conv(features))
            batch, _, height, width = hidden.shape
            cell = cell_anchors(stride, self.settings.scales, self.settings.ratios).to(hidden.device)
            levels.append(
                Level(
                    logits=self.objectness(hidden).permute(0, 2, 3, 1).reshape(batch, -1).float(),
                    deltas=self.deltas(hidden).permute(0, 2, 3, 1).reshape(batch, -1, 4).float(),
                    anchors=grid_anchors(cell, height, width, stride),
                    grid=(height, width, stride),
                )
            )
        return levels

    @torch.no_grad()
    def propose(self, levels: Sequence[Level], sizes: Sequence[Size], counts: Proposals) -> list[Tensor]:
        """The best boxes of each image, best first: at most `counts.kept` x 4 each."""
        return [self._propose(levels, image, size, counts) for image, size in enumerate(sizes)]

    def _propose(self, levels: Sequence[Level], image: int, size: Size, counts: Proposals) -> Tensor:
        found, scores, numbers = [], [], []
        for number, level in enumerate(levels):
            logits, best = level.logits[image].topk(torch.sym_min(counts.before_nms, level.logits.shape[1]))
            found.append(box_maths.decode(level.deltas[image, best], level.anchors[best], size))
            scores.append(logits.sigmoid())
            numbers.append(torch.full_like(best, number))
        boxes, score, number_of = torch.cat(found), torch.cat(scores), torch.cat(numbers)
        whole = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)  # clipping leaves nothing of a box outside the image
        boxes, score, number_of = boxes[whole], score[whole], number_of[whole]
        return boxes[box_maths.best_apart(boxes, score, number_of, self.settings.nms)[: counts.kept]]

    def losses(
        self, levels: Sequence[Level], sizes: Sequence[Size], truths: Sequence[LearnTarget], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Cross-entropy of the sampled anchors and L1 of the positive ones' deltas, both per sampled anchor."""
        logits = torch.cat([level.logits for level in levels], 1)
        deltas = torch.cat([level.deltas for level in levels], 1)
        anchors = torch.cat([level.anchors for level in levels])
        entropy, distance = logits.sum() * 0, deltas.sum() * 0  # no anchor may be left out of the graph: DDP waits
        count = 0
        for image, (size, truth) in enumerate(zip(sizes, truths, strict=True)):
            usable = [trainable(level.anchors, size, level.grid, self.settings.border) for level in levels]
            inside = torch.nonzero(torch.cat(usable)).flatten()
            assigned = box_maths.assign(anchors[inside], truth.boxes, self.settings.assignment)
            positive, negative = box_maths.sample(assigned, self.settings.sampling, generator)
            chosen = torch.cat([inside[positive], inside[negative]])
            wanted = (torch.arange(len(chosen), device=logits.device) < len(positive)).float()
            entropy = entropy + functional.binary_cross_entropy_with_logits(
                logits[image, chosen], wanted, reduction="sum"
            )
            if len(positive):
                target = box_maths.encode(truth.boxes[assigned[positive]], anchors[inside[positive]])
                distance = distance + (deltas[image, inside[positive]] - target).abs().sum()
            count += max(len(positive), 1) + max(len(negative), 1)  # as published, an empty side counts as one
        return {"rpn_objectness": entropy / count, "rpn_box": distance / count}


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
        counts = [each.shape[0] for each in proposals]
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
        rows = torch.arange(labels.shape[0], device=labels.device)
        masks = self._mask_logits(maps, boxes, described, rows, labels).sigmoid()
        parts = torch.split(masks, [each.shape[0] for each in boxes])
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
    best = box_maths.best_apart(box, score, classes, how.nms)[: how.detections]
    return Detections(boxes=box[best], scores=score[best], labels=classes[best] + 1, masks=None)
