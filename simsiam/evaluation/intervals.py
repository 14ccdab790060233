"""Average precision by the area under its curve, and bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simsiam.errors import UserError
from simsiam.wording import plural

if TYPE_CHECKING:
    import numpy as np


RESAMPLES = 2000


def area_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve made monotone from the right (VOC from 2010 on, not the 11-point mean).

    Args:
        scores: N, higher is more positive; equal scores keep their order.
        positive: N bool.

    Raises UserError if all or none are positive, or a score is not finite.
    """
    import numpy as np

    if not np.isfinite(scores).all():
        raise UserError("scores hold a NaN or an infinity; the features that they come from are damaged.")
    total = int(positive.sum())
    if total in (0, len(positive)):
        raise UserError(
            f"average precision needs positive and negative images; {total} of {len(positive)} "
            f"{plural(total, 'is', 'are')} positive."
        )
    hits = positive[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / total)  # recall rises by 1 / total at each hit


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def bootstrap_interval(values: np.ndarray, *, seed: int) -> Interval:
    """The percentile interval of the mean of values when its images are drawn again with replacement."""
    import numpy as np

    rng = np.random.default_rng(seed)
    means = [float(values[rng.integers(0, len(values), len(values))].mean()) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(low=float(low), high=float(high))
