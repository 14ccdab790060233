"""What a detector is made of, as records of the recipe (no torch here, so that recipes print at once)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which object an anchor or a proposal stands for, by the overlap (IoU) of the two boxes."""

    positive: float  # from here on it stands for the object that it overlaps most
    negative: float  # below, it is background; between the two it takes no part
    low_quality: Literal["on", "off"]  # on: the boxes that overlap an object most stand for it in any case ...
    lowest: float  # ... from this overlap on


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How many of an image's anchors or proposals are trained on."""

    count: int  # an image
    positive_fraction: float  # at most; background fills up


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """How many proposals come out of the region proposal network."""

    before_nms: int  # the best of each level
    kept: int  # an image


@dataclass(frozen=True, kw_only=True)
class Rpn:
    """The region proposal network (Ren et al. 2015)."""

    channels: int  # of its 3x3 convolution; 0: as many as the map has
    scales: tuple[float, ...]  # an anchor's side in strides of its level
    ratios: tuple[float, ...]  # height / width
    assignment: Assignment
    sampling: Sampling
    border: Literal["inside", "any"]  # inside: anchors that cross the image's border do not train
    train: Proposals
    test: Proposals
    nms: float


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The head that classifies proposals and refines their boxes."""

    head: Literal["res5", "4conv1fc"]  # res5: the backbone's last stage; else four convolutions, one linear layer
    channels: int  # of the four convolutions
    hidden: int  # of the linear layer
    pool: int  # side of RoIAlign's output
    assignment: Assignment
    sampling: Sampling
    deviations: tuple[float, float, float, float]  # box targets are divided by these: x, y, width, height


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The mask head (He et al. 2017)."""

    convs: int  # 3x3 convolutions before the upsampling; 0 in the C4 form, which takes res5's output
    channels: int
    pool: int  # side of RoIAlign's output
    threshold: float  # of a mask's probability


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What counts as a detection."""

    score: float  # at least
    nms: float  # per class
    detections: int  # an image, at most


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
