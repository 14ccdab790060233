"""Thinning of long curves and the axes of the charts."""

from __future__ import annotations

import math

import pytest

from simsiam.report.curves import Chart, Point, Reference, Series, charts, thin
from simsiam.report.svg import axes, describe, draw, ticks


def test_thinning_keeps_mean_and_extremes() -> None:
    rows = [{"epoch": index / 1000, "loss": float(index % 7)} for index in range(100_000)]
    series = thin(rows, "loss", "loss")
    assert len(series.points) <= 240
    assert {point.low for point in series.points} == {0.0}
    assert {point.high for point in series.points} == {6.0}
    assert sum(point.y for point in series.points) / len(series.points) == pytest.approx(3.0, abs=0.01)


def test_short_series_are_not_thinned() -> None:
    series = thin([{"epoch": 1, "knn": 30.0}, {"epoch": 2}, {"epoch": 3, "knn": None}], "knn", "trained")
    assert series.points == [Point(x=1.0, y=30.0, low=30.0, high=30.0)]


def test_not_finite_values_are_counted() -> None:
    rows = [{"epoch": 1, "loss": math.nan}, {"epoch": 0.5, "loss": math.inf}, {"epoch": 2, "loss": -0.5}]
    series = thin(rows, "loss", "loss")
    assert (series.not_finite, series.first_not_finite, len(series.points)) == (2, 0.5, 1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-1, 0, [-1, -0.8, -0.6, -0.4, -0.2, 0]), (0, 87, [0, 20, 40, 60, 80])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_axis_of_a_constant_curve() -> None:
    chart = _chart([Point(x=1, y=0.5, low=0.5, high=0.5)])
    x, y = axes(chart)
    assert x.low < x.high
    assert y.low < 0.5 < y.high


def test_reference_lines_are_within_the_axis() -> None:
    chart = _chart([Point(x=1, y=40, low=40, high=40)], references=[Reference(name="raw pixels", value=43)])
    _, y = axes(chart)
    assert y.high > 43
    assert "raw pixels" in draw(chart)


def test_names_are_escaped() -> None:
    drawn = draw(_chart([Point(x=1, y=1, low=1, high=1)], references=[Reference(name="<b>&", value=1)]))
    assert "<b>" not in drawn
    assert "&lt;b&gt;&amp;" in drawn


def test_description_says_start_and_end() -> None:
    points = [Point(x=1, y=0.1, low=0.1, high=0.1), Point(x=9, y=0.7, low=0.7, high=0.7)]
    assert describe(_chart(points)) == "Loss (cosine): one from 0.1 to 0.7, epoch 1 to 9"


def test_charts_without_values_are_left_out() -> None:
    made = charts([{"epoch": 1, "loss": -0.5, "lr": 0.1}], [], {})
    assert [chart.key for chart in made] == ["loss", "lr"]


def _chart(points: list[Point], references: list[Reference] | None = None) -> Chart:
    series = Series(name="one", points=points, not_finite=0, first_not_finite=None)
    return Chart(key="loss", title="Loss", unit="cosine", about="", series=[series], references=references or [])
