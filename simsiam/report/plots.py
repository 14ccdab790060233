"""Plots of results as PNG and SVG: bars by stage, low-shot lines with their spread, confusion matrices."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsiam.errors import UserError
from simsiam.report.collect import Found
from simsiam.report.layout import IMAGENET, INATURALIST, PLACES205, SVM, VOC07, Layout, features
from simsiam.report.tables import Row, rows_of
from simsiam.results import write_atomic
from simsiam.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d2024", "#5a616b", "#e2e2dc"
OURS = ("#1f5fae", "#b4560b", "#2a7d4f", "#8a5fc0", "#a33a6b", "#6b6f1a")
THEIRS = ("#6f7782", "#a2a9b3", "#c9ced5", "#e0e3e8")
MARKERS = "osD^vP"
STAGES = {
    "linear_mhead": ("linear-by-stage", "Linear classification on frozen features, by stage", "top-1, %"),
    "svm_voc07": ("svm-by-stage", "SVM on frozen features, by stage", "mAP, %"),
    "places205": ("places205-by-stage", "Places205 linear classification, by stage", "top-1, %"),
    "inaturalist2018": ("inaturalist2018-by-stage", "iNaturalist2018 linear classification, by stage", "top-1, %"),
}
STAGE_DATA = {"linear_mhead": IMAGENET, "svm_voc07": VOC07, "places205": PLACES205, "inaturalist2018": INATURALIST}
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
NUMBERS_UP_TO = 12  # classes of a confusion matrix whose cells carry their number
NAMES_UP_TO = 40  # classes of a confusion matrix whose names are written


def plot_files(drawn: Iterable[str]) -> list[str]:
    """The names of the files that `write_plots` makes of these plots."""
    return [f"{name}.{ending}" for name in drawn for ending in ("png", "svg")]


def write_plots(drawn: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each plot as PNG and as SVG, atomically; returns the files."""
    for name, figure in drawn.items():
        for file in plot_files([name]):
            content = io.BytesIO()
            ending = file.rpartition(".")[2]
            figure.savefig(content, format=ending, dpi=160, metadata={"Date": None} if ending == "svg" else None)
            write_atomic(folder / file, content.getvalue())
    return [folder / file for file in plot_files(drawn)]


def draw(found: Sequence[Found]) -> dict[str, Figure]:
    """Every plot that the results allow, by name."""
    drawn: dict[str, Figure] = {}
    for protocol, (name, title, unit) in STAGES.items():
        if any(one.result.protocol == protocol and "feature1" in one.result.metrics for one in found):
            drawn[name] = bars_by_stage(found, protocol=protocol, title=title, unit=unit)
    if any(one.result.protocol == "low_shot_voc07" for one in found):
        drawn["low-shot"] = low_shot(found)
    for one in found:
        if "confusion" in one.result.detail:
            drawn[_file_name(f"confusion-{one.model}-{one.result.protocol}-{one.result.data.name}", drawn)] = confusion(
                one.result.detail["confusion"],
                one.result.detail.get("classes"),
                title=f"{one.model}, {one.result.protocol}, {one.result.data.name}",
            )
    return drawn


def bars_by_stage(found: Sequence[Found], *, protocol: str, title: str, unit: str) -> Figure:
    """Feature1 to Feature5 as groups of bars: our rows in colour with their spread, the page's in grey."""
    layout = Layout(key=protocol, title=title, columns=features(protocol), digits=2, data=STAGE_DATA[protocol])
    rows = [row for row in _shown(rows_of(layout, found)) if any(cell.value is not None for cell in row.cells)]
    last = max(index for row in rows for index, cell in enumerate(row.cells) if cell.value is not None)
    stages = [f"feature{stage}" for stage in range(1, last + 2)]
    figure, axes = _canvas(title, width=7.6)
    width = 0.82 / len(rows)
    for index, (row, colour) in enumerate(zip(rows, _colours(rows), strict=True)):
        places = np.arange(len(stages)) + (index - (len(rows) - 1) / 2) * width
        cells = row.cells[: len(stages)]
        heights = [np.nan if cell.value is None else cell.value for cell in cells]
        spreads = [cell.spread or 0.0 for cell in cells]
        axes.bar(places, heights, width * 0.92, label=_label(row), color=colour)
        if any(spreads):
            axes.errorbar(places, heights, spreads, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for place, height, spread in zip(places, heights, spreads, strict=True):
            if len(rows) <= 4 and np.isfinite(height):
                axes.annotate(
                    f"{height:.1f}",
                    (place, height + spread),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                )
    axes.set_xticks(range(len(stages)), [stage.capitalize() for stage in stages])
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    _legend(figure)
    return figure


def low_shot(found: Sequence[Found]) -> Figure:
    """mAP against the number of positives, one line a row, a band of one standard deviation."""
    layout = Layout(key="low_shot", title="", columns=SVM.columns[2:], digits=2, data=SVM.data)
    rows = _shown(rows_of(layout, found))
    figure, axes = _canvas("Low-shot SVM", width=7.0)
    for index, (row, colour) in enumerate(zip(rows, _colours(rows), strict=True)):
        known = [(k, cell) for k, cell in zip(SHOTS, row.cells, strict=True) if cell.value is not None]
        ks = [k for k, _ in known]
        values = np.array([cell.value for _, cell in known])
        spreads = np.array([cell.spread or 0.0 for _, cell in known])
        style = "--" if row.origin == "published" else "-"
        axes.plot(
            ks, values, style, marker=MARKERS[index % len(MARKERS)], markersize=4.5, color=colour, label=_label(row)
        )
        if spreads.any():
            axes.fill_between(ks, values - spreads, values + spreads, color=colour, alpha=0.18, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SHOTS, [str(k) for k in SHOTS])
    axes.minorticks_off()
    axes.set_xlabel("positive images a class, k")
    axes.set_ylabel("mAP, %")
    _legend(figure)
    return figure


def time_shares(milliseconds: Mapping[str, float], *, title: str) -> Figure:
    """Bars of the milliseconds that each stage of the work takes for one image."""
    figure, axes = _canvas(title, width=7.0, height=1.2 + 0.45 * len(milliseconds))
    places = np.arange(len(milliseconds))[::-1]
    bars = axes.barh(places, list(milliseconds.values()), color=OURS[: len(milliseconds)], height=0.62)
    axes.bar_label(bars, [f"{value:.3g} ms" for value in milliseconds.values()], padding=4, fontsize=9, color=INK)
    axes.set_yticks(places, list(milliseconds))
    axes.set_xlabel("milliseconds for one image")
    axes.margins(x=0.16)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    return figure


def confusion(counts: Sequence[Sequence[float]], classes: Sequence[str] | None, *, title: str) -> Figure:
    """Rows are the truth, columns the answer; the colour is the share of the row in percent.

    Raises UserError where the counts are no square matrix or the names do not fit it.
    """
    matrix = np.asarray(counts, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UserError(f"{title}: the confusion matrix has shape {matrix.shape}, not square. Evaluate again.")
    names = [str(name) for name in classes] if classes else [str(index) for index in range(len(matrix))]
    if len(names) != len(matrix):
        raise UserError(f"{title}: {counted(len(names), 'class name')} for a matrix of {len(matrix)}. Evaluate again.")
    totals = matrix.sum(1, keepdims=True)
    share = 100 * np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    side = min(11.0, 3.2 + 0.34 * min(len(names), NAMES_UP_TO))
    figure, axes = _canvas(title, width=side + 0.9, height=side)
    most = max(float(share.max()), 1.0)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=most)
    axes.grid(visible=False)
    if len(names) <= NAMES_UP_TO:
        axes.set_xticks(range(len(names)), [_literal(name) for name in names], rotation=90 if len(names) > 6 else 0)
        axes.set_yticks(range(len(names)), [_literal(name) for name in names])
    if len(names) <= NUMBERS_UP_TO:
        for row in range(len(names)):
            for column in range(len(names)):
                ink = "white" if share[row, column] > 0.55 * most else INK
                text = f"{share[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("% of the class")
    bar.outline.set_visible(False)
    return figure


def _colours(rows: Sequence[Row]) -> list[str]:
    ours = iter(OURS * (len(rows) // len(OURS) + 1))
    theirs = iter(THEIRS * (len(rows) // len(THEIRS) + 1))
    return [next(ours) if row.origin == "ours" else next(theirs) for row in rows]


def _label(row: Row) -> str:
    if row.origin == "published":
        return _literal(f"{row.model} (published {row.version}, {row.data})")
    aside = "" if row.comparable else "; not comparable with the published set"
    return _literal(f"{row.model} ({row.figures}, {row.data}{aside})")


def _literal(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _shown(rows: Sequence[Row]) -> list[Row]:
    """Published rows stand beside ours only where one of ours was measured on the published set."""
    beside = any(row.origin == "ours" and row.comparable for row in rows)
    shown = [row for row in rows if row.origin == "ours" or beside]
    return shown if beside else [dataclasses.replace(row, comparable=True) for row in shown]  # nothing to compare with


def _legend(figure: Figure) -> None:
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower left", ncols=1)


def _canvas(title: str, *, width: float, height: float = 4.6) -> tuple[Figure, Axes]:
    """A figure and its axes; no global state, so plots can be drawn in any thread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(_literal(title), loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _file_name(text: str, taken: dict[str, Any]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name
