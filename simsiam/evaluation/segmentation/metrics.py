"""What a score needs: windows over a large image, and counts of pixels by true and predicted class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from simsiam.engine.distributed import sum_over_processes


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of an image."""

    top: int
    left: int
    bottom: int
    right: int


def windows(height: int, width: int, *, crop: int, stride: int) -> list[Window]:
    """Windows of crop x crop every `stride` pixels; the last of each row and column is moved back to the edge.

    An image that is smaller than the crop has one window of its own size.
    """
    return [
        Window(top=top, left=left, bottom=min(top + crop, height), right=min(left + crop, width))
        for top in _starts(height, crop, stride)
        for left in _starts(width, crop, stride)
    ]


def slide(image: Tensor, score: Callable[[Tensor], Tensor], *, crop: int, stride: int, batch: int = 4) -> Tensor:
    """The mean scores of an image, 1 x 3 x H x W -> 1 x C x H x W.

    Args:
        score: B x 3 x h x w -> B x C x h x w, at the same size.
        batch: windows that are scored at once.
    """
    height, width = image.shape[-2:]
    places = windows(height, width, crop=crop, stride=stride)
    total, count = None, image.new_zeros(1, 1, height, width)
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        scores = score(torch.cat([image[..., at.top : at.bottom, at.left : at.right] for at in some]))
        if total is None:
            total = scores.new_zeros(1, scores.shape[1], height, width)
        for at, row in zip(some, scores, strict=True):
            total[0, :, at.top : at.bottom, at.left : at.right] += row
            count[..., at.top : at.bottom, at.left : at.right] += 1
    assert total is not None
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    last = max(length - crop, 0)
    return [min(start, last) for start in range(0, last + stride, stride)]


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
