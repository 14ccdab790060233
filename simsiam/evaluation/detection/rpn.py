"""The region proposal network: where in the image something may be (Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from simsiam.data.detection.boxes import LearnTarget
from simsiam.evaluation.detection import boxes as box_maths
from simsiam.evaluation.detection.anchors import cell_anchors, grid_anchors, trainable
from simsiam.evaluation.detection.settings import Proposals, Rpn

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
            logits, best = level.logits[image].topk(min(counts.before_nms, level.logits.shape[1]))
            found.append(box_maths.decode(level.deltas[image, best], level.anchors[best], size))
            scores.append(logits.sigmoid())
            numbers.append(torch.full_like(best, number))
        boxes, score, number_of = torch.cat(found), torch.cat(scores), torch.cat(numbers)
        whole = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)  # clipping leaves nothing of a box outside the image
        boxes, score, number_of = boxes[whole], score[whole], number_of[whole]
        return boxes[batched_nms(boxes, score, number_of, self.settings.nms)[: counts.kept]]

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
