"""What `embed`, `neighbors` and `browse` have in common: the weights, the images, and how the images are embedded."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from simsiam import limits
from simsiam.commands.reading import read as read_line
from simsiam.config import Machine
from simsiam.embedding.vectors import Embedding, embedding
from simsiam.limits import Count, Workers
from simsiam.wording import counted, one_line

if TYPE_CHECKING:
    from simsiam.data.sources import Source
    from simsiam.embedding.vectors import Embedded
    from simsiam.weights.pretrained import PretrainedBackbone

SHOWN = 10  # unreadable images that are named on the terminal
WEIGHTS = "a run folder, a file, a zoo name; random:resnet18 for an untrained network"
IMAGES = "a folder, a text list, tar shards, one picture, cifar10, cifar100 or fashion-mnist"
SETS = ("cifar10", "cifar100", "fashion-mnist", "demo")
IN_HELP = ("weights", "images", "size", "device", "layer", "normalise", "batch_size")  # with a verb's own flags


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is embedded, by which weights, on which device."""

    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS", help=WEIGHTS)]
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES", help=IMAGES)]
    split: Literal["train", "test"] = "train"  # Which part of a set that has two, such as cifar10.
    size: Count | None = None  # Side of the images in pixels; by default the size the weights were trained at.
    backbone: str | None = None  # The network, if it cannot be inferred from the weights: resnet18, or timm:NAME.
    device: str = "auto"  # Where to compute: auto, cpu, cuda, cuda:N or mps.
    workers: Workers = -1  # Processes that decode images; -1: one fewer than the CPU cores, at most 8.
    cache: Path | None = None  # Folder of vectors and downloads; without it, SIMSIAM_CACHE or ~/.cache/simsiam.

    @property
    def machine(self) -> Machine:
        """The part of it that the library asks for."""
        return Machine(device=self.device, workers=self.workers, cache=self.cache)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words of a command, read."""

    inputs: Inputs
    options: Any  # the record that `read` was given
    settings: Embedding
    subject: PretrainedBackbone

    @property
    def reads(self) -> list[Path]:
        """Where the images lie, if they are no set of a name; no output may lie there."""
        from simsiam.data import inventory

        place = Path(self.inputs.images)
        listed = inventory.folders([self.source], [place]) if place.is_file() else []
        return [place, *listed] if place.exists() else []

    @functools.cached_property
    def source(self) -> Source:
        """The images; raises UserError if there are none."""
        return open_images(self.inputs)

    def embed(self) -> Embedded:
        """The vectors of the images, from the cache or computed into it, with a word on those left out."""
        from simsiam.data import inventory
        from simsiam.embedding.vectors import embed_source

        source = self.source
        say(
            f"{counted(len(source), 'image')} of {source.name}, {self.subject.backbone.name} at "
            f"{self.settings.size} pixels"
        )
        for line in inventory.lines([source]):
            say(line)
        try:
            embedded = embed_source(self.subject, source, self.settings, machine=self.inputs.machine)
        except KeyboardInterrupt:
            say("the same command resumes where this one stopped")
            raise
        for bad in embedded.bad[:SHOWN]:
            say(f"left out: {one_line(bad.path)}: {bad.reason}")
        if len(embedded.bad) > SHOWN:
            say(f"left out: {len(embedded.bad) - SHOWN:,} more that cannot be read")
        return embedded


def read(
    arguments: list[str], options: Any, *, about: str, prog: str, before: Callable[[Any], None] | None = None
) -> Asked:
    """Read the words over the usual settings at the size that the weights were trained at.

    Args:
        arguments: all words after the verb.
        options: a record with the verb's own flags, at its defaults.
        about: the sentence that `--help` begins with.
        prog: what usage lines call the command.
        before: looks at the verb's own flags before the weights are loaded.

    Raises UserError if the weights cannot be loaded.
    """
    inputs, found, _ = _parse(arguments, options, embedding(224), about, prog)
    if before is not None:
        before(found)
    from simsiam.weights.pretrained import open_subject

    subject = open_subject(inputs.weights, seed=0, backbone=inputs.backbone)
    usual = embedding(inputs.size or subject.size)
    inputs, found, settings = _parse(arguments, options, usual, about, prog)
    return Asked(inputs=inputs, options=found, settings=settings, subject=subject)


def open_images(inputs: Inputs) -> Source:
    """The images that the second word names; raises UserError if there are none."""
    from simsiam.data.images import IMAGE_SUFFIXES
    from simsiam.data.sources import FileSource, kind_of, open_source

    place = inputs.images
    if place in SETS and not Path(place).exists():
        from simsiam.data.classification.datasets import labelled

        if place == "demo":
            return open_source("", kind=place, split=inputs.split, cache=inputs.cache)
        return labelled(place, cache=inputs.cache, split=inputs.split)
    path = Path(place)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource(path.parent, [path.name], None, name=path.stem, classes=None)
    kind = kind_of(place)
    return open_source(place, kind=kind, split="all" if kind == "folder" else inputs.split, cache=inputs.cache)


def _parse(
    arguments: list[str], options: Any, settings: Embedding, about: str, prog: str
) -> tuple[Inputs, Any, Embedding]:
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("inputs", Annotated[Inputs, tyro.conf.arg(name="")]),
            ("options", Annotated[type(options), tyro.conf.arg(name="")], field(default=options)),
            ("settings", Annotated[Embedding, tyro.conf.arg(name="")], field(default=settings)),
        ],
        frozen=True,
        kw_only=True,
    )
    command.__doc__ = about
    shown = [*IN_HELP, *(each.name for each in dataclasses.fields(options))]
    read = cast(
        "Any",
        read_line(
            command, arguments, config=(tyro.conf.OmitArgPrefixes,), prog=prog, hidden=("Embedding.size",), shown=shown
        ),
    )
    limits.check(read.inputs, prefixes=False)
    return read.inputs, read.options, read.settings


def say(text: str) -> None:
    """A line beside the results, which go to standard output."""
    print(text, file=sys.stderr)
