"""`simsiam evaluate all`: every protocol that the data at hand allows, and a word on each that it does not."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simsiam import protocols
from simsiam.commands import evaluate
from simsiam.commands.evaluate import Line, Options, check_places, measure, refuse_repeated_seeds
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import is_first_process, say, several_processes
from simsiam.commands.tables import print_outcomes
from simsiam.config import Machine
from simsiam.errors import UserError
from simsiam.protocols import PROTOCOLS
from simsiam.results import Result
from simsiam.wording import plain


@dataclass(frozen=True, kw_only=True)
class DataFolders:
    """Where each data set lies; those not named are looked for below --root under the usual names."""

    root: Path = Path("data")  # Folder of imagenet/, VOCdevkit/, iNaturalist2018/, Places205/, coco/, cityscapes/.
    imagenet: Path | None = None  # ImageNet's folder, which holds train/ and val/.
    voc07: Path | None = None  # VOC2007's folder, or the VOCdevkit above it.
    inaturalist2018: Path | None = None  # The folder that holds train2018.json, val2018.json and train_val2018/.
    places205: Path | None = None  # The folder that holds trainvalsplit_places205/ and images256/.
    voc0712: Path | None = None  # The VOCdevkit that holds VOC2007 and VOC2012.
    coco: Path | None = None  # The folder that holds annotations/, train2017/ and val2017/.
    voc12aug: Path | None = None  # The VOCdevkit whose VOC2012 holds SegmentationClassAug.
    cityscapes: Path | None = None  # The folder that holds leftImg8bit/ and gtFine/.
    one_percent: Path | None = None  # The list of the labelled 1 % of ImageNet, for the semi-supervised protocol.
    ten_percent: Path | None = None  # The list of the labelled 10 % of ImageNet, for the semi-supervised protocol.
    # CIFAR-10 too; auto: if the weights were trained on it; on: downloaded where it is missing.
    cifar10: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Measure backbones by every protocol that the data at hand allows, and say what was skipped and why.

    What has a result already is not measured again, so the same command resumes after an interruption.
    """

    # Run folders, files of weights, zoo names, random or random:RUN for untrained networks.
    weights: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WEIGHTS ...]")] = ()
    train: str | None = None  # Your own labelled training images: class folders, a list, or a CSV of path,label.
    test: str | None = None  # Your own labelled test images, in any form that --train takes.
    labels: Path | None = None  # A few labelled images for few-labels and clustering: class folders or a CSV.
    only: tuple[str, ...] = ()  # Run only these protocols: --only knn probe.
    skip: tuple[str, ...] = ()  # Skip these protocols: --skip detection-coco.
    seeds: tuple[int, ...] = (0,)  # Random seeds, one result for each: --seeds 0 1 2.
    folders: Annotated[DataFolders, tyro.conf.arg(name="")] = field(default_factory=DataFolders)
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One protocol that can run, or why it cannot."""

    name: str
    places: dict[str, Any] = field(default_factory=dict)  # by the names of the flags
    data: str = ""  # in words
    recipe: str | None = None
    missing: str | None = None


SHOWN = (  # by `--help`
    *("weights", "root", "train", "test", "labels", "cifar10"),
    *("only", "skip", "seeds", "out", "device", "workers"),
)
USUAL_NAMES = {
    "imagenet": ("imagenet", "ImageNet", "ILSVRC2012"),
    "voc07": ("VOCdevkit", "VOC2007"),
    "inaturalist2018": ("iNaturalist2018", "inaturalist2018"),
    "places205": ("Places205", "places205"),
    "voc0712": ("VOCdevkit",),
    "coco": ("coco", "COCO"),
    "voc12aug": ("VOCdevkit",),
    "cityscapes": ("cityscapes", "Cityscapes"),
}
INSIDE = {"voc07": "VOC2007", "voc0712": "VOC2012", "voc12aug": "VOC2012/SegmentationClassAug"}  # of a VOCdevkit
SETS: dict[str, tuple[str, ...]] = {
    "imagenet": ("knn", "probe", "linear-mhead", "linear-avgpool"),
    "voc07": ("svm-voc07", "low-shot-voc07"),
    "inaturalist2018": ("inaturalist2018",),
    "places205": ("places205",),
    "voc0712": ("detection-voc0712",),
    "coco": ("detection-coco",),
    "voc12aug": ("segmentation-voc12aug",),
    "cityscapes": ("segmentation-cityscapes",),
}
OWN = ("knn", "probe", "linear-mhead", "linear-avgpool", "retrieval")
ON_CIFAR10 = ("knn", "probe", "linear-mhead", "svm-voc07", "retrieval")


def run(arguments: list[str]) -> int:
    """`simsiam evaluate`, by one protocol or by all."""
    if arguments[:1] == [evaluate.ALL]:
        return _run(arguments[1:])
    return evaluate.run(arguments)


def _run(arguments: list[str]) -> int:
    """Run what can run, in the order of the page; the exit code is 1 if one of them failed."""
    unread = ("Machine.views_engine", "Machine.photo_cache")
    command = read_line(Command, arguments, prog="simsiam evaluate all", hidden=unread, shown=SHOWN)
    if not command.weights:
        raise UserError("name the weights to measure: simsiam evaluate all RUN --root DATA.")
    refuse_repeated_seeds(command.seeds)
    for name in (*command.only, *command.skip):
        protocols.find(name)
    check_places("all", command.weights, out=command.machine.out)
    jobs = [job for job in jobs_for(command) if not command.only or job.name in command.only]
    jobs = [job for job in jobs if job.name not in command.skip]
    ready = [job for job in jobs if job.missing is None]
    failed: dict[str, str] = {}
    for number, job in enumerate(ready, 1):
        say(f"\n[{number}/{len(ready)}] {job.name} on {job.data}")
        _attempt(job, command, failed)
    _summary(command, jobs, failed)
    return 1 if failed else 0


def jobs_for(command: Command) -> list[Job]:
    """Each evaluation with the data it would run on, or the reason that it cannot."""
    jobs = []
    for kind, names in SETS.items():
        place = _place(command.folders, kind)
        for name in names:
            if place is None:
                jobs.append(Job(name=name, missing=_what_to_give(command.folders, kind)))
            else:
                jobs.append(Job(name=name, places={"data": place}, data=str(place)))
        if kind == "imagenet":
            jobs += _semi_supervised(command.folders, place)
    if _on_cifar10(command):
        # 50,000 images on five maps would be 9 GB of features and hours of SVMs: there the pooled ones are taken
        jobs += [
            Job(
                name=name,
                places={"data": "cifar10"},
                data="CIFAR-10",
                recipe="svm_pooled" if name == "svm-voc07" else None,
            )
            for name in ON_CIFAR10
        ]
    if command.train is not None or command.test is not None:
        whole = command.train is not None and command.test is not None
        jobs += [
            Job(
                name=name,
                places={"train": command.train, "test": command.test},
                data=f"{command.train} and {command.test}",
                missing=None if whole else "your own images: give both --train and --test",
            )
            for name in OWN
        ]
    if command.labels is not None:
        labels = {"data": command.labels}
        jobs += [Job(name=name, places=labels, data=str(command.labels)) for name in ("few-labels", "clustering")]
    else:
        jobs.append(Job(name="few-labels", missing="--labels: a CSV of path,label or class folders"))
    return jobs


def _on_cifar10(command: Command) -> bool:
    if command.folders.cifar10 != "auto":
        return command.folders.cifar10 == "on"
    results = [Path(weights) / "result.json" for weights in command.weights]
    return any(Result.read(file).data.name.startswith("cifar10") for file in results if file.is_file())


def _semi_supervised(folders: DataFolders, imagenet: Path | None) -> list[Job]:
    jobs = []
    for percent, part in (("1", folders.one_percent), ("10", folders.ten_percent)):
        flag = "--one-percent" if percent == "1" else "--ten-percent"
        recipe = f"resnet50_4xb64-steplr-20e_in1k-{percent}pct"
        if imagenet is None or part is None:
            jobs.append(Job(name="semi-supervised", missing=f"ImageNet and {flag} LIST (the labelled images)"))
        else:
            places = {"data": imagenet, "part": part}
            jobs.append(Job(name="semi-supervised", places=places, data=f"{part} of {imagenet}", recipe=recipe))
    return jobs


def _place(folders: DataFolders, kind: str) -> Path | None:
    """The folder that was named, or one of the usual names below the root."""
    named: Path | None = getattr(folders, kind)
    if named is not None:
        if not named.is_dir():
            raise UserError(f"--{kind.replace('_', '-')} {named}: no such folder.")
        return named
    for name in USUAL_NAMES[kind]:
        place = folders.root / name
        if place.is_dir() and (name != "VOCdevkit" or (place / INSIDE[kind]).is_dir()):
            return place
    return None


def _what_to_give(folders: DataFolders, kind: str) -> str:
    names = " or ".join(f"{folders.root / name}" for name in USUAL_NAMES[kind])
    inside = f" (with {INSIDE[kind]} in it)" if kind in INSIDE else ""
    return f"no {names}{inside}; give --{kind.replace('_', '-')} DIR"


def _attempt(job: Job, command: Command, failed: dict[str, str]) -> None:
    """Run one protocol and print its table; a mistake in its data does not stop the others."""
    evaluation = PROTOCOLS[job.name]
    if evaluation.processes == "one" and several_processes() and not is_first_process():
        return
    out = command.machine.out
    machine = dataclasses.replace(command.machine, out=out and out / plain(f"{job.name}-{job.data}"))
    line = Line(
        options=Options(weights=command.weights, recipe=job.recipe, seeds=command.seeds),
        data=evaluation.data.filled(job.name, job.places),
        machine=machine,
    )

    try:
        outcomes = measure(job.name, evaluation, line)
    except UserError as error:
        failed[f"{job.name} on {job.data}"] = str(error)
        print(f"simsiam: {job.name}: {error}", file=sys.stderr)
    else:
        if is_first_process():
            print_outcomes(outcomes)


def _summary(command: Command, jobs: list[Job], failed: dict[str, str]) -> None:
    if not is_first_process():
        return
    done = [job for job in jobs if job.missing is None and f"{job.name} on {job.data}" not in failed]
    print(f"\nmeasured: {', '.join(f'{job.name} on {job.data}' for job in done) or 'nothing'}")
    for what, why in failed.items():
        print(f"failed: {what}: {why}")
    for job in jobs:
        if job.missing is not None:
            print(f"skipped: {job.name}: {job.missing}")
    named = {job.name for job in jobs}
    if not command.only:
        for name in PROTOCOLS:
            if name not in named and name not in command.skip:
                print(f"not part of this: {name}: run it alone, simsiam evaluate {name} --help")
