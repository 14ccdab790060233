"""The published figures of a zoo card, as the page's tables with a line for each version (no torch here)."""

from __future__ import annotations

from simsiam import published
from simsiam.published import Published
from simsiam.report.formats import EMPTY, markdown_table
from simsiam.report.layout import PAGE_LAYOUTS, Column, Layout
from simsiam.weights.cards import Card

_SAME = "="
_HOW = (
    "Published figures, a line for each version of the page that changed one. "
    f"{_SAME}: as in the line above. {EMPTY}: not published."
)


def figures(card: Card) -> list[Published]:
    """Every published figure of the card's row, in the order of publication."""
    return published.figures(model=card.row, source=published.PAGE if card.by == "MMSelfSup" else published.OFFICIAL)


def own_figure(card: Card, protocol: str, metric: str) -> Published | None:
    """The figure that stood on the page of the card's own version; None where it had none."""
    found = [one for one in figures(card) if (one.protocol, one.metric) == (protocol, metric)]
    if card.by == "MMSelfSup":
        found = [one for one in found if _order(one.version) <= _order(card.version)]
    return found[-1] if found else None


def published_tables(card: Card) -> list[str]:
    """The tables as lines of Markdown, with what is to be known of each line's figures below."""
    lines = [_HOW]
    for layout in PAGE_LAYOUTS:
        lines += _table(card, layout)
    return lines


def _table(card: Card, layout: Layout) -> list[str]:
    mine = [one for one in figures(card) if one.protocol in layout.protocols]
    columns = [column for column in layout.columns if any(_matches(one, column) for one in mine)]
    if not columns:
        return []
    body, before = [], [EMPTY] * len(columns)
    for version in dict.fromkeys(one.version for one in mine):
        new = [one for one in mine if one.version == version]
        cells = [_cell(new, column, layout.digits) for column in columns]
        mark = " (this model's release)" if version == card.version else ""
        known = [_SAME if old != EMPTY else EMPTY for old in before]
        body.append([version + mark, *(cell or sign for cell, sign in zip(cells, known, strict=True))])
        before = [cell or old for cell, old in zip(cells, before, strict=True)]
    head = ["Version", *(column.heading for column in columns)]
    table = markdown_table(head, body, numbers=len(columns))
    return ["", f"## {layout.title}", "", *table, "", *_notes(mine, columns)]


def _notes(mine: list[Published], columns: list[Column]) -> list[str]:
    """A line for each thing to know, with the versions and columns that it holds for."""
    said: dict[str, dict[str, set[str]]] = {}
    for one in mine:
        if one.note:
            headings = {column.heading for column in columns if _matches(one, column)}
            said.setdefault(one.note, {}).setdefault(one.version, set()).update(headings)
    lines = []
    for note, versions in said.items():
        named = set().union(*versions.values())
        which = [column.heading for column in columns if column.heading in named]
        place = [" and ".join(versions), *(which if len(which) < len(columns) else [])]
        lines.append(f"- {', '.join(place)}: {note}.")
    return lines


def _matches(one: Published, column: Column) -> bool:
    metric = "feature5" if column.kind == "best layer" else column.published or column.metric
    return one.protocol == column.protocol and one.metric == metric


def _cell(new: list[Published], column: Column, digits: int) -> str:
    """The figure that this version brought, with how sure it is where it was not read; empty if it brought none."""
    found = next((one for one in new if _matches(one, column)), None)
    if found is None:
        return ""
    text = found.metric if column.kind == "best layer" else f"{found.value:.{digits}f}"
    return text if found.certainty == "read" else f"{text} ({found.certainty})"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))
