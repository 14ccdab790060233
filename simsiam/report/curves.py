"""The curves of a run: which there are, and few enough points to draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
        points=[_mean(chunk) for chunk in chunks],
        not_finite=len(bad),
        first_not_finite=min(bad) if bad else None,
    )


def _mean(chunk: Sequence[tuple[float, float]]) -> Point:
    values = [y for _, y in chunk]
    x = sum(x for x, _ in chunk) / len(chunk)
    return Point(x=x, y=sum(values) / len(values), low=min(values), high=max(values))


def charts(
    steps: list[dict[str, Any]], monitor: list[dict[str, Any]], baselines: dict[str, list[dict[str, Any]]]
) -> list[Chart]:
    """Every chart for which the run has at least one value, in the order of the page."""
    levels = {measure: _levels(rows) for measure, rows in baselines.items()}
    wanted = [
        Chart(
            key="loss",
            title="Loss",
            unit="negative cosine",
            about="Negative cosine similarity of p and z; −1 is the least there can be. A low loss alone proves "
            "nothing: a collapsed network reaches −1 as well.",
            series=[thin(steps, "loss", "loss")],
        ),
        Chart(
            key="spread",
            title="Spread of z",
            unit="std × √d",
            about="1 where the outputs fill the sphere, 0 where they have collapsed to a point.",
            series=[thin(steps, "spread", "training batches"), thin(monitor, "spread", "held-out images")],
            references=[Reference(name="evenly spread", value=1.0)],
            zero=True,
        ),
        Chart(
            key="rank",
            title="Effective rank",
            unit="dimensions",
            about="How many directions the outputs use. Near 1 is collapse.",
            series=[thin(monitor, "rank_z", "z"), thin(monitor, "rank_features", "backbone features")],
            zero=True,
        ),
        Chart(
            key="knn",
            title="kNN accuracy",
            unit="%",
            about="Label of held-out images from their nearest neighbours; the training never saw the labels.",
            series=[thin(monitor, "knn", "trained")],
            references=levels.get("knn", []),
            zero=True,
        ),
        Chart(
            key="view_recall",
            title="View retrieval",
            unit="recall@1, %",
            about="How often the nearest neighbour of one augmented view is the other view of the same image.",
            series=[thin(monitor, "view_recall", "trained")],
            references=levels.get("view_recall", []),
            zero=True,
        ),
        Chart(
            key="alignment",
            title="Alignment of p and z",
            unit="cosine",
            about="Two views of one image should agree, views of different images should not. "
            "Two lines that meet mean collapse.",
            series=[
                thin(monitor, "alignment_pairs", "same image"),
                thin(monitor, "alignment_random", "different images"),
            ],
        ),
        Chart(
            key="neighbour_stability",
            title="Neighbour stability",
            unit="share kept",
            about="Share of the nearest neighbours that stayed the same since the check before.",
            series=[thin(monitor, "neighbour_stability", "kept")],
            zero=True,
        ),
        Chart(
            key="lr",
            title="Learning rate",
            unit="lr",
            about="The predictor's own rate does not decay in the published recipe.",
            series=[
                thin(steps, "lr", "backbone and projector"),
                thin(steps, "predictor_lr", "predictor"),
            ],
            zero=True,
        ),
    ]
    return _drawable(wanted)


def _levels(rows: list[dict[str, Any]]) -> list[Reference]:
    return [
        Reference(name=_short(str(row["name"])), value=float(row["value"])) for row in rows if row["name"] != "trained"
    ]


def _short(name: str) -> str:
    """A baseline's name beside its line: of a path, such as that of the weights before training, the end alone."""
    kind, colon, source = name.partition(": ")
    return f"{kind}{colon}{source.rstrip('/').rpartition('/')[2][-30:]}"


def _drawable(wanted: list[Chart]) -> list[Chart]:
    kept = []
    for chart in wanted:
        series = [one for one in chart.series if one.points or one.not_finite]
        if series:
            kept.append(dataclasses.replace(chart, series=series))
    return kept
