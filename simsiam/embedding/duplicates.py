"""Images that show the same thing: groups by the cosine of their vectors, and which of them are the very same file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simsiam.errors import UserError

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
        progress: told the share that is done, from 0 to 1.

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
