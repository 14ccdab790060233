"""Where a run writes: the run folder with its one owner, and what a folder that is there already must agree in."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from simsiam import claims
from simsiam.config import Machine, Pretraining, as_dict
from simsiam.data.images import BadImage, write_skipped
from simsiam.data.splits import data_id
from simsiam.engine import distributed
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.errors import UserError
from simsiam.pretraining.inputs import Inputs
from simsiam.pretraining.verdict import Check
from simsiam.results import Result, read_json, read_metrics, write_json

FILES = (  # what a run leaves in its folder
    "recipe.json",
    "metrics.jsonl",
    "skipped.csv",
    "checkpoints/*.pt",
    "checkpoints/.*.part",
    "backbone.safetensors",
    "backbone.pth",
    "figures.json",
    "figures/*.jpg",
    "result.json",
    "report.html",
    "report.json",
    "tensorboard/*",
)


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The files of one run."""

    root: Path

    @property
    def recipe(self) -> Path:
        """Recipe, machine and data: what this run is."""
        return self.root / "recipe.json"

    @property
    def result(self) -> Path:
        """The outcome; it exists when the run is finished."""
        return self.root / "result.json"

    @property
    def skipped(self) -> Path:
        """Images that could not be read."""
        return self.root / "skipped.csv"

    def checkpoints(self, recipe: Pretraining) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.root / "checkpoints", keep=recipe.keep_checkpoints)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.root / "metrics.jsonl")

    def checks(self) -> list[Check]:
        """The monitor's checks so far."""
        names = {f.name for f in dataclasses.fields(Check)}
        return [
            Check(**{key: value for key, value in row.items() if key in names})
            for row in self.metrics()
            if row["kind"] == "monitor"
        ]

    def finished(self) -> Result | None:
        """The result of a run that is done, else None."""
        return Result.read(self.result) if self.result.exists() else None

    def known_bad(self) -> dict[str, BadImage]:
        """Unreadable images that an earlier part of this run has listed, by path."""
        if not self.skipped.exists():
            return {}
        with open(self.skipped, newline="", encoding="utf-8") as file:
            return {row["path"]: BadImage(path=row["path"], reason=row["reason"]) for row in csv.DictReader(file)}

    def note_skipped(self, bad: Iterable[BadImage]) -> None:
        """List unreadable images in skipped.csv, together with those listed before."""
        write_skipped(self.skipped, bad)


@contextmanager
def claim(
    recipe: Pretraining,
    machine: Machine,
    inputs: Inputs,
    process: Process,
    *,
    init: str | None,
    resume: Literal["auto", "required"],
    labels: Path | None = None,
    compare: Sequence[str] = (),
    reads: Sequence[str | Path | None] = (),
) -> Iterator[RunFolder]:
    """Hold the run folder: a new one, or the one that holds this very run. No other process trains there meanwhile.

    Raises UserError if the folder holds another run or other files, lies among what the run `reads`, or is in use.
    """
    root = machine.out or Path("runs") / f"{recipe.name}-{inputs.name}"
    folder = RunFolder(root=Path(root))
    mine = {
        "recipe": as_dict(recipe),
        "init": init,
        "data": dataclasses.asdict(data_id(inputs.train)),
        "labels": None if inputs.labelled is None else inputs.labelled.fingerprint(),
        "compare": list(compare),
    }
    if folder.recipe.exists():
        there = read_json(folder.recipe)
        _refuse_another(there, mine, folder)
        _refuse_other_measures(there, mine, folder, labels)
    elif resume == "required":
        raise UserError(f"--resume: {folder.root} holds no run to resume. Check --out, or leave --resume out.")
    elif process.is_main and any(not each.name.startswith(".") for each in folder.root.glob("*")):
        raise UserError(f"--out {folder.root}: the folder holds other files; name a new one.")
    with ExitStack() as held:
        if process.is_main and folder.finished() is None:
            places = [Path(each) for each in reads if each is not None and Path(each).exists()]
            held.enter_context(claims.claim(folder.root, command="pretrain", makes=FILES, inputs=places, whole=True))
            if not folder.recipe.exists():
                began = {"command": sys.argv, "launcher": distributed.launcher()}
                found = {"inventory": inputs.train.inventory.facts()}
                write_json(folder.recipe, {**mine, **found, "machine": as_dict(machine), **began})
            elif there.get("compare") != mine["compare"]:  # measured at the end, which is still to come
                write_json(folder.recipe, {**there, "compare": mine["compare"]})
        distributed.barrier()
        yield folder


def _refuse_another(there: dict[str, Any], mine: dict[str, Any], folder: RunFolder) -> None:
    before, now = ({**_flat(run["recipe"]), "init": run.get("init")} for run in (there, mine))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        listed = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in differing)
        raise UserError(f"{folder.root} holds a run of another recipe ({listed}). Name a new folder with --out.")
    keys = ("sha256",) if "hashed" in there["data"] else ("name", "images")  # earlier versions hashed names and sizes
    if any(there["data"][key] != mine["data"][key] for key in keys):
        raise UserError(
            f"{folder.root} holds a run on other images ({there['data']['images']:,} of {there['data']['name']!r}; now "
            f"{mine['data']['images']:,}): files were added, removed or changed. Name a new folder with --out."
        )


def _refuse_other_measures(there: dict[str, Any], mine: dict[str, Any], folder: RunFolder, labels: Path | None) -> None:
    """Raise UserError for labels, or weights to compare with, that a run as far as it is can no longer take in."""
    other_labels = there.get("labels", mine["labels"]) != mine["labels"]
    if folder.finished() is None and other_labels:
        raise UserError(
            f"{folder.root} holds a run whose kNN was measured with other labels, and figures of both do not go "
            "together. Resume it with the labels that it began with, or name a new folder with --out."
        )
    if folder.finished() is None:
        return
    if labels is not None and other_labels:
        raise UserError(
            f"--labels {labels}: {folder.root} is finished, and was measured without these labels. To measure it with "
            f"them: simsiam evaluate few-labels {folder.root} --data {labels}"
        )
    late = [source for source in mine["compare"] if source not in there.get("compare", mine["compare"])]
    if late:
        others = " ".join(late)
        raise UserError(
            f"--compare {others}: {folder.root} is finished, and was not compared with that. To compare them now: "
            f"simsiam evaluate knn {folder.root} {others} --train DIR --test DIR"
        )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
