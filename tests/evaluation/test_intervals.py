"""Intervals against their definitions and their coverage, and the paired test against its exact distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simsiam.evaluation.intervals import Z95, difference_interval, paired_difference, wilson_interval


@pytest.mark.parametrize(("hits", "total"), [(0, 20), (1, 20), (7, 20), (20, 20), (300, 1000)])
def test_wilsons_bounds_are_the_shares_whose_score_test_just_holds(hits: int, total: int) -> None:
    """|share - p| = z sqrt(p (1 - p) / n) at both bounds, which is how Wilson defines them."""
    interval = wilson_interval(hits, total)
    share = hits / total
    for bound in (interval.low, interval.high):
        if 0 < bound < 1:
            assert abs(share - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / total), rel=1e-9)
    assert interval.low <= share <= interval.high
    assert (interval.low == 0) == (hits == 0)
    assert (interval.high == 1) == (hits == total)


@pytest.mark.parametrize(("total", "share"), [(20, 0.02), (20, 0.5), (50, 0.9), (200, 0.01)])
def test_wilsons_interval_covers(total: int, share: float) -> None:
    """Over the whole binomial distribution; a bootstrap covers 35 % at 20 images and 2 %."""
    covered = sum(
        math.comb(total, hits) * share**hits * (1 - share) ** (total - hits)
        for hits in range(total + 1)
        if wilson_interval(hits, total).low <= share <= wilson_interval(hits, total).high
    )
    assert covered > 0.92


@pytest.mark.parametrize(("hits", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(hits: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} of {total}"):
        wilson_interval(hits, total)


def test_the_interval_of_a_difference_of_counts_is_newcombes() -> None:
    """Method 10: from the distances of the shares to their own bounds."""
    found = difference_interval(56, 42, 70)
    one, other = wilson_interval(56, 70), wilson_interval(42, 70)
    assert found.low == pytest.approx(0.2 - math.hypot(0.8 - one.low, other.high - 0.6))
    assert found.high == pytest.approx(0.2 + math.hypot(one.high - 0.8, 0.6 - other.low))
    assert difference_interval(165, 185, 200).high < 0  # 82.5 after 92.5 %
    assert difference_interval(182, 185, 200).high > 0 > difference_interval(182, 185, 200).low
    covered = [difference_interval(a, b, 30) for a, b in np.random.default_rng(0).binomial(30, 0.3, (2000, 2)).tolist()]
    assert np.mean([each.low <= 0 <= each.high for each in covered]) > 0.93


def cells(both: int, ours: int, theirs: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.array([1] * both + [1] * ours + [0] * theirs + [0] * neither)
    other = np.array([1] * both + [0] * ours + [1] * theirs + [0] * neither)
    return one, other


@pytest.mark.parametrize(("ours", "theirs"), [(6, 0), (5, 0), (9, 1), (8, 1), (10, 10), (0, 7), (0, 0)])
def test_the_sign_test_is_exact(ours: int, theirs: int) -> None:
    found = paired_difference(*cells(30, ours, theirs, 10))
    trials = ours + theirs
    tail = sum(math.comb(trials, k) for k in range(min(ours, theirs) + 1)) / 2**trials
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert found.value == pytest.approx((ours - theirs) / (40 + trials))
    assert found.low <= found.value <= found.high
    wanted = "no clear difference" if found.p >= 0.05 else "better" if ours > theirs else "worse"
    assert found.outcome == wanted


def test_agreement_does_not_make_a_difference_surer() -> None:
    few, many = (paired_difference(*cells(both, 9, 1, 10)) for both in (10, 1000))
    assert few.p == many.p
    assert few.outcome == "better"


def test_the_interval_of_a_difference_is_agresti_and_mins() -> None:
    found = paired_difference(*cells(40, 12, 4, 44))
    b, c, n = 12.5, 4.5, 102
    error = math.sqrt(b + c - (b - c) ** 2 / n) / n
    assert found.low == pytest.approx((b - c) / n - Z95 * error)
    assert found.high == pytest.approx((b - c) / n + Z95 * error)
