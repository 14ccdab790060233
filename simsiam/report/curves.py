"""The curves of a run or an evaluation: few enough points to draw, and charts as inline SVG."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from simsiam.report.html import template

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 240  # points of a drawn curve; a chart is about 400 pixels wide


@dataclass(frozen=True, kw_only=True)
class Point:
    """The mean of one bin of a curve, with the extremes that thinning would hide."""

    x: float  # epochs, or what the chart counts
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    points: list[Point]
    not_finite: int  # values that were NaN or infinite
    first_not_finite: float | None  # epoch of the first of them


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A level to read the curve against."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart: series over epochs."""

    key: str
    title: str
    unit: str  # label of the y axis
    about: str  # how to read it, one sentence
    series: list[Series]
    references: list[Reference] = field(default_factory=list)
    zero: bool = False  # the y axis starts at 0
    across: Literal["epoch", "iteration"] = "epoch"  # what the x axis counts


def thin(rows: Iterable[dict[str, Any]], key: str, name: str, *, bins: int = BINS) -> Series:
    """One series from metric rows: at most `bins` points, each the mean of its share of the epochs.

    Rows without the key are left out; values that are not finite are counted, not drawn.
    """
    points: list[tuple[float, float]] = []
    bad: list[float] = []
    for row in rows:
        x, y = row.get("epoch"), row.get(key)
        if not isinstance(x, int | float) or not isinstance(y, int | float):
            continue
        if math.isfinite(y):
            points.append((float(x), float(y)))
        else:
            bad.append(float(x))
    points.sort(key=lambda point: point[0])
    size = max(1, math.ceil(len(points) / bins))
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return Series(
        name=name,
        points=[
            Point(x=sum(x) / len(x), y=sum(y) / len(y), low=min(y), high=max(y))
            for x, y in (zip(*chunk, strict=True) for chunk in chunks)
        ],
        not_finite=len(bad),
        first_not_finite=min(bad) if bad else None,
    )


# By key: title, unit, whether the axis starts at zero, and the lines as (kind of row, its key, the line's name).
_CHARTS: dict[str, tuple[str, str, bool, list[tuple[str, str, str]]]] = {
    "loss": ("Loss", "negative cosine", False, [("step", "loss", "loss")]),
    "spread": (
        "Spread of z",
        "std × √d",
        True,
        [("step", "spread", "training batches"), ("monitor", "spread", "held-out images")],
    ),
    "rank": (
        "Effective rank",
        "dimensions",
        True,
        [("monitor", "rank_z", "z"), ("monitor", "rank_features", "backbone features")],
    ),
    "knn": ("kNN accuracy", "%", True, [("monitor", "knn", "trained")]),
    "view_recall": ("View retrieval", "recall@1, %", True, [("monitor", "view_recall", "trained")]),
    "alignment": (
        "Alignment of p and z",
        "cosine",
        False,
        [("monitor", "alignment_pairs", "same image"), ("monitor", "alignment_random", "different images")],
    ),
    "neighbour_stability": ("Neighbour stability", "share kept", True, [("monitor", "neighbour_stability", "kept")]),
    "lr": (
        "Learning rate",
        "lr",
        True,
        [("step", "lr", "backbone and projector"), ("step", "predictor_lr", "predictor")],
    ),
}
_ABOUT = {
    "loss": "Negative cosine similarity of p and z; −1 is the least there can be. A low loss alone proves nothing: a "
    "collapsed network reaches −1 as well.",
    "spread": "1 where the outputs fill the sphere, 0 where they have collapsed to a point.",
    "rank": "How many directions the outputs use. Near 1 is collapse.",
    "knn": "Label of held-out images from their nearest neighbours; the training never saw the labels.",
    "view_recall": "How often the nearest neighbour of one augmented view is the other view of the same image.",
    "alignment": "Two views of one image should agree, views of different images should not. Two lines that meet mean "
    "collapse.",
    "neighbour_stability": "Share of the nearest neighbours that stayed the same since the check before.",
    "lr": "The predictor's own rate does not decay in the published recipe.",
}


def charts(
    steps: list[dict[str, Any]], monitor: list[dict[str, Any]], baselines: dict[str, list[dict[str, Any]]]
) -> list[Chart]:
    """Every chart for which the run has at least one value, in the order of the page."""
    rows = {"step": steps, "monitor": monitor}
    levels = {"spread": [Reference(name="evenly spread", value=1.0)]}
    levels |= {measure: _levels(given) for measure, given in baselines.items()}
    return drawable(
        Chart(
            key=key,
            title=title,
            unit=unit,
            about=_ABOUT[key],
            series=[thin(rows[kind], column, name) for kind, column, name in lines],
            references=levels.get(key, []),
            zero=zero,
        )
        for key, (title, unit, zero, lines) in _CHARTS.items()
    )


def _levels(rows: list[dict[str, Any]]) -> list[Reference]:
    """The baselines; of a path in a name, such as that of the weights before training, the end alone."""
    found = []
    for row in rows:
        kind, colon, source = str(row["name"]).partition(": ")
        if row["name"] != "trained":
            name = f"{kind}{colon}{source.rstrip('/').rpartition('/')[2][-30:]}"
            found.append(Reference(name=name, value=float(row["value"])))
    return found


def drawable(wanted: Iterable[Chart]) -> list[Chart]:
    """The charts with a value, without the series that have none."""
    kept = [
        dataclasses.replace(chart, series=[one for one in chart.series if one.points or one.not_finite])
        for chart in wanted
    ]
    return [chart for chart in kept if chart.series]


WIDTH, HEIGHT = 440, 232  # user units of the drawing
TEXT = 14  # pixels of the letters at their largest, on a phone: room is kept for these
DOTS_UP_TO = 40  # points that are drawn one by one as well, so that a single value is seen
_NAMED = re.compile(r' id="(chart-[\w -]+)"')


def draw(chart: Chart) -> Markup:
    """One chart as an SVG element; names are escaped, data for the tooltip rides in an attribute."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.key, "font.size": TEXT, "path.simplify": False}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        _frame(axes, chart)
        for index, series in enumerate(chart.series):
            _line(axes, series, index)
        _limits(axes, chart)
        _references(axes, chart)
        ConstrainedLayoutEngine().execute(figure)  # once; as the figure's own it would lay out and draw it twice more
        for tick in (*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()):
            tick.label1.set_gid("chart-tick")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    left, bottom, right, top = axes.get_window_extent().extents
    x, y = axes.get_xlim(), axes.get_ylim()
    points = [
        {"name": one.name, "points": [[float(f"{p.x:.6g}"), float(f"{p.y:.4g}")] for p in one.points]}
        for one in chart.series
    ]
    ends = {"top": f"{HEIGHT - top:g}", "bottom": f"{HEIGHT - bottom:g}"}
    drawn = template("chart.svg").render(
        chart=chart,
        width=WIDTH,
        height=HEIGHT,
        said=describe(chart),
        x=f"{x[0]:g},{x[1]:g},{left:g},{right:g}",
        y=f"{y[0]:g},{y[1]:g},{ends['bottom']},{ends['top']}",
        points=json.dumps(points),
        drawing=Markup(_inside(buffer.getvalue())),
        **ends,
    )
    return Markup(drawn)


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
