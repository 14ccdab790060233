"""Learning-rate schedules: pure functions from a position in the run to a factor of the initial rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]  # position in epochs (or iterations) -> factor in [0, 1]


def cosine(position: float, total: float) -> float:
    """Half a cosine from 1 to 0 (paper, section 3: "cosine decay schedule")."""
    return 0.5 * (1.0 + math.cos(math.pi * min(position, total) / total))


def warmup_cosine(position: float, total: float, warmup: float) -> float:
    """A linear rise over `warmup`, then half a cosine over the rest."""
    if position < warmup:
        return (position + 1.0) / (warmup + 1.0)
    return cosine(position - warmup, total - warmup)


def steps(position: float, milestones: Sequence[float], gamma: float = 0.1) -> float:
    """The factor gamma for every milestone that is reached."""
    return float(gamma ** sum(position >= milestone for milestone in milestones))


def linear_warmup(iteration: int, length: int, ratio: float) -> float:
    """From `ratio` to 1 over `length` iterations (detection: 0.001 over 100 or 1000)."""
    return 1.0 if iteration >= length else 1.0 - (1.0 - iteration / length) * (1.0 - ratio)


def polynomial(position: float, total: float, power: float, floor: float) -> float:
    """(1 - t)^power from 1 down to the fraction `floor` of the initial rate (segmentation)."""
    return float((1.0 - min(position, total) / total) ** power * (1.0 - floor) + floor)
