"""What a run reads and where it writes: the sources, the labels, and the run folder with its one owner."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from simsiam import claims
from simsiam.backbones import ResNet
from simsiam.config import Machine, Pretraining, as_dict, cache_folder, loader_workers
from simsiam.data import inventory
from simsiam.data.classification.labels import labelled_source
from simsiam.data.images import BadImage, write_skipped
from simsiam.data.sources import Source, open_source, split_held_out
from simsiam.data.splits import data_id, shared_images
from simsiam.engine import distributed
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.pretraining.monitor import Labelled, Monitor
from simsiam.pretraining.verdict import Check
from simsiam.results import Result, read_json, read_metrics, write_json
from simsiam.weights.load import load_backbone

KNN_REFERENCES = 10_000
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
WATCHED = 1000  # training images that the monitor looks at where none are held out


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The images of a run."""

    train: Source
    held_out: Source
    labelled: Labelled | None
    notes: list[str] = field(default_factory=list)  # what a reader must know, such as a fallback data set

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.train.name


def open_inputs(recipe: Pretraining, *, data: str | Path | None, labels: Path | None, machine: Machine) -> Inputs:
    """Open the training images, hold some out, and find labels for the online kNN if there are any.

    Raises UserError when the images or labels cannot be found or read.
    """
    cache = cache_folder(machine.cache)
    notes: list[str] = []
    train: Source
    if recipe.data_kind == "demo":
        from simsiam.data.classification.cifar import demo_sources

        demo = demo_sources(cache)
        notes.append(demo.note)
        train, held_out = demo.train, _sample(demo.test, recipe.monitor_images or WATCHED, recipe.seed)
    elif recipe.data_kind in ("cifar10", "imagenet"):
        where = data if data not in (None, recipe.data_kind) else None
        if recipe.data_kind == "imagenet" and where is None:
            raise UserError(f"recipe {recipe.name} needs the ImageNet folder: simsiam pretrain FOLDER --recipe ...")
        train = open_source(where or recipe.data_kind, kind=recipe.data_kind, split="train", cache=cache)
        if recipe.data_kind == "cifar10":
            test = open_source(where or recipe.data_kind, kind=recipe.data_kind, split="test", cache=cache)
            held_out = _sample(test, recipe.monitor_images or WATCHED, recipe.seed)
        else:
            train, held_out = _split(train, recipe)
    else:
        if data is None:
            raise UserError("say where the images are: simsiam pretrain FOLDER")
        train, held_out = _split(open_source(data, kind=recipe.data_kind, cache=cache), recipe)
    if _watches_training(recipe):
        notes.append("No image is held out (--monitor-images 0): what is measured is measured on training images.")
    notes += shared_images(train, held_out, what="held-out image")
    notes += inventory.lines([train])
    labelled = _labelled(train, held_out, labels, recipe)
    if labels is None and train.classes is not None and held_out.labels is not None and recipe.data_kind == "folder":
        useless = None if labelled else inventory.useless_labels(_known_labels(train, held_out))
        what = f"their {len(train.classes):,} sub-folders are taken as classes, for the kNN accuracy alone"
        notes.append(f"{train.name}: {what}; {useless}, so none is quoted" if useless else f"{train.name}: {what}")
    return Inputs(train=train, held_out=held_out, labelled=labelled, notes=notes)


def _watches_training(recipe: Pretraining) -> bool:
    """Whether every image is trained on, as in the published runs; sets with a test split hold that out."""
    return recipe.monitor_images == 0 and recipe.data_kind not in ("demo", "cifar10")


def _split(source: Source, recipe: Pretraining) -> tuple[Source, Source]:
    if _watches_training(recipe):
        return source, _sample(source, WATCHED, recipe.seed)
    split = split_held_out(source, images=recipe.monitor_images, seed=recipe.seed)
    return split.train, split.held_out


def _sample(source: Source, count: int, seed: int) -> Source:
    if len(source) <= count:
        return source
    return source.subset(np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False)))


def _labelled(train: Source, held_out: Source, labels: Path | None, recipe: Pretraining) -> Labelled | None:
    """Labels of the user's own, else those of the data set, else none."""
    if labels is not None:
        own = labelled_source(labels)
        assert own.labels is not None
        known = own.subset(np.flatnonzero(own.labels >= 0))
        sample = _sample(known, KNN_REFERENCES, recipe.seed)
        return Labelled(references=sample, queries=sample, own_row="skip")
    if inventory.useless_labels(_known_labels(train, held_out)):
        return None
    assert train.labels is not None
    assert held_out.labels is not None
    if _watches_training(recipe):
        known = held_out.subset(np.flatnonzero(held_out.labels >= 0))
        return Labelled(references=known, queries=known, own_row="skip") if len(known) > 1 else None
    references = _sample(train.subset(np.flatnonzero(train.labels >= 0)), KNN_REFERENCES, recipe.seed)
    queries = held_out.subset(np.flatnonzero(held_out.labels >= 0))
    return Labelled(references=references, queries=queries, own_row="keep") if len(queries) else None


def _known_labels(train: Source, held_out: Source) -> np.ndarray | None:
    if train.labels is None or held_out.labels is None:
        return None
    return np.concatenate([train.labels, held_out.labels])


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network before its first step, and which of its parts came from a file."""

    network: SimSiam
    notes: list[str]


def start_network(recipe: Pretraining, init: str | None) -> Start:
    """The network at its start: random by the recipe's seed, or from a file of weights.

    Raises UserError if the file does not fill the backbone; heads are taken over where the file has fitting ones, and
    a note says so of each.
    """
    torch.manual_seed(recipe.seed)
    network = SimSiam(recipe.model)
    if init is None:
        return Start(network=network, notes=[])
    model = recipe.model
    loaded = load_backbone(
        init, backbone=model.backbone, width=model.width, stem=model.stem, backbone_flag="--model.backbone"
    )
    network.backbone.load_state_dict(loaded.backbone.state_dict())
    if isinstance(network.backbone, ResNet) and isinstance(loaded.backbone, ResNet):
        network.backbone.conv1.padding = loaded.backbone.conv1.padding  # some programs pad a 3x3 stem otherwise
    notes = [f"backbone from {init} ({loaded.source_format})", *loaded.notes]
    for name, head, state in (
        ("projector", network.projector, loaded.projector),
        ("predictor", network.predictor, loaded.predictor),
    ):
        if state is not None and _fits(head.state_dict(), state):
            head.load_state_dict(state)
            notes.append(f"{name} from {init}")
        elif head.state_dict():  # not the ablation without a predictor
            why = (
                "has none" if state is None else "has one of another shape; `simsiam import` prints the flags that fit"
            )
            notes.append(f"{name} starts at random: {init} {why}")
    return Start(network=network, notes=notes)


def _fits(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in other.items()}


def workers(machine: Machine, source: Source, world: int) -> int:
    """Processes that decode images for one device: none for a set in memory, else a share of the cores."""
    return 0 if source.pixels is not None else loader_workers(machine, world=world)


def open_monitor(recipe: Pretraining, machine: Machine, inputs: Inputs, process: Process) -> Monitor:
    """The monitor of a run, on its held-out images."""
    return Monitor(
        inputs.held_out,
        inputs.labelled,
        views=recipe.views,
        seed=recipe.seed,
        device=process.device,
        workers=workers(machine, inputs.train, process.world),
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
