"""The page's own tables from result records: our figures beside the published ones, with what they rest on."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from simsiam import published
from simsiam.report.collect import Found
from simsiam.report.layout import OWN_LAYOUTS, PAGE_LAYOUTS, Column, Layout
from simsiam.wording import counted, plural

Which = Literal["fitting", "measured", "ours", "all"]
NOT_HERE = "†"  # marks data that is not the published set


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry: a number with its spread, a word, or nothing."""

    value: float | None = None
    spread: float | None = None  # standard deviation
    word: str = ""

    @property
    def filled(self) -> bool:
        """Whether something stands in it."""
        return self.value is not None or bool(self.word)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    model: str
    origin: Literal["published", "ours"]
    data: str
    cells: list[Cell]
    version: str = ""  # of the page; empty for ours
    comparable: bool = True  # measured on the published data set
    results: int = 1  # how many results the figures are the mean of
    notes: list[str] = field(default_factory=list)
    caveats: str = ""  # what its figures are never quoted without, which the notes say too

    @property
    def figures(self) -> str:
        """What the second column says."""
        if self.origin == "published":
            return f"published, {self.version}"
        return "ours" if self.results == 1 else f"ours, mean of {self.results}"

    @property
    def marked_data(self) -> str:
        """The data's name, marked where our figures are not comparable with the published ones."""
        return self.data if self.comparable else f"{self.data} {NOT_HERE}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready to be written in any format."""

    key: str
    title: str
    columns: tuple[Column, ...]
    digits: int
    rows: list[Row]
    notes: list[str]


def build(found: Sequence[Found], *, which: Which = "measured") -> list[Table]:
    """The tables that the results fill, in the order of the page.

    Args:
        found: results of any protocols.
        which: "measured" has the published rows beside ours; "fitting" only where one of ours is on the published data;
            "ours" leaves them out; "all" gives every table of the page, empty ones with the published rows alone.
    """
    known = {protocol for layout in (*PAGE_LAYOUTS, *OWN_LAYOUTS) for protocol in layout.protocols}
    layouts = [*PAGE_LAYOUTS, *OWN_LAYOUTS, *_further(found, known)]
    asked = {layout.key for layout in PAGE_LAYOUTS} if which == "all" else set()
    tables = [_table(layout, found, which) for layout in layouts]
    return [table for table in tables if table.key in asked or any(row.origin == "ours" for row in table.rows)]


def _further(found: Sequence[Found], known: set[str]) -> list[Layout]:
    """Tables for protocols that no layout names, so that no result is lost without a word."""
    metrics: dict[str, dict[str, None]] = {}
    for one in found:
        if one.result.protocol not in known:
            metrics.setdefault(one.result.protocol, {}).update(dict.fromkeys(one.result.metrics))
    return [
        Layout(
            key=protocol,
            title=protocol,
            columns=tuple(Column(heading=name, protocol=protocol, metric=name) for name in names),
            digits=2,
            data=None,
        )
        for protocol, names in metrics.items()
    ]


def rows_of(layout: Layout, found: Sequence[Found]) -> list[Row]:
    """The rows of one table: each row of the page, our figures for it, then our other rows."""
    theirs, ours = _published_rows(layout), _our_rows(layout, found)
    rows: list[Row] = []
    for model in published.PAGE_MODELS:
        rows += [row for row in theirs if row.model == model]
        rows += [row for row in ours if row.model == model and row.comparable]
    return rows + [row for row in ours if row not in rows]


def _table(layout: Layout, found: Sequence[Found], which: Which) -> Table:
    rows = rows_of(layout, found)
    if which == "fitting" and not any(row.origin == "ours" and row.comparable for row in rows):
        layout = _of_other_data(layout, found)
        rows = rows_of(layout, found)
    published_too = which != "ours"
    rows = [row for row in rows if published_too or row.origin == "ours"]
    table = Table(key=layout.key, title=layout.title, columns=layout.columns, digits=layout.digits, rows=rows, notes=[])
    if layout.data is None:
        kept = [index for index in range(len(table.columns)) if any(row.cells[index] != Cell() for row in table.rows)]
        rows = [dataclasses.replace(row, cells=[row.cells[index] for index in kept]) for row in table.rows]
        table = dataclasses.replace(table, columns=tuple(table.columns[index] for index in kept), rows=rows)
    return dataclasses.replace(table, notes=_notes(layout, rows, published_too=published_too))


def _of_other_data(layout: Layout, found: Sequence[Found]) -> Layout:
    """A table of the page for results on other data alone: by the protocols' names, with everything they measured."""
    results = [one.result for one in found if one.result.protocol in layout.protocols]
    shown = {(column.protocol, column.metric) for each in (*PAGE_LAYOUTS, *OWN_LAYOUTS) for column in each.columns}
    more = dict.fromkeys((each.protocol, metric) for each in results for metric in each.metrics)
    further = [
        Column(heading=metric, protocol=protocol, metric=metric)
        for protocol, metric in more
        if (protocol, metric) not in shown
    ]
    protocols = dict.fromkeys(each.protocol for each in results)
    title = ", ".join(protocols) or layout.title
    return dataclasses.replace(layout, title=title, columns=(*layout.columns, *further), data=None)


def _published_rows(layout: Layout) -> list[Row]:
    """For each row of the page its first figures and, where they differ, its last."""
    if layout.data is None:
        return []
    rows = []
    for model in published.PAGE_MODELS:
        before: list[Cell] = []
        for version in (published.PAGE_VERSION, published.VERSIONS[-1]):
            known = [_published(model, column, version) for column in layout.columns]
            figures, cells = [figure for figure, _ in known if figure], [cell for _, cell in known]
            if figures and cells != before:
                newest = max((one.version for one in figures), key=published.VERSIONS.index)
                where = layout.data.title
                rows.append(Row(model=model, origin="published", version=newest, data=where, cells=cells))
            before = cells
    return rows


def _published(model: str, column: Column, version: str) -> tuple[published.Published | None, Cell]:
    """A figure of the page, and the cell that shows it."""
    best = column.kind == "best layer"
    metric = "feature5" if best else column.published or column.metric
    figure = published.page_figure(model, column.protocol, metric, version=version)
    if figure is None:
        return None, Cell()
    return figure, Cell(word=figure.metric) if best else Cell(value=figure.value)


def _our_rows(layout: Layout, found: Sequence[Found]) -> list[Row]:
    """One row for each model and data set; protocols that share a table share the row."""
    lines: dict[tuple[str, str, int], dict[str, list[list[Found]]]] = {}
    names = _model_names(found)
    for group in _groups([one for one in found if one.result.protocol in layout.protocols]):
        one = group[0]
        line = lines.setdefault((names[one.origin], one.result.data.name, one.result.data.images), {})
        line.setdefault(one.result.protocol, []).append(group)
    rows = []
    for (model, data, images), by_protocol in lines.items():
        for index in range(max(len(groups) for groups in by_protocol.values())):
            chosen = [groups[index] for groups in by_protocol.values() if index < len(groups)]
            rows.append(
                Row(
                    model=model,
                    origin="ours",
                    data=data,
                    comparable=layout.data is None or layout.data.matches(data, images),
                    cells=[_our_cell(column, chosen) for column in layout.columns],
                    results=max(len(group) for group in chosen),
                    notes=[_rests_on(model, group, layout) for group in chosen],
                    caveats="; ".join(caveat for group in chosen for caveat in _caveats(group)),
                )
            )
    return rows


def _groups(found: Sequence[Found]) -> list[list[Found]]:
    """Results of one experiment under several seeds together, the most repeated experiment first."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(one.same, []).append(one)
    return sorted(groups.values(), key=len, reverse=True)


def _model_names(found: Sequence[Found]) -> dict[str, str]:
    """A name for each origin; where two share a model's name, each says its run folder or its weights as well."""
    first = {one.origin: one for one in reversed(found)}
    shared = Counter(one.model for one in first.values())
    return {
        origin: f"{one.model} ({one.aside})" if shared[one.model] > 1 else one.model for origin, one in first.items()
    }


def _our_cell(column: Column, groups: Sequence[Sequence[Found]]) -> Cell:
    group = next((group for group in groups if group[0].result.protocol == column.protocol), None)
    if group is None:
        return Cell()
    if column.kind == "best layer":
        layers = {str(one.result.detail["best_layer"]) for one in group if one.result.detail.get("best_layer")}
        return Cell(word="/".join(sorted(layers)))
    values = [one.result.metrics[column.metric] for one in group if column.metric in one.result.metrics]
    if not values:
        return Cell()
    if len(values) > 1:
        return Cell(value=statistics.fmean(values), spread=statistics.stdev(values))
    samples = group[0].result.detail.get("std")
    spread = samples.get(column.metric) if isinstance(samples, dict) else None
    return Cell(value=values[0], spread=spread)


def _rests_on(model: str, group: Sequence[Found], layout: Layout) -> str:
    """One sentence: protocol, recipe, seeds, spread, weights, and what else was measured."""
    result = group[0].result
    said = [f"{model} on {result.data.name} ({counted(result.data.images, 'image')}): protocol {result.protocol}"]
    if result.recipe.get("name"):
        said.append(f"recipe {result.recipe['name']}")
    seeds = sorted({one.result.seed for one in group})
    weights = sorted({one.result.weights.sha256[:8] for one in group})
    if len(group) > 1:
        said.append(f"mean ± standard deviation of {len(group)} results")
    elif isinstance(result.detail.get("std"), dict):
        said.append("± is the standard deviation over the samples")
    said.append(f"{plural(len(seeds), 'seed')} {', '.join(str(seed) for seed in seeds)}")
    said.append(f"weights {', '.join(weights)}")
    if result.detail.get("cost_selection"):
        said.append(f"cost chosen on {result.detail['cost_selection']}")
    shown = {column.metric for column in layout.columns if column.protocol == result.protocol}
    others = [key for key in result.metrics if key not in shown and all(key in one.result.metrics for one in group)]
    figures = []
    for key in others:
        values = [one.result.metrics[key] for one in group]
        spread = f" ± {statistics.stdev(values):.{layout.digits}f}" if len(values) > 1 else ""
        figures.append(f"{key} {statistics.fmean(values):.{layout.digits}f}{spread}")
    if figures:
        said.append("also " + ", ".join(figures))
    return "; ".join([*said, *_caveats(group)]) + "."


def _caveats(group: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(caveat for one in group for caveat in one.result.caveats))


def _notes(layout: Layout, rows: Sequence[Row], *, published_too: bool) -> list[str]:
    notes = [note for row in rows for note in row.notes]
    if any(not row.comparable for row in rows):
        assert layout.data is not None
        notes.insert(0, f"{NOT_HERE} not {layout.data.title}, so not comparable with the published figures.")
    versions = dict.fromkeys(row.version for row in rows if row.origin == "published")
    if versions:
        notes.append(f"Published: {published.PAGE}, {', '.join(versions)}.")
    elif layout.data is not None and published_too:
        notes.append("No version of the page has a figure here.")
    return notes
