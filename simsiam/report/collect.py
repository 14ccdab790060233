"""Reads what runs and evaluations left: a run's folder, and result files with the model that each belongs to."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam.config import command_to_go_on
from simsiam.errors import UserError
from simsiam.results import Result, read_json, read_metrics

RESULT_FILE = "result.json"
RECIPE_FILE = "recipe.json"
RANDOM = "random"  # what the source of untrained weights begins with: random, random:resnet18, random:RUN


@dataclass(frozen=True, kw_only=True)
class Found:
    """One result with the model it belongs to."""

    path: Path
    result: Result
    model: str  # the pre-training recipe's name where the weights are a run's, else what the user named
    origin: str  # equal for weights of one experiment repeated with other seeds
    same: str  # equal for results of one protocol on one data set with such weights
    aside: str  # tells models of one name apart: the run folder's name, else the hash of the weights


@dataclass(frozen=True, kw_only=True)
class Run:
    """The pre-training run that weights come from."""

    folder: Path
    recipe: dict[str, Any]


def collect(places: Sequence[Path]) -> list[Found]:
    """Every result under the folders and files named, in a fixed order, without repeats.

    Of results that share protocol, settings, weights, data and seed only the newest is kept. Raises UserError where
    a place does not exist or holds no result, and names the file that is damaged.
    """
    found: dict[str, Found] = {}
    for path in _result_files(places):
        result = Result.read(path)
        run = _run_of(path, result)
        origin = _origin(result, run)
        one = Found(
            path=path,
            result=result,
            model=str(run.recipe.get("name", run.folder.name)) if run else _plain_name(result.weights.source),
            origin=origin,
            same=_as_key(result.protocol, _without_seed(result.recipe), result.data.name, result.data.sha256, origin),
            aside=run.folder.name if run else result.weights.sha256[:8],
        )
        key = f"{one.same} {result.weights.sha256} {result.seed}"
        if key not in found or result.created >= found[key].result.created:
            found[key] = one
    return sorted(found.values(), key=lambda one: (one.model, one.result.protocol, one.result.data.name, str(one.path)))


def _result_files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_file():
            yield place
            continue
        if not place.is_dir():
            raise UserError(f"{place}: no such file or folder. Name run folders, evaluation folders or result files.")
        files = sorted(place.rglob(RESULT_FILE))
        if not files:
            raise UserError(f"{place}: no {RESULT_FILE} in it or below it. A run has one when it is finished.")
        yield from files


def _run_of(path: Path, result: Result) -> Run | None:
    """The run whose weights were measured; a run folder that was moved is known by its name.

    A result that lies in a run folder but measured other weights (a random network, say) is not the run's.
    """
    if result.weights.source.startswith(RANDOM):
        return None
    source = Path(result.weights.source)
    for folder in (source, *list(source.parents)[:2]):  # the run itself, its backbone file, one of its checkpoints
        if (folder / RECIPE_FILE).is_file() and str(folder) != ".":
            return _read_run(folder)
    named = {source.name, *(folder.name for folder in list(source.parents)[:2])} - {""}
    for folder in path.resolve().parents:
        if folder.name in named and (folder / RECIPE_FILE).is_file():
            return _read_run(folder)
    return None


def _read_run(folder: Path) -> Run | None:
    written = read_json(folder / RECIPE_FILE)
    recipe = written.get("recipe") if isinstance(written, dict) else None
    return Run(folder=folder.resolve(), recipe=recipe) if isinstance(recipe, dict) else None


def _plain_name(source: str) -> str:
    if source.startswith(RANDOM):
        like = source.removeprefix(RANDOM).lstrip(":")
        return f"{Path(like).name or like}, untrained" if like else "untrained"
    return Path(source).name or source


def _origin(result: Result, run: Run | None) -> str:
    """What stays the same when all is repeated with another seed: recipe and data, or an untrained network's name."""
    if run is None:
        source = result.weights.source
        return source if source.startswith(RANDOM) else result.weights.sha256
    trained = run.folder / RESULT_FILE
    data = Result.read(trained).data.sha256 if trained.is_file() else ""
    return _as_key(_without_seed(run.recipe), data)


def _as_key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


def _without_seed(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "seed"}


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
    go_on: str  # the command that resumes an interrupted run

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
    skipped: list[list[str]] = []
    if (path / "skipped.csv").exists():
        with open(path / "skipped.csv", newline="", encoding="utf-8", errors="replace") as file:
            skipped = list(itertools.islice(csv.reader(file), SKIPPED_SHOWN + 1))
    written = _mapping(recipe_file) if recipe_file.exists() else {}
    return RunFolder(
        path=path,
        recipe=written.get("recipe"),
        machine=written.get("machine") or {},
        result=Result.read(result_file) if result_file.exists() else None,
        steps=[row for row in rows if row.get("kind") == "step"],
        monitor=[row for row in rows if row.get("kind") == "monitor"],
        figures=_mapping(figures_file) if figures_file.exists() else {},
        skipped=skipped,
        go_on=command_to_go_on(written, path),
    )


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}. Run the training again.")
    return value
