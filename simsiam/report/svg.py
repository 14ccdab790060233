"""Charts as inline SVG, drawn by matplotlib; the page's style sheet colours them, so they follow dark mode."""

from __future__ import annotations

import io
import json
import math
import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from simsiam.report.curves import Chart, Point, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 440, 232  # user units of the drawing
TEXT = 14  # pixels of the letters at their largest, on a phone: room is kept for these
DOTS_UP_TO = 40  # points that are drawn one by one as well, so that a single value is seen
_NAMED = re.compile(r' id="(chart-[\w -]+)"')


def draw(chart: Chart) -> Markup:
    """One chart as an SVG element; names are escaped, data for the tooltip rides in an attribute."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.key, "font.size": TEXT, "path.simplify": False}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        _frame(axes, chart)
        for index, series in enumerate(chart.series):
            _line(axes, series, index)
        _limits(axes, chart)
        _references(axes, chart)
        figure.draw_without_rendering()  # places the ticks
        for tick in (*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()):
            tick.label1.set_gid("chart-tick")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    left, bottom, right, top = axes.get_window_extent().extents
    x, y = axes.get_xlim(), axes.get_ylim()
    spans = (
        f'data-x="{x[0]:g},{x[1]:g},{left:g},{right:g}" data-y="{y[0]:g},{y[1]:g},{HEIGHT - bottom:g},{HEIGHT - top:g}"'
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(describe(chart))}" {spans} '
        f'data-across="{chart.across}" data-series="{escape(_tooltip_data(chart))}">{_inside(buffer.getvalue())}'
        f'<line class="cursor" y1="{HEIGHT - top:g}" y2="{HEIGHT - bottom:g}" visibility="hidden"/></svg>'
    )


def describe(chart: Chart) -> str:
    """What a reader who does not see the chart should hear."""
    said = []
    for series in chart.series:
        if series.points:
            first, last = series.points[0], series.points[-1]
            across = f"{chart.across} {first.x:.6g} to {last.x:.6g}"
            said.append(f"{series.name} from {first.y:.4g} to {last.y:.4g}, {across}")
    return f"{chart.title} ({chart.unit}): " + "; ".join(said or ["no finite value"])


def _inside(svg: str) -> str:
    """The drawing without its frame and its own style: our marks become classes, the style sheet does the rest."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' style="[^"]*?(text-anchor: \w+)?"', lambda found: f' style="{found[1]}"' if found[1] else "", body)
    body = _NAMED.sub(lambda found: f' class="{found[1].removeprefix("chart-")}"', body)
    body = re.sub(r' id="(?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick)[\w.]*"|(?<=>)\s+|\s+(?=<)', "", body)
    return re.sub(r"\s*\n\s*", " ", body)


def _frame(axes: Axes, chart: Chart) -> None:
    """Grid, axis and labels, each under the name of its class."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_gid("chart-axis")
    axes.set_xlabel(chart.across, gid="chart-label")
    axes.set_title(chart.unit, loc="left", fontsize=TEXT, gid="chart-label")
    axes.grid(axis="y", gid="chart-grid", clip_on=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value, 12):g}".replace("-", "−")))
        axis.set_tick_params(length=0)


def _limits(axes: Axes, chart: Chart) -> None:
    """Room for every value and level, and a little more; from zero where the chart says so."""
    points = [point for series in chart.series for point in series.points]
    levels = [reference.value for reference in chart.references if math.isfinite(reference.value)]
    left, right = min([0.0, *(point.x for point in points)]), max((point.x for point in points), default=1.0)
    low = min([*(point.low for point in points), *levels], default=0.0)
    high = max([*(point.high for point in points), *levels], default=1.0)
    if chart.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    axes.set_xlim(left, right if right > left else left + 1)
    axes.set_ylim(low if chart.zero and low == 0 else low - margin, high + margin)


def _line(axes: Axes, series: Series, index: int) -> None:
    """The mean, the extremes as a band where they differ, and few points as dots."""
    x, y = [point.x for point in series.points], [point.y for point in series.points]
    if any(point.high > point.low for point in series.points):
        low, high = [point.low for point in series.points], [point.high for point in series.points]
        axes.fill_between(x, low, high, gid=f"chart-band s{index}", clip_on=False)
    axes.plot(x, y, gid=f"chart-line s{index}", clip_on=False)
    if len(x) <= DOTS_UP_TO:
        axes.scatter(x, y, s=16, gid=f"chart-dot s{index}", clip_on=False, zorder=3)


def _references(axes: Axes, chart: Chart) -> None:
    """Levels to read the curves against; where two lie close together, the upper one's name goes higher."""
    low, high = axes.get_ylim()
    taken = -math.inf
    for reference in sorted(chart.references, key=lambda one: one.value):
        if math.isfinite(reference.value):
            axes.axhline(reference.value, gid="chart-reference", clip_on=False)
            height = (reference.value - low) / (high - low)
            taken = max(height + 0.02, taken + 0.09)
            name = reference.name.replace("$", r"\$")
            axes.text(1, taken, name, transform=axes.transAxes, ha="right", gid="chart-level")


def _tooltip_data(chart: Chart) -> str:
    def pair(point: Point) -> list[float]:
        return [float(f"{point.x:.6g}"), float(f"{point.y:.4g}")]

    return json.dumps([{"name": one.name, "points": [pair(point) for point in one.points]} for one in chart.series])
