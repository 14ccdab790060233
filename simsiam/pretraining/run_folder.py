"""Where a run writes: the run folder with its one owner, and what a folder that is there already must agree in."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from simsiam import claims
from simsiam.config import Machine, Pretraining, as_dict, with_later_fields
from simsiam.data import inventory, photos
from simsiam.data.images import BadImage
from simsiam.data.source import Source
from simsiam.data.splits import data_id
from simsiam.engine import distributed
from simsiam.engine.distributed import Process
from simsiam.errors import UserError
from simsiam.pretraining.inputs import Inputs
from simsiam.pretraining.verdict import Check
from simsiam.report.html import flat
from simsiam.results import Result, read_json, read_metrics, write_json

SKIPPED = "skipped.csv"  # images that could not be read
FILES = (  # what a run leaves in its folder
    "recipe.json",
    "metrics.jsonl",
    SKIPPED,
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


class MeasuredOtherwise(UserError):
    """A finished run that was measured with other labels, or against other weights; `command` measures it anew."""

    def __init__(self, message: str, *, command: tuple[str, ...]) -> None:
        super().__init__(f"{message}: {shlex.join(('simsiam', *command))}")
        self.command = command


def checks(root: Path) -> list[Check]:
    """The monitor's checks so far."""
    names = {f.name for f in dataclasses.fields(Check)}
    return [
        Check(**{key: value for key, value in row.items() if key in names})
        for row in read_metrics(root / "metrics.jsonl")
        if row["kind"] == "monitor"
    ]


def finished(root: Path) -> Result | None:
    """The result of a run that is done, else None."""
    return Result.read(root / "result.json") if (root / "result.json").exists() else None


def known_bad(root: Path) -> dict[str, BadImage]:
    """Unreadable images that an earlier part of this run has listed in skipped.csv, by path."""
    if not (root / SKIPPED).exists():
        return {}
    with open(root / SKIPPED, newline="", encoding="utf-8") as file:
        return {row["path"]: BadImage(path=row["path"], reason=row["reason"]) for row in csv.DictReader(file)}


def place(recipe: Pretraining, machine: Machine, inputs: Inputs) -> Path:
    """The run folder: as the machine says, else one named after recipe and data."""
    return Path(machine.out or Path("runs") / f"{recipe.name}-{inputs.name}")


def planned(root: Path, recipe: Pretraining, minutes: float) -> Pretraining | None:
    """The recipe with the length that a run in the folder has planned for so many minutes; None where none is there.

    Raises UserError if the run there was begun without, or with others.
    """
    if not (root / "recipe.json").exists():
        return None
    there = read_json(root / "recipe.json")
    if there.get("minutes") != minutes:
        was = f"--minutes {there['minutes']:g}" if there.get("minutes") else "no --minutes"
        raise UserError(
            f"--minutes {minutes:g}: {root} holds a run that began with {was}. Resume it as it began, or name a new "
            "folder with --out."
        )
    fields = ("epochs", "train_images", "monitor_every", "checkpoint_every")
    return dataclasses.replace(recipe, **{name: there["recipe"][name] for name in fields})


def as_begun(root: Path, inputs: Inputs, machine: Machine) -> Inputs:
    """The images decoded as the run in the folder began with, once or every time: the pixels differ a little."""
    if not (root / "recipe.json").exists():
        return inputs
    side = read_json(root / "recipe.json").get("photo_side")
    if side == inputs.photo_side:
        return inputs
    return inputs.kept_in(None if side is None else photos.opened(side, cache=machine.cache)[0])


@contextmanager
def claim(
    recipe: Pretraining,
    machine: Machine,
    inputs: Inputs,
    process: Process,
    *,
    init: str | None,
    resume: Literal["auto", "required"],
    minutes: float | None = None,
    labels: Path | None = None,
    compare: Sequence[str] = (),
    reads: Sequence[str | Path | None] = (),
) -> Iterator[Path]:
    """Hold the run folder: a new one, or the one that holds this very run. No other process trains there meanwhile.

    Raises UserError if the folder holds another run or other files, lies among what the run `reads`, or is in use.
    """
    root = place(recipe, machine, inputs)
    record = root / "recipe.json"
    mine = {
        "recipe": as_dict(recipe),
        "init": init,
        # the content is read beside the training (`note_content`): until then, the stamps tell whether it is the same
        "data": {"name": inputs.name, "images": len(inputs.train), "sha256": None, "hashed": "content"},
        "labels": None,
        "stamps": {what: _stamp(parts) for what, parts in _sets(inputs).items()},
        "compare": list(compare),
        "photo_side": inputs.photo_side,
    }
    if record.exists():
        there = read_json(record)
        _refuse_another(there, mine, inputs, root)
        _refuse_other_measures(there, mine, inputs, root, labels)
    elif resume == "required":
        raise UserError(f"--resume: {root} holds no run to resume. Check --out, or leave --resume out.")
    elif process.is_main and any(not each.name.startswith(".") for each in root.glob("*")):
        raise UserError(f"--out {root}: the folder holds other files; name a new one.")
    with ExitStack() as held:
        if process.is_main and finished(root) is None:
            places = [Path(each) for each in reads if each is not None and Path(each).exists()]
            places += inventory.folders([inputs.train], places)
            held.enter_context(claims.claim(root, command="pretrain", makes=FILES, inputs=places, whole=True))
            if not record.exists():
                began = {"command": sys.argv, "launcher": distributed.launcher(), "minutes": minutes}
                found = {"inventory": inputs.train.inventory.facts()}
                write_json(record, {**mine, **found, "machine": as_dict(machine), **began})
            elif there.get("compare") != mine["compare"]:  # measured at the end, which is still to come
                write_json(record, {**there, "compare": mine["compare"]})
        distributed.barrier()
        yield root


def note_content(root: Path, inputs: Inputs) -> None:
    """Read what the images hold, for as long as that takes, and write it into recipe.json.

    For a thread of its own, a daemon: on Linux it steps back behind the training.
    """
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    with suppress(OSError, UserError):  # what is wrong with the files shows where they are read
        found = {what: data_id(*parts).sha256 if parts else None for what, parts in _sets(inputs).items()}
        record = root / "recipe.json"
        there = read_json(record)
        if there["data"]["sha256"] is None:
            data = {**there["data"], "sha256": found["data"]}
            write_json(record, {**there, "data": data, "labels": found["labels"]})


def changed_images(root: Path, inputs: Inputs) -> list[str]:
    """A note where the images are no longer those that a run was begun on, or none."""
    there = read_json(root / "recipe.json")
    if "stamps" not in there or there["data"]["sha256"] in (None, data_id(inputs.train).sha256):
        return []
    return ["the training images changed while the run lasted: what lies there now is not what it was begun on"]


def _sets(inputs: Inputs) -> dict[str, list[Source]]:
    labelled = inputs.labelled
    return {"data": [inputs.train], "labels": [] if labelled is None else [labelled.references, labelled.queries]}


def _stamp(parts: list[Source]) -> str | None:
    joined = "\n".join(part.stamped() for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest() if parts else None


def _same(there: dict[str, Any], inputs: Inputs, what: Literal["data", "labels"]) -> bool:
    """Whether a run was begun on these images or labels: by their stamps, else by their content."""
    if what not in there:  # an earlier version did not write the labels down
        return True
    known, parts = there["data"]["sha256"] if what == "data" else there["labels"], _sets(inputs)[what]
    if "stamps" in there:
        if there["stamps"][what] == _stamp(parts):
            return True
        if known is None:  # no labels, or the run ended before the content was read
            return False
    same: bool = known == (data_id(*parts).sha256 if parts else None)
    return same


def _refuse_another(there: dict[str, Any], mine: dict[str, Any], inputs: Inputs, root: Path) -> None:
    before, now = ({**dict(flat(with_later_fields(run["recipe"]))), "init": run.get("init")} for run in (there, mine))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        listed = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in differing)
        raise UserError(f"{root} holds a run of another recipe ({listed}). Name a new folder with --out.")
    if "hashed" in there["data"]:
        same = _same(there, inputs, "data")
    else:  # earlier versions hashed names and sizes
        same = all(there["data"][key] == mine["data"][key] for key in ("name", "images"))
    if not same:
        raise UserError(
            f"{root} holds a run on other images ({there['data']['images']:,} of {there['data']['name']!r}; now "
            f"{mine['data']['images']:,}): files were added, removed or changed. Name a new folder with --out."
        )


def _refuse_other_measures(
    there: dict[str, Any], mine: dict[str, Any], inputs: Inputs, root: Path, labels: Path | None
) -> None:
    """Raise UserError for labels, or weights to compare with, that a run as far as it is can no longer take in."""
    other_labels = not _same(there, inputs, "labels")
    if finished(root) is None and other_labels:
        raise UserError(
            f"{root} holds a run whose kNN was measured with other labels, and figures of both do not go "
            "together. Resume it with the labels that it began with, or name a new folder with --out."
        )
    if finished(root) is None:
        return
    late = [source for source in mine["compare"] if source not in there.get("compare", mine["compare"])]
    if labels is not None and (other_labels or late):
        what = f"--labels {labels}" if other_labels else f"--compare {' '.join(late)}"
        raise MeasuredOtherwise(
            f"{what}: {root} is finished, and was measured without. This measures it with them",
            command=("evaluate", "few-labels", str(root), *late, "--data", str(labels)),
        )
    if late:
        others = " ".join(late)
        raise UserError(
            f"--compare {others}: {root} is finished, and was not compared with that. To compare them now on labelled "
            f"images: simsiam evaluate few-labels {root} {others} --data LABELS"
        )
