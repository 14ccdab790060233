"""The page of one evaluation: a single HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam import claims, published
from simsiam.errors import UserError
from simsiam.report import curves, html
from simsiam.report.curves import Chart, thin
from simsiam.report.html import flat
from simsiam.report.layout import OWN_LAYOUTS, PAGE_LAYOUTS, Column, Layout
from simsiam.report.pictures import Album, Picture
from simsiam.results import Result, now, read_metrics, write_atomic
from simsiam.wording import counted

SHOWN_CLASSES = 40  # bars; of half as many again or more, the best and the worst are shown
MOST_SERIES = 6  # lines of a chart
MOST_METRICS = 4  # columns of the classes' table
_PACE = ("images_per_second", "data_wait")
_NOT_SERIES = ("kind", "epoch", "step", *_PACE)
_FRACTIONS = ("nmi", "ari")  # metrics that are no percentages
_GROUPS = {"box_": "Boxes", "mask_": "Masks"}


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One row of the comparison: this result, or a published figure."""

    name: str
    value: float
    ours: bool
    source: str  # and how sure it is


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The main figure, and what it can be set beside."""

    title: str
    value: float
    unit: str
    rows: list[Beside]  # this result first; alone where nothing was published
    comparable: bool  # measured on the data that the others were published on
    remark: str  # the same as a sentence; "" where there is nothing to compare


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class."""

    name: str
    values: list[float | None]  # by metric; None: it does not occur in the test set
    width: float  # of its bar, 0 to 100


@dataclass(frozen=True, kw_only=True)
class Classes:
    """All classes, the best first."""

    metrics: list[str]
    rows: list[ClassRow]
    left_out: int  # between the best and the worst
    split: int  # how many of the rows are the best


def headline(result: Result) -> Headline:
    """The main metric beside the page's, the official and, for transfer, the paper's figures."""
    layout, column = _place(result)
    value = result.metrics[result.main_metric]
    title = column.heading if column is not None and column.metric == result.main_metric else result.main_metric
    metric = column.published or column.metric if column is not None else result.main_metric
    rows = [Beside(name="this result", value=value, ours=True, source="measured here")]
    rows += [_beside(one) for one in _published(result.protocol, metric)]
    remark, same = "", False
    if len(rows) > 1 and layout is not None and layout.data is not None:
        same = layout.data.matches(result.data.name, result.data.images)
        remark = (
            f"Published on {layout.data.title}, the data measured here."
            if same
            else f"Published on {layout.data.title}; this result is on {result.data.name} "
            f"({counted(result.data.images, 'image')}), so the rows say nothing about each other."
        )
    unit = "" if result.main_metric in _FRACTIONS else "%"
    return Headline(title=title, value=value, unit=unit, rows=rows, comparable=same, remark=remark)


def classes(result: Result) -> Classes | None:
    """The result's figures by class; None where it has none."""
    raw = result.detail.get("per_class")
    if not isinstance(raw, dict) or not raw:
        return None
    tables = raw if all(isinstance(one, dict) for one in raw.values()) else {result.main_metric: raw}
    metrics = sorted(tables, key=lambda name: name != result.main_metric)[:MOST_METRICS]
    names = list(dict.fromkeys(name for metric in metrics for name in tables[metric]))
    values = {name: [_number(tables[metric].get(name)) for metric in metrics] for name in names}
    ranked = sorted(names, key=lambda name: -math.inf if values[name][0] is None else -(values[name][0] or 0.0))
    ranked.sort(key=lambda name: values[name][0] is None)
    many = len(ranked) >= 1.5 * SHOWN_CLASSES
    split = SHOWN_CLASSES // 2 if many else len(ranked)
    shown = [*ranked[:split], *ranked[-split:]] if many else ranked
    return Classes(
        metrics=metrics,
        rows=[
            ClassRow(name=name, values=values[name], width=min(max(values[name][0] or 0.0, 0.0), 100.0))
            for name in shown
        ],
        left_out=len(ranked) - len(shown),
        split=split,
    )


def charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Loss and its parts, learning rates, and the metrics as they were measured while it trained."""
    by_step = bool(rows) and all(isinstance(row.get("step"), int | float) for row in rows)
    placed = [{**row, "epoch": row["step"]} for row in rows] if by_step else rows
    steps = [row for row in placed if row.get("kind") == "step"]
    checks = [row for row in placed if row.get("kind") != "step"]
    losses = [key for key in _keys(steps) if "lr" not in key.split("_")]
    rates = [key for key in _keys(steps) if "lr" in key.split("_")]
    parts = [key for key in losses if key != "loss"]
    made = [
        ("loss", "Loss", "loss", "The whole loss; the band shows the extremes.", steps, ["loss"]),
        ("parts", "Parts of the loss", "loss", "What the loss is made of.", steps, parts),
        ("lr", "Learning rate", "lr", "As it was stepped.", steps, rates),
    ]
    for key, title, metrics in _groups(_keys(checks)):
        made.append((key, title, "%", "Measured on the test set while it trained.", checks, metrics))
    return curves.drawable(
        Chart(
            key=key,
            title=title,
            unit=unit,
            about=about,
            series=[thin(among, each, each.replace("_", " ")) for each in keys[:MOST_SERIES]],
            zero=True,
            across="iteration" if by_step else "epoch",
        )
        for key, title, unit, about, among, keys in made
    )


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for row in rows:
        found |= {
            key: None
            for key, value in row.items()
            if key not in _NOT_SERIES and isinstance(value, int | float) and not isinstance(value, bool)
        }
    return list(found)


def _groups(metrics: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Metrics that belong on one chart: key, title, names."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        prefix = next((prefix for prefix in _GROUPS if metric.startswith(prefix)), "")
        groups.setdefault(prefix, []).append(metric)
    return [(f"metrics-{prefix or 'all'}", _GROUPS.get(prefix, "Metrics"), names) for prefix, names in groups.items()]


def _place(result: Result) -> tuple[Layout | None, Column | None]:
    """The table and column that the main metric stands in."""
    for layout in (*PAGE_LAYOUTS, *OWN_LAYOUTS):
        for column in layout.columns:
            if (column.protocol, column.metric) == (result.protocol, result.main_metric) and column.kind == "number":
                return layout, column
    return None, None


def _published(protocol: str, metric: str) -> list[published.Published]:
    """The page's first and last figure of each row, and the others'; of the paper its transfer table alone."""
    kept: dict[tuple[str, str, float], published.Published] = {}
    for one in published.figures(protocol=protocol, metric=metric):
        if one.source == published.PAPER and not protocol.startswith("detection_"):
            continue
        kept.setdefault((one.source, one.model, one.value), one)
    return list(kept.values())


def _beside(one: published.Published) -> Beside:
    sure = {"read": "", "said in a thread": ", said in a thread", "from memory": ", from memory, not verified"}
    return Beside(
        name=one.model, value=one.value, ours=False, source=f"{one.source}, {one.version}{sure[one.certainty]}"
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


PAGE_FILE = "report.html"
_OWN_SECTION = ("per_class", "pictures", "lr_sweep", "confusion", "classes", "history")  # not among the details


def has_page(folder: Path) -> bool:
    """Whether a folder is an evaluation that has more to show than a row of a table."""
    if not (folder / "result.json").is_file():
        return False
    detail = Result.read(folder / "result.json").detail
    return bool(detail.get("pictures") or detail.get("per_class"))


def write_evaluation_page(folder: Path) -> Path:
    """Write `report.html` into an evaluation's folder and return its path.

    Raises UserError where the folder holds no finished evaluation or its result is damaged.
    """
    file = folder / "result.json"
    if not file.is_file():
        raise UserError(f"{folder}: no result.json. An evaluation's folder has one when it is finished.")
    result = Result.read(file)
    page = folder / PAGE_FILE
    claims.extend(folder, [PAGE_FILE])
    write_atomic(page, render(folder, result))
    return page


def render(folder: Path, result: Result) -> str:
    """The page as text; every value of the result is escaped by the template engine."""
    drawn = charts(read_metrics(folder / "metrics.jsonl"))
    return html.template("evaluation.html").render(
        result=result,
        name=str(result.recipe.get("name") or result.protocol),
        headline=headline(result),
        classes=classes(result),
        charts=[{"chart": chart, "svg": curves.draw(chart)} for chart in drawn],
        pictures=_pictures(result.detail.get("pictures"), folder),
        sweep=_rows(result.detail.get("lr_sweep")),
        metric_rows=list(flat(result.metrics)),
        recipe_rows=list(flat(result.recipe)),
        detail_rows=list(flat({key: value for key, value in result.detail.items() if key not in _OWN_SECTION})),
        written=now(),
        style=html.style(),
        script=html.script(),
    )


def _pictures(raw: Any, folder: Path) -> list[tuple[str, Picture]]:
    """File and picture of each; those that are missing or lie outside the folder have no image."""
    album = Album(folder=folder)
    shown = []
    for entry in raw if isinstance(raw, list) else []:
        file, caption = str(entry.get("file", "")), str(entry.get("caption", ""))
        shown.append((file, Picture(uri=album.embed(file), alt=caption or file, caption=caption)))
    return shown


def _rows(raw: Any) -> list[list[Any]]:
    """A list of records as a header and rows; empty where it is none."""
    if not isinstance(raw, list) or not raw or not all(isinstance(one, dict) for one in raw):
        return []
    keys = list(dict.fromkeys(key for one in raw for key in one))
    return [keys, *([one.get(key) for key in keys] for one in raw)]
