"""Reads what a pre-training run left in its folder, whole or cut short."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam.config import command_to_go_on
from simsiam.errors import UserError
from simsiam.results import Result, read_json, read_metrics

SKIPPED_SHOWN = 30  # rows of skipped.csv on the page; the file holds them all


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The files of one run; what the run has not written yet is None or empty."""

    path: Path
    recipe: dict[str, Any] | None
    machine: dict[str, Any]
    result: Result | None  # None: still running, or interrupted
    steps: list[dict[str, Any]]
    monitor: list[dict[str, Any]]
    figures: dict[str, Any]
    skipped: list[list[str]]  # header and first rows of skipped.csv
    go_on: str  # the command with which a run that was cut short goes on

    @property
    def name(self) -> str:
        """The recipe's name, else the folder's."""
        return str((self.recipe or {}).get("name") or self.path.resolve().name)

    @property
    def detail(self) -> dict[str, Any]:
        """The result's detail; empty while there is no result."""
        return self.result.detail if self.result else {}


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises UserError where the folder holds no run, or names the file that is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder. Name the folder that `simsiam pretrain` wrote.")
    rows = read_metrics(path / "metrics.jsonl")
    recipe_file, result_file, figures_file = (path / f"{name}.json" for name in ("recipe", "result", "figures"))
    if not rows and not recipe_file.exists() and not result_file.exists():
        raise UserError(
            f"{path}: holds no recipe.json, metrics.jsonl or result.json, so it is no run folder. "
            "Name the folder that `simsiam pretrain` wrote."
        )
    written = _mapping(recipe_file) if recipe_file.exists() else {}
    return RunFolder(
        path=path,
        recipe=written.get("recipe"),
        machine=written.get("machine") or {},
        result=Result.read(result_file) if result_file.exists() else None,
        steps=[row for row in rows if row.get("kind") == "step"],
        monitor=[row for row in rows if row.get("kind") == "monitor"],
        figures=_mapping(figures_file) if figures_file.exists() else {},
        skipped=_skipped(path / "skipped.csv"),
        go_on=command_to_go_on(written, path),
    )


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}. Run the training again.")
    return value


def _skipped(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return [row for row, _ in zip(csv.reader(file), range(SKIPPED_SHOWN + 1), strict=False)]
