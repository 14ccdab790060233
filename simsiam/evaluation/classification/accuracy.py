"""Counting correct classifications over batches and processes: top-1, top-5, per class, confusion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simsiam.engine.distributed import sum_over_processes

MAX_CONFUSION = 100  # classes; beyond, the matrix is left out of the result


class AccuracyMeter:
    """Counts of one classifier over a test set; every process adds its own images and `total` joins them.

    Args:
        classes: C; top-5 is counted where C > 5.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self._shown = torch.zeros(classes, dtype=torch.int64, device=device)
        self._top1 = torch.zeros(classes, dtype=torch.int64, device=device)
        self._top5 = torch.zeros(classes, dtype=torch.int64, device=device)
        side = classes if classes <= MAX_CONFUSION else 0
        self._confusion = torch.zeros(side, side, dtype=torch.int64, device=device)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count scores (B x C) against labels (B)."""
        best = scores.topk(min(5, self.classes), dim=1).indices  # B x 5
        hits = best == labels[:, None]
        self._shown += torch.bincount(labels, minlength=self.classes)
        self._top1 += torch.bincount(labels[hits[:, 0]], minlength=self.classes)
        self._top5 += torch.bincount(labels[hits.any(1)], minlength=self.classes)
        if self._confusion.numel():
            cells = torch.bincount(labels * self.classes + best[:, 0], minlength=self.classes**2)
            self._confusion += cells.view(self.classes, self.classes)

    def total(self) -> None:
        """Add the counts of all processes; call it once, in every process."""
        for name in ("_shown", "_top1", "_top5", "_confusion"):
            setattr(self, name, sum_over_processes(getattr(self, name)))

    @property
    def images(self) -> int:
        """How many images were counted."""
        return int(self._shown.sum())

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * int(self._top1.sum()) / max(1, self.images)

    @property
    def top5(self) -> float | None:
        """Percent; None where there are five classes or fewer."""
        return 100 * int(self._top5.sum()) / max(1, self.images) if self.classes > 5 else None

    def detail(self, names: tuple[str, ...] | None) -> dict[str, Any]:
        """Per-class top-1 (percent; None for a class that was never shown) and the confusion matrix (rows: truth)."""
        classes = list(names) if names is not None else [str(number) for number in range(self.classes)]
        shown, right = self._shown.tolist(), self._top1.tolist()
        per_class = {name: 100 * r / s if s else None for name, r, s in zip(classes, right, shown, strict=True)}
        detail: dict[str, Any] = {"per_class": per_class, "test_images": self.images}
        if self._confusion.numel():
            detail |= {"classes": classes, "confusion": self._confusion.tolist()}
        return detail
