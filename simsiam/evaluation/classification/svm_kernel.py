"""Inner products of training features, with the constant feature that makes the intercept a regularised weight."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simsiam.engine.distributed import pick_device
from simsiam.evaluation.classification.settings import normalised

MOST_GRAM_ROWS = 20_000  # the Gram matrix in both precisions then takes 4.8 GB


@dataclass(frozen=True, kw_only=True)
class Directions:
    """r combinations of the training rows that are orthonormal weight vectors, along the features' widest spread."""

    combinations: Tensor  # n x r, float32: Q, with Q'KQ = I
    projections: Tensor  # n x r, float32: KQ, the features seen along these directions


class Kernel:
    """K = XX' + 1 for n training features X (n x d), without forming K where it would be larger than X.

    Args:
        features: n x d, float64, on the device to compute on.
        gram: K if it is known already.
    """

    def __init__(self, features: Tensor, *, gram: Tensor | None = None) -> None:
        self._features = torch.cat([features, features.new_ones(len(features), 1)], 1)  # n x (d + 1)
        rows, columns = self._features.shape
        if gram is None and rows <= min(2 * columns, MOST_GRAM_ROWS):
            gram = self._features @ self._features.T
        self.gram = gram  # n x n, or None
        # half the digits at twice the speed, for the inner iterations
        self._fast = (self._features if gram is None else gram).float()
        self._directions: dict[int, Directions] = {}
        self._lock = threading.Lock()  # the solver's threads share a kernel

    def __len__(self) -> int:
        return len(self._features)

    @property
    def device(self) -> torch.device:
        """Where the products are computed."""
        return self._features.device

    def times(self, vectors: Tensor) -> Tensor:
        """K times n x P vectors, in their own precision (float64 or float32)."""
        if self.gram is not None:
            return (self.gram if vectors.dtype == torch.float64 else self._fast) @ vectors
        features = self._features if vectors.dtype == torch.float64 else self._fast
        return features @ (features.T @ vectors)

    def block(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """K among some rows, m x m, in float64 or float32."""
        stored = self._fast if dtype == torch.float32 else self._features if self.gram is None else self.gram
        if self.gram is not None:
            return stored[rows[:, None], rows]
        return stored[rows] @ stored[rows].T

    def weights(self, combinations: Tensor) -> Tensor:
        """The weight vectors (d + 1, intercept last) that n x P combinations of the rows stand for, (d + 1) x P."""
        return self._features.T @ combinations

    def decisions(self, weights: np.ndarray) -> np.ndarray:
        """w'x of every row for weights (d + 1) x P, n x P."""
        values: np.ndarray = (self._features @ torch.from_numpy(weights).to(self.device)).cpu().numpy()
        return values

    def among(self, rows: Tensor) -> Kernel:
        """The kernel of some rows alone."""
        return Kernel(self._features[rows, :-1], gram=self.block(rows, torch.float64))

    def directions(self, count: int) -> Directions:
        """The `count` leading directions, by two rounds of subspace iteration (Halko et al. 2011); kept for later.

        Fewer where there are not so many.
        """
        count = min(count, *self._features.shape)
        with self._lock:
            if count not in self._directions:
                self._directions[count] = self._find_directions(count)
            return self._directions[count]

    def _find_directions(self, count: int) -> Directions:
        width = min(count + 8, len(self))
        start = torch.randn(len(self), width, generator=torch.Generator().manual_seed(0)).to(self.device)
        basis = torch.linalg.qr(self.times(start)).Q
        basis = torch.linalg.qr(self.times(basis)).Q.double()  # n x (r + 8), where n allows
        spread = basis.T @ self.times(basis)
        basis = basis @ torch.linalg.eigh((spread + spread.T) / 2).eigenvectors[:, -count:]  # n x r
        seen = self.times(basis)
        inner = basis.T @ seen  # diagonal up to rounding
        scale = inner.diagonal().clamp_min(1e-10 * inner.diagonal().max()).rsqrt()
        return Directions(
            combinations=(basis * scale).float().contiguous(), projections=(seen * scale).float().contiguous()
        )


def kernel_of(features: np.ndarray, device: str) -> Kernel:
    """The kernel of normalised features."""
    picked = pick_device(device)
    return Kernel(torch.from_numpy(normalised(features)).to("cpu" if picked.type == "mps" else picked))


def decide(features: np.ndarray, weights: np.ndarray, *, rows: int = 4096) -> np.ndarray:
    """Decision values of raw features, m x P, for weights (d + 1) x P with the intercept last; a chunk at a time."""
    chunks = [normalised(features[start : start + rows]) for start in range(0, len(features), rows)]
    values: np.ndarray = np.concatenate([chunk @ weights[:-1] + weights[-1] for chunk in chunks])
    return values
