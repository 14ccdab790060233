"""Charts as inline SVG whose colours come from the page's style sheet, so they follow dark mode and print."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from simsiam.report.curves import Chart, Point, Series

WIDTH, HEIGHT = 440, 232
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 26, 38  # LEFT at least: the numbers beside the y axis may want more
TEXT = 14  # pixels of the letters at their largest, on a phone
GAP = 7  # between the y axis and its numbers
DOTS_UP_TO = 40  # points that are drawn one by one as well, so that a single value is seen


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear scale from values to pixels."""

    low: float
    high: float
    start: float  # pixel of `low`
    end: float  # pixel of `high`

    def pixel(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values that cover low to high in steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in (1, 2, 5, 10) if multiple * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def axes(chart: Chart) -> tuple[Axis, Axis]:
    """The x axis (epochs) and the y axis of a chart, a little wider than its values."""
    points = [point for series in chart.series for point in series.points]
    levels = [reference.value for reference in chart.references if math.isfinite(reference.value)]
    right = max((point.x for point in points), default=1.0)
    left = min(0.0, *(point.x for point in points)) if points else 0.0
    low = min([*(point.low for point in points), *levels], default=0.0)
    high = max([*(point.high for point in points), *levels], default=1.0)
    if chart.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low = low if chart.zero and low == 0 else low - margin
    y = Axis(low=low, high=high + margin, start=HEIGHT - BOTTOM, end=TOP)
    start = max(LEFT, 2 + GAP + max(width_of(_number(tick)) for tick in ticks(y.low, y.high)))
    return Axis(low=left, high=right if right > left else left + 1, start=start, end=WIDTH - RIGHT), y


def width_of(number: str) -> float:
    """Pixels that a number takes at most, in a wide font such as DejaVu Sans: figures share one width."""
    return TEXT * sum(0.32 if letter == "." else 0.84 if letter in "+−" else 0.64 for letter in number)


def draw(chart: Chart) -> Markup:
    """One chart as an SVG element; names are escaped, data for the tooltip rides in an attribute."""
    x, y = axes(chart)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(describe(chart))}" '
        f'data-x="{x.low:g},{x.high:g},{x.start:g},{x.end:g}" data-y="{y.low:g},{y.high:g},{y.start:g},{y.end:g}" '
        f'data-across="{chart.across}" data-series="{escape(_tooltip_data(chart))}">',
        *_grid(chart, x, y),
    ]
    parts += _references(chart, x, y)
    for index, series in enumerate(chart.series):
        parts += _line(series, index, x, y)
    parts.append(f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>')
    return Markup("".join(parts))


def describe(chart: Chart) -> str:
    """What a reader who does not see the chart should hear."""
    said = []
    for series in chart.series:
        if series.points:
            first, last = series.points[0], series.points[-1]
            across = f"{chart.across} {first.x:.6g} to {last.x:.6g}"
            said.append(f"{series.name} from {first.y:.4g} to {last.y:.4g}, {across}")
    return f"{chart.title} ({chart.unit}): " + "; ".join(said or ["no finite value"])


def _grid(chart: Chart, x: Axis, y: Axis) -> list[str]:
    parts = []
    for tick in ticks(y.low, y.high):
        at = y.pixel(tick)
        parts.append(f'<line class="grid" x1="{x.start:.1f}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{x.start - GAP:.1f}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    for tick in ticks(x.low, x.high):
        at = min(x.pixel(tick), WIDTH - width_of(_number(tick)) / 2)  # the last one stays within the picture
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{_number(tick)}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{x.start:.1f}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text class="label" x="{middle:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{chart.across}</text>')
    parts.append(f'<text class="label" x="4" y="13">{escape(chart.unit)}</text>')
    return parts


def _references(chart: Chart, x: Axis, y: Axis) -> list[str]:
    parts = []
    taken: list[float] = []
    for reference in sorted(chart.references, key=lambda one: one.value):
        if not math.isfinite(reference.value):
            continue
        at = y.pixel(reference.value)
        text = at - 4
        if taken and taken[-1] - text < 13:  # two levels close together: the upper one's name goes higher
            text = taken[-1] - 13
        taken.append(text)
        parts.append(f'<line class="reference" x1="{x.start:.1f}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="level" x="{WIDTH - RIGHT}" y="{text:.1f}" text-anchor="end">{escape(reference.name)}</text>'
        )
    return parts


def _line(series: Series, index: int, x: Axis, y: Axis) -> list[str]:
    points = series.points
    parts = []
    if any(point.high > point.low for point in points):
        upper = [_at(point.x, point.high, x, y) for point in points]
        lower = [_at(point.x, point.low, x, y) for point in reversed(points)]
        parts.append(f'<polygon class="band s{index}" points="{" ".join(upper + lower)}"/>')
    parts.append(
        f'<polyline class="line s{index}" points="{" ".join(_at(point.x, point.y, x, y) for point in points)}"/>'
    )
    if len(points) <= DOTS_UP_TO:
        parts += [
            f'<circle class="dot s{index}" cx="{x.pixel(point.x):.1f}" cy="{y.pixel(point.y):.1f}" r="2.6"/>'
            for point in points
        ]
    return parts


def _at(horizontal: float, vertical: float, x: Axis, y: Axis) -> str:
    return f"{x.pixel(horizontal):.1f},{y.pixel(vertical):.1f}"


def _tooltip_data(chart: Chart) -> str:
    def pair(point: Point) -> list[float]:
        return [float(f"{point.x:.6g}"), float(f"{point.y:.4g}")]

    return json.dumps([{"name": one.name, "points": [pair(point) for point in one.points]} for one in chart.series])


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")
