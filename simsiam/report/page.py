"""The report of one pre-training run: a single HTML file that needs no network, and the same facts as JSON."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from simsiam import claims
from simsiam.report import answer, curves, html, pictures
from simsiam.report.collect import RunFolder, read_run
from simsiam.report.html import flat
from simsiam.results import now, write_atomic, write_json

SCHEMA = 1


def write_page(run: Path) -> Path:
    """Write `report.html` and `report.json` into a run folder and return the page's path.

    The page is also written for a run that is still running or was interrupted; it then says so. Raises UserError
    where the folder holds no run or a file of it is damaged.
    """
    folder = read_run(run)
    charts = curves.charts(folder.steps, folder.monitor, folder.detail.get("baselines") or {})
    facts = gather(folder, charts)
    claims.extend(run, ["report.html", "report.json"])
    write_json(run / "report.json", strict(facts))
    page = run / "report.html"
    write_atomic(page, render(folder, facts, charts))
    return page


def gather(folder: RunFolder, charts: list[curves.Chart]) -> dict[str, Any]:
    """Every fact of the page as plain values; what the run does not have is None or empty."""
    result, detail = folder.result, folder.detail
    said = answer.answer(folder)
    return {
        "schema": SCHEMA,
        "created": now(),
        "name": folder.name,
        "finished": result is not None,
        "answer": dataclasses.asdict(said),
        "verdict": detail.get("verdict"),
        "metrics": result.metrics if result else {},
        "baselines": detail.get("baselines") or {},
        "comparisons": [{**one, "sentence": answer.compare(one).text} for one in detail.get("comparisons") or []],
        "settings": detail.get("settings") or {},
        "curves": [dataclasses.asdict(chart) for chart in charts],
        "throughput": detail.get("throughput") or _measured_throughput(folder),
        "recipe": folder.recipe,
        "machine": folder.machine,
        "weights": dataclasses.asdict(result.weights) if result else None,
        "data": dataclasses.asdict(result.data) if result else None,
        "data_notes": detail.get("data_notes") or [],
        "notes": [note for note in result.notes if note not in (detail.get("data_notes") or [])] if result else [],
        "seed": result.seed if result else None,
        "seconds": result.seconds if result else None,
        "versions": result.versions if result else {},
        "run_ended": result.created if result else None,
        "skipped": detail.get("skipped") or {"count": max(0, len(folder.skipped) - 1), "file": None},
        "next_steps": detail.get("next_steps") or [],
    }


def render(folder: RunFolder, facts: dict[str, Any], charts: list[curves.Chart]) -> str:
    """The page as text; every value from the run is escaped by the template engine."""
    album = pictures.Album(folder=folder.path)
    shown_neighbours = pictures.neighbours(folder.figures.get("neighbours") or [], album)
    shown_views = pictures.views(folder.figures.get("views") or [], album)
    return html.template("page.html").render(
        facts=facts,
        charts=[{"chart": chart, "svg": curves.draw(chart)} for chart in charts],
        measures=answer.MEASURES,
        neighbours=shown_neighbours,
        views=shown_views,
        map=pictures.embedding_map(folder.figures.get("map") or {}, album),
        map_side=pictures.MAP_SIDE,
        colours=pictures.COLOURS,
        left_out=album.left_out,
        skipped_rows=folder.skipped,
        recipe_rows=list(flat(folder.recipe or {})),
        machine_rows=list(flat(folder.machine)),
        metric_rows=list(flat(facts["metrics"])),
        style=html.style(),
        script=html.script(),
    )


def _measured_throughput(folder: RunFolder) -> dict[str, float]:
    """What the steps say of a run that has not finished; empty where they say nothing."""
    rates = [row for row in folder.steps if isinstance(row.get("images_per_second"), int | float)]
    if not rates:
        return {}
    values = {"images_per_second": sum(row["images_per_second"] for row in rates) / len(rates)}
    waits = [row["data_wait"] for row in rates if isinstance(row.get("data_wait"), int | float)]
    return values | ({"data_wait": sum(waits) / len(waits)} if waits else {})


def strict(value: Any) -> Any:
    """The same value with null in place of NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value
