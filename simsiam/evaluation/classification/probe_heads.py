"""Many linear classifiers trained at once on the same features: one matrix product for all rates of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simsiam.engine import optimizers

Matrix = np.ndarray[Any, Any]

IN_MEMORY = 4 * 2**30  # bytes of features that are moved to the device whole; more are read batch by batch


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one classifier of the sweep is trained with."""

    lr: float
    weight_decay: float


class Features:
    """Copies of a feature matrix with labels.

    Args:
        copies: each N x F, memory-mapped; the same image in the same row of each.
        labels: N.
        rows: N bool, which images to use.
    """

    def __init__(
        self,
        copies: Sequence[Matrix],
        labels: np.ndarray[Any, Any],
        device: torch.device,
        *,
        rows: np.ndarray[Any, Any],
    ) -> None:
        self._device = device
        self.rows = np.flatnonzero(rows)
        self.labels = torch.from_numpy(labels[self.rows]).to(device)
        self.width = copies[0].shape[1]
        self._tables: Sequence[Matrix] | Tensor = copies
        if sum(table.nbytes for table in copies) <= IN_MEMORY:
            self._tables = torch.stack([torch.from_numpy(table[self.rows]) for table in copies]).to(device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def copies(self) -> int:
        """How many augmented copies there are."""
        return len(self._tables)

    def batch(self, chosen: Tensor, copy: Tensor) -> Tensor:
        """Features of the chosen images (B, counted among the rows in use), each from its own copy: B x F float32."""
        if isinstance(self._tables, Tensor):
            return self._tables[copy, chosen].float()
        rows = self.rows[chosen.cpu().numpy()]
        table = np.empty((len(rows), self.width), np.float32)
        for number, source in enumerate(self._tables):
            mine = np.flatnonzero(copy.cpu().numpy() == number)
            table[mine] = source[rows[mine]]
        return torch.from_numpy(table).to(self._device)


class HeadStack:
    """L linear classifiers with momentum SGD, each with its own rate and weight decay.

    The gradient of softmax cross-entropy is written out, so that one step is two matrix products for all L.
    """

    def __init__(
        self, settings: Sequence[Setting], *, classes: int, width: int, momentum: float, seed: int, device: torch.device
    ) -> None:
        self.settings = list(settings)
        count = len(self.settings)
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(classes, width, generator=generator) * 0.01
        self.weight = start.to(device).repeat(count, 1, 1)  # L x C x F
        self.bias = torch.zeros(count, classes, device=device)
        self._weight_speed = torch.zeros_like(self.weight)
        self._bias_speed = torch.zeros_like(self.bias)
        self._momentum = momentum
        self._rates = torch.tensor([s.lr for s in self.settings], device=device)
        self._decays = torch.tensor([s.weight_decay for s in self.settings], device=device)

    def scores(self, features: Tensor) -> Tensor:
        """B x F -> B x L x C."""
        count, classes, width = self.weight.shape
        product = features @ self.weight.view(count * classes, width).T
        return product.view(-1, count, classes) + self.bias

    def step(self, features: Tensor, labels: Tensor, factor: float) -> None:
        """One step of all heads on a batch, at `factor` times their initial rates."""
        count, classes, width = self.weight.shape
        slope = self.scores(features).softmax(2)  # B x L x C
        slope[torch.arange(len(labels), device=labels.device), :, labels] -= 1
        slope /= len(labels)
        gradient = (slope.view(-1, count * classes).T @ features).view(count, classes, width)
        gradient += self._decays[:, None, None] * self.weight
        self._weight_speed.mul_(self._momentum).add_(gradient)
        self._bias_speed.mul_(self._momentum).add_(slope.sum(0) + self._decays[:, None] * self.bias)
        self.weight -= (factor * self._rates)[:, None, None] * self._weight_speed
        self.bias -= (factor * self._rates)[:, None] * self._bias_speed

    @torch.no_grad()
    def train(self, features: Features, *, epochs: int, batch_size: int, seed: int) -> None:
        """Train on shuffled batches with half a cosine per step; image i shows copy (i + epoch) mod K."""
        steps = -(-len(features) // batch_size)
        for epoch in range(epochs):
            order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(features)))
            order = order.to(features.labels.device)
            for step, chosen in enumerate(torch.split(order, batch_size)):
                factor = optimizers.cosine(epoch + step / steps, epochs)
                copy = (chosen + epoch) % features.copies
                self.step(features.batch(chosen, copy), features.labels[chosen], factor)
