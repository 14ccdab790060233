"""How sure a figure is: intervals of proportions and means, paired differences; and average precision by area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simsiam.errors import UserError
from simsiam.wording import plural

if TYPE_CHECKING:
    import numpy as np


Z95 = 1.959963984540054  # the normal distribution has 95 % within as many deviations


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


def wilson_interval(hits: float, total: int) -> Interval:
    """The 95 % interval of a proportion of independent trials, as fractions: 0 of 20 is 0 to 0.16, not 0 to 0.

    Where each trial is a mean of several tries, `hits` is their sum, and the interval is wider than need be. Source:
    Wilson 1927, without a correction for continuity (Brown, Cai and DasGupta 2001 recommend it for small N).

    >>> interval = wilson_interval(0, 20)
    >>> f"{interval.low:.3f} to {interval.high:.3f}"
    '0.000 to 0.161'
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"{hits} of {total}")
    share, square = hits / total, Z95**2 / total
    middle = (share + square / 2) / (1 + square)
    half = Z95 * (share * (1 - share) / total + square / (4 * total)) ** 0.5 / (1 + square)
    return Interval(low=max(0.0, middle - half) if hits else 0.0, high=min(1.0, middle + half) if hits < total else 1.0)


def difference_interval(ours: int, theirs: int, total: int) -> Interval:
    """The 95 % interval of the difference of two proportions of as many trials, where only the counts are known.

    Source: Newcombe 1998, method 10, from Wilson's intervals. For hits on the same images `paired_difference` is
    sharper.
    """
    a, b = wilson_interval(ours, total), wilson_interval(theirs, total)
    one, other = ours / total, theirs / total
    below = ((one - a.low) ** 2 + (b.high - other) ** 2) ** 0.5
    above = ((a.high - one) ** 2 + (other - b.low) ** 2) ** 0.5
    return Interval(low=one - other - below, high=one - other + above)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The difference of two proportions that were measured on the same images, as fractions."""

    value: float  # ours less theirs
    low: float  # of the 95 % interval
    high: float
    p: float  # of the exact sign test: how often chance alone parts them as far

    @property
    def outcome(self) -> Literal["better", "worse", "no clear difference"]:
        """What may be said of ours beside theirs."""
        if self.p >= 0.05:
            return "no clear difference"
        return "better" if self.value > 0 else "worse"


def sign_test(gained: int, lost: int) -> float:
    """How often chance parts two networks as far, of the images that one alone has right (McNemar 1947, exact)."""
    from scipy.special import bdtr  # the binomial distribution function

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def above_chance(hits: int, total: int, chance: float) -> bool:
    """Whether so many hits are more than guessing, right at a share of `chance`, gives in one case of a hundred."""
    from scipy.special import bdtrc  # the binomial distribution's upper tail

    return hits > 0 and float(bdtrc(hits - 1, total, chance)) < 0.01


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> PairedDifference:
    """Compare two networks by their hits (0 or 1) on the same images; only images on which they differ count.

    Sources: the exact sign test (McNemar 1947), and for the interval Agresti and Min 2005, who add half an image to
    each of the four cells.
    """
    gained, lost = int(((ours == 1) & (theirs == 0)).sum()), int(((ours == 0) & (theirs == 1)).sum())
    total = len(ours) + 2
    middle = (gained - lost) / total
    half = Z95 * ((gained + lost + 1) / total - middle**2) ** 0.5 / total**0.5
    return PairedDifference(
        value=(gained - lost) / len(ours),
        low=max(-1.0, middle - half),
        high=min(1.0, middle + half),
        p=sign_test(gained, lost),
    )
