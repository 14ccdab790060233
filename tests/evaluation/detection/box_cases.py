"""Box sets made on the spot, without files, and random predictions on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from simsiam.data.detection.boxes import BoxImage, BoxSource, Prediction, Target
from simsiam.data.detection.instance_masks import InstanceMasks, encode


class Made(BoxSource):
    """Targets without image files."""

    def __init__(self, targets: list[Target], classes: tuple[str, ...], *, side: int = 100) -> None:
        self.name, self.classes, self.targets, self.side = "made", classes, targets, side
        self.has_masks = any(target.masks is not None for target in targets)

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> BoxImage:
        return BoxImage(id=index, path=f"{index}.jpg", file=Path(f"{index}.jpg"), width=self.side, height=self.side)

    def target(self, index: int) -> Target:
        return self.targets[index]

    def digests(self) -> np.ndarray:
        return np.arange(16 * len(self), dtype=np.uint8).reshape(-1, 16)

    def fingerprint(self) -> str:
        return "made"


def target(
    boxes: list[tuple[float, float, float, float]],
    labels: list[int] | None = None,
    *,
    difficult: list[bool] | None = None,
    crowd: list[bool] | None = None,
    masks: InstanceMasks | None = None,
) -> Target:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(
        boxes=corners,
        labels=torch.tensor(labels if labels is not None else [1] * len(boxes), dtype=torch.int64),
        difficult=torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool),
        crowd=torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        area=(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
        masks=masks,
    )


def found(
    image: int,
    boxes: list[tuple[float, float, float, float]],
    scores: list[float],
    labels: list[int] | None = None,
) -> Prediction:
    return Prediction(
        image=image,
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels if labels is not None else [1] * len(boxes), dtype=torch.int64),
        masks=None,
    )


def ellipses(boxes: Tensor, side: int) -> np.ndarray:
    """N x side x side bool: the ellipse within each box."""
    grid = np.arange(side) + 0.5
    x1, y1, x2, y2 = boxes.double().numpy().T[:, :, None, None]
    across = (grid[None, None, :] - (x1 + x2) / 2) / np.maximum((x2 - x1) / 2, 1e-9)
    down = (grid[None, :, None] - (y1 + y2) / 2) / np.maximum((y2 - y1) / 2, 1e-9)
    return across**2 + down**2 <= 1


def random_case(
    seed: int, *, images: int = 12, classes: int = 4, side: int = 160, flag: str = "crowd"
) -> tuple[Made, list[Prediction]]:
    """Objects of all sizes, some of them flagged; predictions near them, doubled, of wrong classes, and at random."""
    random = np.random.default_rng(seed)
    targets, predictions = [], []
    for image in range(images):
        count = int(random.integers(0, 9))
        boxes = _boxes(random, count, side)
        flags = random.random(count) < 0.15
        labels = random.integers(1, classes, count)  # the last class stays empty
        shapes = encode(ellipses(torch.from_numpy(boxes), side)) if count else ()
        one = target(
            [tuple(box) for box in boxes.tolist()],
            labels.tolist(),
            masks=InstanceMasks(height=side, width=side, shapes=shapes),
            **{flag: flags.tolist()},
        )
        pixels = [float(shape.decode().sum()) for shape in shapes]  # as COCO has it: not the box's area
        targets.append(replace(one, area=torch.tensor(pixels)))
        near = np.repeat(boxes, 2, 0) + random.normal(0, 4, (2 * count, 4)).astype(np.float32)
        loose = np.concatenate([near, _boxes(random, 3, side)]).clip(0, side)
        guessed = np.concatenate([np.repeat(labels, 2), random.integers(1, classes + 1, 3)])
        wrong = random.random(len(guessed)) < 0.15
        guessed[wrong] = random.integers(1, classes + 1, wrong.sum())
        kept = (loose[:, 2:] > loose[:, :2] + 1).all(1)
        corners = torch.from_numpy(loose[kept].astype(np.float32))
        predictions.append(
            Prediction(
                image=image,
                boxes=corners,
                scores=torch.from_numpy(random.permutation(len(guessed))[kept] / 100 + random.random() / 1000).float(),
                labels=torch.from_numpy(guessed[kept]),
                masks=encode(ellipses(corners, side)),
            )
        )
    return Made(targets, tuple(f"class{number}" for number in range(1, classes + 1)), side=side), predictions


def _boxes(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    sizes = np.exp(random.uniform(np.log(8), np.log(side * 0.9), (count, 2)))
    corner = random.random((count, 2)) * (side - sizes)
    return np.concatenate([corner, corner + sizes], 1).astype(np.float32)
