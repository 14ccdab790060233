"""What a run begins with: its images, labels, network, loader and monitor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simsiam.backbones import ResNet
from simsiam.config import Machine, Pretraining, cache_folder, loader_workers
from simsiam.data import inventory, photos
from simsiam.data.classification import datasets
from simsiam.data.photos import KeptPhotos
from simsiam.data.sources import FolderSource, Source, open_source, split_held_out
from simsiam.data.two_views.draws import decoded_side
from simsiam.data.two_views.loader import ViewLoader, require_full_batch
from simsiam.engine import distributed, precision
from simsiam.engine.distributed import Process
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.pretraining.measures import Labelled
from simsiam.pretraining.monitor import Monitor, preprocess_of
from simsiam.weights.load import load_backbone

KNN_REFERENCES = 10_000
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

    @property
    def photo_side(self) -> int | None:
        """The short side in pixels at which large photos are kept once decoded; None where they are not."""
        return None if self.train.photos is None else self.train.photos.side

    def kept_in(self, photos: KeptPhotos | None) -> Inputs:
        """The same images, the large ones decoded once; None: every time."""
        labelled = self.labelled
        if labelled is not None:
            references, queries = (each.kept_in(photos) for each in (labelled.references, labelled.queries))
            labelled = replace(labelled, references=references, queries=queries)
        train, held_out = self.train.kept_in(photos), self.held_out.kept_in(photos)
        return replace(self, train=train, held_out=held_out, labelled=labelled)


def open_inputs(recipe: Pretraining, *, data: str | Path | None, labels: Path | None, machine: Machine) -> Inputs:
    """Open the training images, hold some out, and find labels for the online kNN if there are any.

    Raises UserError when the images or labels cannot be found or read.
    """
    cache = cache_folder(machine.cache)
    notes: list[str] = []
    train: Source
    if recipe.data_kind == "demo":
        from simsiam.data.classification.torchvision_sets import demo_sources

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
            train, held_out = _split(_decoded_once(train, recipe, machine, notes), recipe)
    else:
        if data is None:
            raise UserError("say where the images are: simsiam pretrain FOLDER")
        train = _decoded_once(open_source(data, kind=recipe.data_kind, cache=cache), recipe, machine, notes)
        train, held_out = _split(train, recipe)
    if recipe.train_images:
        train = _sample(train, recipe.train_images, recipe.seed)
    if _watches_training(recipe):
        notes.append("No image is held out (--monitor-images 0): what is measured is measured on training images.")
    notes += inventory.lines([train])
    labelled = _labelled(train, held_out, labels, recipe, cache)
    of_folders = recipe.data_kind == "folder" and isinstance(getattr(train, "base", train), FolderSource)
    if labels is None and train.classes is not None and held_out.labels is not None and of_folders:
        useless = None if labelled else inventory.useless_labels(_known_labels(train, held_out))
        what = f"their {len(train.classes):,} sub-folders are taken as classes, for the kNN accuracy alone"
        notes.append(f"{train.name}: {what}; {useless}, so none is quoted" if useless else f"{train.name}: {what}")
    return Inputs(train=train, held_out=held_out, labelled=labelled, notes=notes)


def require_fitting(recipe: Pretraining, inputs: Inputs, process: Process) -> None:
    """Raise UserError where batch, images, processes and number format do not go together."""
    rows = distributed.per_device_batch(recipe.batch_size, process.world)
    if rows == 1 and (process.world == 1 or process.device.type != "cuda"):  # SyncBatchNorm sees those of all GPUs
        raise UserError(
            f"--batch-size {recipe.batch_size}: BatchNorm compares the images of a device with each other, so each "
            f"takes two at least: --batch-size {2 * process.world} or more."
        )
    require_full_batch(inputs.train, recipe.batch_size, process.world)
    precision.prepare(recipe.precision, process.device)


def _decoded_once(source: Source, recipe: Pretraining, machine: Machine, notes: list[str]) -> Source:
    """The source with its photos kept where they are much larger than views and measurements need, which is noted."""
    if machine.photo_cache == "off" or machine.views_engine == "pil":  # the reference decodes whole photos
        return source
    needed = max(decoded_side(recipe.views), preprocess_of(recipe.views).decoded_side)
    chosen = photos.choose(source.files(), needed=needed, cache=machine.cache)
    notes += chosen.notes
    return source if chosen.photos is None else source.kept_in(chosen.photos)


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


def _labelled(
    train: Source, held_out: Source, labels: Path | None, recipe: Pretraining, cache: Path
) -> Labelled | None:
    """Labels of the user's own, else those of the data set, else none."""
    if labels is not None:
        own = datasets.labelled(str(labels), cache=cache, split="train").kept_in(train.photos)
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
        if state is not None and (
            {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in state.items()}
        ):
            head.load_state_dict(state)
            notes.append(f"{name} from {init}")
        elif head.state_dict():  # not the ablation without a predictor
            why = (
                "has none" if state is None else "has one of another shape; `simsiam import` prints the flags that fit"
            )
            notes.append(f"{name} starts at random: {init} {why}")
    return Start(network=network, notes=notes)


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


def open_loader(
    recipe: Pretraining, machine: Machine, inputs: Inputs, process: Process, *, channels_last: bool
) -> ViewLoader:
    """The training batches of a run, by the engine that suits the images and the device where none is named."""
    in_memory = inputs.train.pixels is not None
    engine: Any = machine.views_engine
    if engine == "auto":
        engine = "batch" if in_memory or process.device.type != "cpu" else "opencv"
    return ViewLoader(
        inputs.train,
        recipe.views,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        rank=process.rank,
        world=process.world,
        workers=workers(machine, inputs.train, process.world),
        engine=engine,
        device=process.device,
        channels_last=channels_last,
    )
