"""Vectors that fit in memory compared with each other: search, groups of near duplicates, and a map of them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from simsiam.embedding.vectors import unit_rows
from simsiam.errors import UserError
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.embedding.vectors import Embedded

SAMPLE_PAIRS = 20_000
COMPONENTS = 50  # that t-SNE starts from
Method = Literal["pca", "tsne"]  # of bringing vectors onto a plane


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
        pieces = (slice(start, start + 2048) for start in range(0, SAMPLE_PAIRS, 2048))
        drawn = np.concatenate([np.einsum("nc,nc->n", self.rows[one[at]], self.rows[other[at]]) for at in pieces])
        median, high = np.quantile(drawn, [0.5, 0.999])
        return Background(median=float(median), high=float(high))


BLOCK, CHUNK = 256, 16_384  # rows against rows at a time: 16 MiB of similarities
ROUNDING = 1e-5  # what batching may take off the cosine of two equal images


@dataclass(frozen=True, kw_only=True)
class Member:
    """One image of a group."""

    row: int
    similarity: float  # to the group's first image
    same_as: int | None  # the first row of the group with exactly the same content, where there is an earlier one


@dataclass(frozen=True, kw_only=True)
class Group:
    """An image, and those that are at least as similar to it as the threshold."""

    members: tuple[Member, ...]

    @property
    def copies(self) -> int:
        """Members that an earlier one equals exactly."""
        return sum(member.same_as is not None for member in self.members)


def near_duplicates(
    rows: np.ndarray,
    *,
    threshold: float,
    digests: np.ndarray,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Group]:
    """Groups of two or more images, the largest first.

    The images are gone through in order. One that is in no group yet opens a group and takes in every later image that
    is in none and whose cosine to it reaches the threshold; so groups do not chain, and each image is in one at most.
    All pairs are compared, N x N / 2 products in blocks.

    Args:
        rows: N x C float32 of length 1.
        threshold: cosine, above 0 and at most 1.
        digests: of the content of each row's image, N x 16 uint8.
        progress: called with the share that is done, 0 to 1.

    Raises UserError for a threshold that makes no sense.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold {threshold:g}: a cosine above 0 and at most 1; 0.95 is a usual start.")
    taken = np.zeros(len(rows), bool)
    groups = []
    for start in range(0, len(rows), BLOCK):
        alike = _alike(rows, start, threshold - ROUNDING)  # b x N
        for place in np.flatnonzero(alike.any(1)).tolist():
            row = start + place
            if taken[row]:
                continue
            others = np.flatnonzero(alike[place] & ~taken)
            if len(others):
                taken[others] = True
                groups.append(_group(rows, np.array([row, *others]), digests))
        progress(_share(min(start + BLOCK, len(rows)), len(rows)))
    return sorted(groups, key=lambda group: (-len(group.members), group.members[0].row))


def _alike(rows: np.ndarray, start: int, threshold: float) -> np.ndarray:
    """Which later rows (N) each row of the block at `start` (b) is similar to."""
    block = rows[start : start + BLOCK]
    alike = np.zeros((len(block), len(rows)), bool)
    for at in range(start, len(rows), CHUNK):
        np.greater_equal(block @ rows[at : at + CHUNK].T, threshold, out=alike[:, at : at + CHUNK])
    return np.triu(alike, start + 1)


def _share(done: int, total: int) -> float:
    """Of the pairs, once the first `done` rows have met all later ones."""
    return 1 - ((total - done) / total) ** 2


def _group(rows: np.ndarray, run: np.ndarray, digests: np.ndarray) -> Group:
    similarity = rows[run] @ rows[run[0]]
    seen: defaultdict[bytes, list[int]] = defaultdict(list)
    members = []
    for row, alike in zip(run.tolist(), similarity.tolist(), strict=True):
        same = seen[digests[row].tobytes()]
        members.append(Member(row=row, similarity=min(alike, 1.0), same_as=same[0] if same else None))
        same.append(row)
    return Group(members=tuple(members))


def plane(rows: np.ndarray, method: Method, *, seed: int = 0) -> np.ndarray:
    """N x C as N x 2 between 0 and 1, the longer side filling the range; the same for the same rows and seed.

    pca: the two directions of largest variance. t-SNE: neighbours stay neighbours (van der Maaten and Hinton 2008),
    distances between far points mean nothing.
    """
    if len(rows) < 3 or float(np.ptp(rows, axis=0).max()) < 1e-9:
        return np.linspace(0.25, 0.75, max(len(rows), 1))[: len(rows), None].repeat(2, 1)
    from sklearn.decomposition import PCA

    components = min(2 if method == "pca" else COMPONENTS, *rows.shape)
    points = PCA(components, random_state=seed, svd_solver="randomized").fit_transform(rows)
    if method == "tsne":
        from sklearn.manifold import TSNE

        points = TSNE(2, perplexity=perplexity(len(rows)), init="pca", random_state=seed).fit_transform(points)
    if points.shape[1] == 1:
        points = points.repeat(2, 1)
    points = points - points.min(0)
    extent = points.max(0)
    scaled: np.ndarray = (points + (extent.max() - extent) / 2) / max(float(extent.max()), 1e-12)
    return scaled


def perplexity(points: int) -> float:
    """How many neighbours of a point t-SNE heeds."""
    return min(30.0, (points - 1) / 3)
