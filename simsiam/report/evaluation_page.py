"""The page of one evaluation: a single HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam import claims
from simsiam.errors import UserError
from simsiam.report import evaluation_parts, html, svg
from simsiam.report.html import flat
from simsiam.report.pictures import Album, Picture
from simsiam.results import Result, now, read_metrics, write_atomic

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
    write_atomic(page, render(folder, result).encode())
    return page


def render(folder: Path, result: Result) -> str:
    """The page as text; every value of the result is escaped by the template engine."""
    charts = evaluation_parts.charts(read_metrics(folder / "metrics.jsonl"))
    return html.template("evaluation.html").render(
        result=result,
        name=str(result.recipe.get("name") or result.protocol),
        headline=evaluation_parts.headline(result),
        classes=evaluation_parts.classes(result),
        charts=[{"chart": chart, "svg": svg.draw(chart)} for chart in charts],
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
