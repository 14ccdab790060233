"""Detectors of the published form on narrow networks, and batches of noise to run them on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from simsiam.backbones import ResNet, build_backbone
from simsiam.config import Stem
from simsiam.data.detection.boxes import LearnTarget
from simsiam.evaluation.detection.detector import Detector, build_detector
from simsiam.evaluation.detection.settings import Architecture, Proposals, Sampling
from simsiam.recipes import detection as recipes

CLASSES = 3


def narrow(architecture: Architecture) -> Architecture:
    """The same detector with few channels, proposals and samples; `replace` leaves every rule as published."""
    few = Proposals(before_nms=60, kept=30)
    fpn = architecture.features == "fpn"
    return replace(
        architecture,
        pyramid_channels=16 if fpn else 0,
        rpn=replace(architecture.rpn, channels=16 if fpn else 0, train=few, test=few),
        boxes=replace(
            architecture.boxes,
            channels=8 if fpn else 0,
            hidden=16 if fpn else 0,
            sampling=Sampling(count=16, positive_fraction=0.25),
        ),
        masks=replace(architecture.masks, channels=8) if architecture.masks is not None else None,
    )


def backbone(name: str = "resnet18", *, width: int = 8, stem: Stem = "imagenet") -> ResNet:
    network = build_backbone(name, width=width, stem=stem)
    assert isinstance(network, ResNet)
    return network


def architecture(kind: str) -> Architecture:
    return {
        "c4": recipes.c4(None),
        "c4 masks": recipes.c4(recipes.C4_MASKS),
        "fpn": recipes.fpn(None),
        "fpn masks": recipes.fpn(recipes.FPN_MASKS),
    }[kind]


def detector(kind: str, network: ResNet | None = None) -> Detector:
    torch.manual_seed(0)
    return build_detector(narrow(architecture(kind)), network or backbone(), CLASSES)


def batch(
    *, objects: tuple[int, ...] = (2, 1), side: int = 96, seed: int = 0
) -> tuple[Tensor, list[tuple[int, int]], list[LearnTarget]]:
    """Images, their sizes, and rectangles as objects with their masks."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(side - 7 * n, side - 11 * n) for n in range(len(objects))]
    images = torch.zeros(len(objects), 3, side, side)
    targets = []
    for number, ((height, width), count) in enumerate(zip(sizes, objects, strict=True)):
        images[number, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        corner = torch.rand(count, 2, generator=generator) * 20
        boxes = torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator) * 30], 1)
        masks = torch.zeros(count, height, width, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        labels = torch.arange(count) % CLASSES + 1
        targets.append(LearnTarget(boxes=boxes, labels=labels, masks=masks))
    return images, sizes, targets


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
