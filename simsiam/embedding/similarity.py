"""Search among vectors that fit in memory: one matrix product a query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simsiam.embedding.vectors import unit_rows
from simsiam.errors import UserError
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.embedding.vectors import Embedded

SAMPLE_PAIRS = 20_000


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image that was found."""

    row: int
    similarity: float  # cosine, -1 to 1


@dataclass(frozen=True, kw_only=True)
class Background:
    """How alike two images of the set are that were picked at random: what a similarity must be judged against."""

    median: float
    high: float  # the value that 99.9 % of such pairs stay below


class Index:
    """Unit vectors of a set, N x C float32 in memory (100,000 images of a ResNet-50: 0.8 GB)."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    @staticmethod
    def of(embedded: Embedded) -> Index:
        """The index of an embedded source; raises UserError on a NaN, or if the vectors do not fit in memory."""
        try:
            rows = np.empty((len(embedded), embedded.channels), np.float32)
        except MemoryError as error:
            size = len(embedded) * embedded.channels * 4 / 1e9
            raise UserError(
                f"{counted(len(embedded), 'vector')} take {size:.1f} GB of memory. Take fewer images."
            ) from error
        start = 0
        for block in embedded.blocks():
            rows[start : start + len(block)] = unit_rows(block)
            start += len(block)
        return Index(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, vector: np.ndarray, k: int, *, leave_out: int | None = None) -> list[Hit]:
        """The k most similar images, best first; the earlier row first where two are equal.

        Args:
            vector: C, of any length.
            k: as many as there are, where they are fewer.
            leave_out: a row that shall not be found, for an image of the set that asks for its neighbours.
        """
        if vector.shape != self.rows.shape[1:]:
            raise UserError(f"a query of {counted(vector.shape[0], 'number')} among vectors of {self.rows.shape[1]}.")
        similarity = self.rows @ unit_rows(vector[None])[0]
        if leave_out is not None:
            similarity[leave_out] = -np.inf
        k = min(k, len(self.rows) - (leave_out is not None))
        if k < 1:
            return []
        best = np.argpartition(-similarity, k - 1)[:k]
        order = best[np.lexsort((best, -similarity[best]))]
        return [Hit(row=int(row), similarity=float(similarity[row])) for row in order]

    def background(self, *, seed: int = 0) -> Background:
        """Similarities of pairs drawn at random; raises UserError for a set of fewer than two images."""
        if len(self) < 2:
            raise UserError("one image has no neighbours. Name a set of two or more.")
        random = np.random.default_rng(seed)
        one = random.integers(0, len(self), SAMPLE_PAIRS)
        other = (one + random.integers(1, len(self), SAMPLE_PAIRS)) % len(self)
        drawn = np.concatenate([_products(self.rows, one[at], other[at]) for at in _slices(SAMPLE_PAIRS, 2048)])
        median, high = np.quantile(drawn, [0.5, 0.999])
        return Background(median=float(median), high=float(high))


def _products(rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("nc,nc->n", rows[one], rows[other])
    return products


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, total, step))
