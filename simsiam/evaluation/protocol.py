"""The frame that every benchmark protocol shares: what is measured, on what, and the Result that comes out.

A protocol is a frozen dataclass whose fields are all its settings; it has no defaults, a function in
`simsiam.recipes` names every field. `run` times `score`, stamps hashes and versions on what it returns and writes
`result.json`. Nothing here imports torch, so that recipes can be listed and printed at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from simsiam import claims, limits
from simsiam.config import Machine, as_dict
from simsiam.data.splits import data_id, split_notes
from simsiam.errors import UserError
from simsiam.results import DataId, Result, versions
from simsiam.weights.pretrained import PretrainedBackbone

RESULT_FILE = "result.json"
EARLIER = "result-{}.json"  # a result of the same set with other labels or images, by the start of its data's hash
TRAINING = ("metrics.jsonl", "checkpoints/*.pt", "checkpoints/.*.part")  # what each training of an evaluation leaves
FILES = (  # what an evaluation leaves in its folder
    *(place + name for place in ("", "grid/*/", "chosen/") for name in TRAINING),
    "skipped.csv",
    "data-checked.json",
    "data-problems.txt",
    "detector.safetensors",
    "classifier.safetensors",
    "pictures/*.jpg",
    "pictures/*.png",
    "report.html",
    RESULT_FILE,
    EARLIER.format("*"),
)

Data = TypeVar("Data")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `Protocol.score` returns: the numbers, and what a reader needs to judge them."""

    metrics: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    data: Any = None  # as they were used, where a look at every image left some out


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC, Generic[Data]):
    """A benchmark: all its settings as fields, and `run`."""

    protocol: ClassVar[str]  # what Result.protocol says, e.g. "knn"; tables are found by it
    everyday: ClassVar[tuple[str, ...]] = ()  # the settings that people change: `--help` shows them
    nested_flags: ClassVar[bool] = False  # flags carry the names of the records they lie in: --architecture.rpn.ratios
    name: str  # of the recipe, e.g. "knn_in1k"

    @property
    @abstractmethod
    def main_metric(self) -> str:
        """The key of `Measured.metrics` that is quoted alone."""

    @abstractmethod
    def score(self, subject: PretrainedBackbone, data: Data, *, machine: Machine) -> Measured:
        """Compute the numbers."""

    def data_id(self, data: Data) -> DataId:
        """Which data the numbers belong to: a training and a test set, or the one set that there is."""
        parts = [getattr(data, part) for part in ("train", "test") if hasattr(data, part)]
        return data_id(*parts or [data])

    def check(self) -> None:
        """Raise UserError for settings that nothing can be measured with."""
        limits.check(self, prefixes=self.nested_flags)

    def fitted(self, recipe: Self, subject: PretrainedBackbone, data: Data) -> Self:
        """These settings as they suit the backbone and the data; what a person changed of `recipe` stays.

        Raises UserError for a change that does not suit them.
        """
        return self

    def remarks(self, subject: PretrainedBackbone, data: Data) -> list[str]:
        """What a person should know before hours are spent on this measurement."""
        return []

    def data_notes(self, data: Data) -> list[str]:
        """What a reader of the figures must know of the sets: test images that were learnt from, classes not tested."""
        train, test = getattr(data, "train", None), getattr(data, "test", None)
        return [] if train is None or test is None or train is test else split_notes(train, test)

    def run(self, subject: PretrainedBackbone, data: Data, *, machine: Machine) -> Result:
        """Score the subject and write `machine.out/result.json` (nothing is written when `out` is None).

        Raises UserError on data or weights that the protocol cannot be computed from.
        """

        from simsiam.data import inventory

        def score() -> Measured:
            measured = self.score(subject, data, machine=machine)
            accounts = inventory.of(measured.data or data)
            found = {name: account.facts() for name, account in accounts.items()}
            notes = [f"{name} set: {line}" for name, account in accounts.items() for line in account.lines()]
            return replace(
                measured,
                detail={**measured.detail, "inventory": found},
                notes=[*self.data_notes(data), *notes, *measured.notes],
            )

        return measure(self, subject, self.data_id(data), score, machine)


def measure(
    protocol: Protocol[Any], subject: PretrainedBackbone, data: DataId, score: Callable[[], Measured], machine: Machine
) -> Result:
    """Time `score`, make the Result record of it and write it atomically.

    Raises UserError if the main metric is no finite number: a table must not carry it.
    """
    started = time.perf_counter()
    measured = score()
    seconds = time.perf_counter() - started
    main = measured.metrics.get(protocol.main_metric, math.nan)
    if not math.isfinite(main):
        raise UserError(
            f"{protocol.name}: {protocol.main_metric} came out as {main}, so there is no result to write. "
            f"Check the weights ({subject.weights.source}) and that the test set has labels."
        )
    result = Result(
        protocol=protocol.protocol,
        main_metric=protocol.main_metric,
        metrics=measured.metrics,
        recipe=as_dict(protocol),
        weights=subject.weights,
        data=data,
        seed=subject.seed,
        seconds=round(seconds, 3),
        versions=versions(),
        detail=measured.detail,
        notes=measured.notes,
    )
    if machine.out is not None and os.environ.get("RANK", "0") == "0":  # of several processes, the first writes
        result.write(machine.out / RESULT_FILE)
    return result


def run_once(
    protocol: Protocol[Any], subject: PretrainedBackbone, data: Any, *, machine: Machine, again: bool
) -> Result:
    """`protocol.run`, or the result that `machine.out` holds already.

    Args:
        again: measure again even if there is a result.

    Where the labels or images of a set changed, it is measured again and the earlier result kept beside.

    Raises UserError if the folder holds a result of other settings, weights, data or seed, or a training of other
    data: nothing is overwritten unless `again` says so, and what another command made never is; and, before anything
    is measured, if it holds none and nothing can be written there, or another process is measuring there.
    """
    if machine.out is None:
        return protocol.run(subject, data, machine=machine)
    claims.refuse_owned(machine.out, "evaluate")
    file, earlier = machine.out / RESULT_FILE, None
    if file.exists() and not again:
        found = Result.read(file)
        identity = protocol.data_id(data)
        differing = _differences(found, protocol, subject, identity)
        if not differing:
            return found
        if not _is_of_changed_data(machine.out, found, identity, differing):
            older = found.data.hashed != identity.hashed
            why = f" (an earlier version wrote it, which knew data by {found.data.hashed} only)" if older else ""
            raise UserError(
                f"{machine.out}: holds a result with other {', '.join(differing)}{why}. Give another --out, or --again "
                "to replace it."
            )
        earlier = machine.out / EARLIER.format(found.data.sha256[:8])
    if os.environ.get("RANK", "0") != "0":  # the other processes wait for the first before they look
        return protocol.run(subject, data, machine=machine)
    keep = () if earlier is None else (RESULT_FILE, EARLIER.format("*"))
    renewed = again or earlier is not None
    with claims.claim(machine.out, command="evaluate", makes=FILES, whole=True, again=renewed, keep=keep):
        if earlier is not None:
            os.replace(file, earlier)
            print(
                f"{machine.out}: the images or labels of {protocol.data_id(data).name} changed since the result there; "
                f"measured again, and that one is kept as {earlier.name}.",
                file=sys.stderr,
            )
        return protocol.run(subject, data, machine=machine)


def _is_of_changed_data(folder: Path, found: Result, data: DataId, differing: Sequence[str]) -> bool:
    """Whether a result is of the same set as it was before, in a folder without a training, which takes long."""
    same_set = differing == ["data"] and found.data.name == data.name and found.data.hashed == data.hashed
    listed = folder / RESULT_FILE in claims.made_below(folder, "evaluate")
    return same_set and listed and not claims.present(folder, [name for name in FILES if "checkpoints/" in name])


def _differences(found: Result, protocol: Protocol[Any], subject: PretrainedBackbone, data: DataId) -> list[str]:
    recipe = json.loads(json.dumps(as_dict(protocol)))  # as it comes back from a file
    pairs = {
        "settings": (found.recipe, recipe),
        "weights": (found.weights.sha256, subject.weights.sha256),
        "data": (found.data.sha256, data.sha256),
        "seed": (found.seed, subject.seed),
    }
    return [name for name, (one, other) in pairs.items() if one != other]


def named(settings: Protocol[Any], recipe: Protocol[Any]) -> Protocol[Any]:
    """The settings under a name that says where they differ from the recipe: no table shall call them by its name."""
    changes = [f"{key.replace('_', '-')} {shown}" for key, shown in changed(recipe, settings).items()]
    if not changes or settings.name != recipe.name:
        return settings
    return replace(settings, name=f"{recipe.name} ({', '.join(changes)})")


def changed(old: Protocol[Any], new: Protocol[Any]) -> dict[str, str]:
    """The settings of `new` that differ from `old`, by the field's name and as words."""
    return dict(_changes(as_dict(old), as_dict(new)))


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    changes = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old[key], dict):
            changes += _changes(old[key], value)
        elif value != old[key]:
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            changes.append((key, shown))
    return changes
