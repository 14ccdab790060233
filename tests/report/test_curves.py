"""Thinning of long curves and the axes of the charts."""

from __future__ import annotations

import math
import re

import pytest

from simsiam.report.curves import Chart, Point, Reference, Series, charts, describe, draw, thin


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


def test_a_constant_curve_has_an_axis_around_it() -> None:
    low, high, *_ = _numbers(draw(_chart([Point(x=1, y=0.5, low=0.5, high=0.5)])), "data-y")
    assert low < 0.5 < high


def test_reference_lines_are_within_the_axis() -> None:
    chart = _chart([Point(x=1, y=40, low=40, high=40)], references=[Reference(name="raw pixels", value=43)])
    drawn = draw(chart)
    assert _numbers(drawn, "data-y")[1] > 43
    assert "raw pixels" in drawn


def test_the_spans_for_the_pointer_agree_with_the_drawing() -> None:
    """A dot lies where the page's script looks for it."""
    points = [Point(x=x, y=y, low=y, high=y) for x, y in ((0, 1.0), (4, 3.0), (10, 2.0))]
    drawn = draw(_chart(points))
    x, y = _numbers(drawn, "data-x"), _numbers(drawn, "data-y")
    dots = re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', drawn[drawn.index('class="dot s0"') :])
    for point, dot in zip(points, dots[:3], strict=True):
        assert float(dot[0]) == pytest.approx(x[2] + (point.x - x[0]) / (x[1] - x[0]) * (x[3] - x[2]), abs=0.1)
        assert float(dot[1]) == pytest.approx(y[2] + (point.y - y[0]) / (y[1] - y[0]) * (y[3] - y[2]), abs=0.1)


def test_no_colour_and_no_letter_size_is_fixed_in_the_drawing() -> None:
    """All of it comes from the style sheet, in the light and in the dark."""
    drawn = draw(_chart([Point(x=1, y=1, low=0, high=2), Point(x=2, y=1, low=1, high=1)]))
    assert not re.search(r"#[0-9a-f]{6}|font", drawn)
    assert 'class="band s0"' in drawn


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


def _numbers(drawn: str, attribute: str) -> list[float]:
    found = re.search(rf'{attribute}="([^"]*)"', drawn)
    assert found
    return [float(number) for number in found[1].split(",")]
