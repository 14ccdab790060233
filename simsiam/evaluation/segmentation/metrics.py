"""Counts of pixels by true and predicted class, and the figures that are made of them."""

from __future__ import annotations

import torch
from torch import Tensor

from simsiam.engine.distributed import sum_over_processes


class PixelCounts:
    """A confusion matrix that images are added to one by one; nothing else is kept of them."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)  # true x predicted

    def add(self, predicted: Tensor, mask: Tensor) -> None:
        """Count an image: two int64 tensors of one shape; pixels whose mask is no class (255) are left out."""
        scored = (mask >= 0) & (mask < self.classes)
        pairs = mask[scored] * self.classes + predicted[scored]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def total(self) -> None:
        """Add up the counts of all processes; every process must call it."""
        self.counts = sum_over_processes(self.counts)

    @property
    def iou(self) -> list[float]:
        """Intersection over union of each class, percent; nan for a class that no pixel has and none was given."""
        counts = self.counts.double().cpu()
        hits = counts.diagonal()
        return _percent(hits, counts.sum(0) + counts.sum(1) - hits)

    @property
    def accuracy(self) -> list[float]:
        """The share of each class's pixels that were given it, percent; nan for a class without pixels."""
        counts = self.counts.double().cpu()
        return _percent(counts.diagonal(), counts.sum(1))

    def figures(self) -> dict[str, float]:
        """miou, pixel_accuracy and mean_accuracy, percent; means are over the classes that are no nan."""
        counts = self.counts.double()
        return {
            "miou": mean(self.iou),
            "pixel_accuracy": float(100 * counts.diagonal().sum() / counts.sum()),
            "mean_accuracy": mean(self.accuracy),
        }


def mean(values: list[float]) -> float:
    """The mean of those that are no nan; nan where none is left."""
    kept = [value for value in values if value == value]
    return sum(kept) / len(kept) if kept else float("nan")


def _percent(part: Tensor, whole: Tensor) -> list[float]:
    shares: list[float] = (100 * part / whole).tolist()  # 0 / 0 is nan
    return shares
