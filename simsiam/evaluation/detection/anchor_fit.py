"""Whether the anchors suit the objects of a set: a detector hardly learns what no anchor comes close to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from simsiam.backbones import Backbone, ResNet
from simsiam.data.detection.boxes import BoxSource
from simsiam.data.detection.transforms import BoxTransform
from simsiam.evaluation.detection.boxes import cell_anchors
from simsiam.evaluation.detection.detector import residual_strides
from simsiam.evaluation.detection.settings import Architecture

CLOSE = 0.5  # of the best overlap (IoU) that an anchor can have with an object, centre upon centre
TOO_MANY = 0.25  # of the objects without a close anchor: said
FEW = 0.05  # of the objects without one: the scales stay as they are
MOST_IMAGES = 2000  # that are looked at, spread over the set
MULTIPLES = tuple(2 ** (half / 2) for half in range(-8, 9))  # of the scales, tried for a better fit


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """How a set's objects lie to the anchors, and the scales that would suit them better."""

    missed: float  # fraction of the objects that no anchor is close to
    smallest: float  # pixels, side of the smallest anchor
    largest: float
    better_scales: tuple[float, ...]
    better_missed: float  # with these scales

    @property
    def chosen(self) -> tuple[float, ...] | None:
        """The scales that a recipe for one's own data takes in place of its own; None: it keeps them.

        They are changed where over a twentieth of the objects lie far from all anchors and others leave half as many.
        """
        return self.better_scales if self.missed > FEW and self.better_missed <= self.missed / 2 else None

    @property
    def remark(self) -> str | None:
        """A sentence with the cure where many objects are missed and other scales are better; else None."""
        if self.missed <= TOO_MANY or self.better_missed > self.missed / 2:
            return None
        scales = " ".join(f"{scale:.3g}" for scale in self.better_scales)
        return (
            f"no anchor comes close to {100 * self.missed:.0f} % of the objects at the size that images are tested in "
            f"(anchors of {self.smallest:.3g} to {self.largest:.3g} pixels): they will hardly be learnt. "
            f"`--architecture.rpn.scales {scales}` would leave {100 * self.better_missed:.0f} %."
        )


def anchor_fit(
    source: BoxSource, images: BoxTransform, architecture: Architecture, backbone: Backbone
) -> AnchorFit | None:
    """Compare the ordinary objects of a set with the anchors of every level; None where there is nothing to compare."""
    sides = object_sides(source, images)
    if not len(sides) or not isinstance(backbone, ResNet):
        return None
    strides = residual_strides(backbone)
    strides = (strides[-2],) if architecture.features == "c4" else (*strides, strides[-1] * 2)
    rpn = architecture.rpn

    def missed(scales: Sequence[float]) -> float:
        return float((best_overlaps(sides, strides, scales, rpn.ratios) < CLOSE).double().mean())

    tried = [tuple(float(f"{scale * multiple:.3g}") for scale in rpn.scales) for multiple in MULTIPLES]
    better = min(tried, key=lambda scales: (missed(scales), abs(math.log(scales[0] / rpn.scales[0]))))
    return AnchorFit(
        missed=missed(rpn.scales),
        smallest=min(rpn.scales) * min(strides),
        largest=max(rpn.scales) * max(strides),
        better_scales=better,
        better_missed=missed(better),
    )


def best_overlaps(sides: Tensor, strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """IoU of each object (N x 2, width and height) with the anchor most like it, both around one centre: N."""
    anchors = torch.cat([cell_anchors(stride, scales, ratios) for stride in strides])  # around (0, 0)
    return box_iou(torch.cat([-sides / 2, sides / 2], dim=1), anchors).amax(1)


def object_sides(source: BoxSource, images: BoxTransform) -> Tensor:
    """Width and height of the ordinary objects in pixels of the network's images: N x 2 float32.

    Images whose annotation does not tell their size are passed over.
    """
    step = max(1, math.ceil(len(source) / MOST_IMAGES))
    found = [torch.zeros(0, 2)]
    for index in range(0, len(source), step):
        image = source.image(index)
        if not image.width or not image.height:
            continue
        target = source.target(index)
        width, _ = images.scaled_size(image.width, image.height, images.short_sides[0])
        boxes = target.boxes[target.ordinary]
        found.append((boxes[:, 2:] - boxes[:, :2]) * (width / image.width))
    return torch.cat(found)
