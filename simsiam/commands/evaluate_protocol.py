"""`simsiam evaluate NAME` for the classification protocols: from words to data, recipe and result."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from simsiam.commands.evaluations import EVALUATIONS, plain, result_folder
from simsiam.commands.names import value_of
from simsiam.commands.running import is_first_process
from simsiam.errors import UserError
from simsiam.evaluation.protocol import RESULT_FILE, Protocol, Subject, run_once
from simsiam.experiment import Machine, as_dict
from simsiam.recipes.evaluation import CHOICES, Choice
from simsiam.results import Result

if TYPE_CHECKING:
    from simsiam.results import DataId

SEMI_SUPERVISED = "semi-supervised"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, on which data."""

    weights: tyro.conf.Positional[tuple[str, ...]] = ()  # run folders, files, zoo names; random, random:RUN: untrained
    data: str | None = None  # a set with its own splits: cifar10, fashion-mnist, a VOC or ImageNet folder and so on
    train: str | None = None  # class folders, a list of "path label", or a CSV (of path,label1;label2 for the SVMs)
    test: str | None = None  # likewise
    recipe: str | None = None  # another than the usual one; `simsiam recipes` lists them
    seeds: tuple[int, ...] = (0,)  # a result for each
    backbone: str | None = None  # the network, where the file does not tell; timm:NAME for a timm model
    part: Path | None = None  # semi-supervised: the list of the labelled images, SimSiam's or SimCLR's 1percent.txt
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # measure anew what has a result already


def run(name: str, arguments: list[str]) -> int:
    """Measure every subject with every seed, and print the table."""
    asks_help = "-h" in arguments or "--help" in arguments
    sources = _leading_words(arguments)
    if asks_help or not sources:
        _parse(name, arguments, CHOICES[name].recipe(224, value_of("--recipe", arguments)))
        if asks_help:
            return 0
        raise UserError(f"name the weights to measure: simsiam evaluate {name} RUN --train DIR --test DIR.")
    places = []
    for source in sources:
        places += _evaluate(name, source, arguments, several=len(sources) > 1)
    if is_first_process():
        print_table(places)
    return 0


def print_table(places: list[Path]) -> None:
    """The tables of the results, what was noted on each, and a page for each that has more to show."""
    from simsiam.report.document import report
    from simsiam.report.evaluation_page import has_page, write_evaluation_page

    print(report(places))
    for place in places:
        for note in Result.read(place / RESULT_FILE).notes:
            print(f"note: {note}")
    for place in places:
        print(f"result: {place / 'result.json'}")
        if has_page(place):
            print(f"report: {write_evaluation_page(place)}")


def _evaluate(name: str, source: str, arguments: list[str], *, several: bool) -> list[Path]:
    from simsiam.evaluation.subjects import open_subject

    choice = CHOICES[name]
    backbone = value_of("--backbone", arguments)
    subject = open_subject(source, seed=0, backbone=backbone)
    size = _whole(value_of("--size", arguments)) or subject.size
    recipe = choice.recipe(size, value_of("--recipe", arguments))
    options, machine, settings = _parse(name, arguments, recipe)
    settings = _named(settings, recipe)
    data = _data(name, choice, options, machine)
    settings = _fitting(settings, subject, data, asked=arguments)
    places = []
    for seed in options.seeds:
        subject = open_subject(source, seed=seed, backbone=backbone)
        out = _folder(name, source, seed, settings.data_id(data), options, machine, several=several)
        _say(f"{settings.name}: {source} ({subject.backbone.name}, {size} px), seed {seed} -> {out}")
        run_once(settings, subject, data, machine=dataclasses.replace(machine, out=out), again=options.again)
        places.append(out)
    return places


def _data(name: str, choice: Choice, options: Options, machine: Machine) -> Any:
    """The data in the form that the protocol takes."""
    from simsiam.evaluation import datasets
    from simsiam.evaluation.protocol import Splits

    words = datasets.Words(data=options.data, train=options.train, test=options.test, cache=machine.cache)
    if options.part is not None and name != SEMI_SUPERVISED:
        raise UserError(f"--part: the list of labelled images belongs to {SEMI_SUPERVISED}.")
    if choice.needs == "multilabel":
        return datasets.multilabel(words)
    if choice.needs == "labelled":
        place = options.data or options.test
        if place is None:
            raise UserError("--data: name the labelled images: class folders, a CSV of path,label, or a set's name.")
        return datasets.labelled(place, cache=machine.cache)
    if name == "retrieval" and (place := options.test) is not None and options.train is None:
        alone = datasets.labelled(place, cache=machine.cache)
        return Splits(train=alone, test=alone)
    both = datasets.splits(words, layout=choice.layout if options.data is not None else None)
    if options.part is None:
        return both
    if options.data is None:
        raise UserError("--part: names images of an ImageNet folder; give that folder as --data.")
    from simsiam.data.labelled_sets import imagenet_part

    return Splits(train=imagenet_part(options.data, options.part), test=both.test)


def _named(settings: Protocol[Any], recipe: Protocol[Any]) -> Protocol[Any]:
    """The settings under a name that says where flags changed the recipe, so that no table calls them by its name."""
    changes = _changes(as_dict(recipe), as_dict(settings))
    if not changes or settings.name != recipe.name:
        return settings
    return dataclasses.replace(settings, name=f"{recipe.name} ({', '.join(changes)})")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changes = []
    for key, value in new.items():
        if isinstance(value, dict):
            changes += _changes(old[key], value)
        elif value != old[key]:
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            changes.append(f"{key.replace('_', '-')} {shown}")
    return changes


def _fitting(settings: Protocol[Any], subject: Subject, data: Any, *, asked: list[str]) -> Protocol[Any]:
    """The recipe for a backbone with fewer maps or a training set with fewer images, where no flag says otherwise."""
    from simsiam.evaluation.knn import Knn
    from simsiam.evaluation.linear import INaturalist2018, LinearMultiHead, Places205
    from simsiam.evaluation.low_shot import LowShot

    maps = len(subject.backbone.stage_channels)
    if isinstance(settings, LinearMultiHead | INaturalist2018 | Places205) and value_of("--stages", asked) is None:
        return dataclasses.replace(settings, heads=dataclasses.replace(settings.heads, stages=maps))
    if isinstance(settings, LowShot) and settings.features.layers == "stages" and value_of("--layer", asked) is None:
        return dataclasses.replace(settings, layer=f"feature{maps}")
    if not isinstance(settings, Knn) or value_of("--k", asked) is not None:
        return settings
    fits = tuple(k for k in settings.k if k <= len(data.train)) or (min(len(data.train), min(settings.k)),)
    if fits == settings.k:
        return settings
    _say(f"{data.train.name} has {len(data.train)} images: k {', '.join(map(str, fits))} only")
    return dataclasses.replace(settings, k=fits, quoted_k=settings.quoted_k if settings.quoted_k in fits else max(fits))


def _folder(
    name: str, source: str, seed: int, data: DataId, options: Options, machine: Machine, *, several: bool
) -> Path:
    """A folder of its own for each subject, protocol, recipe, data set and seed."""
    named = [name, data.name.removesuffix("-test"), options.recipe or ""]
    folder = result_folder(source, "-".join(word for word in named if word), machine.out)
    if machine.out is not None and several:
        folder /= plain(source)
    return folder / f"seed{seed}" if len(options.seeds) > 1 else folder


def _parse(name: str, arguments: list[str], recipe: Protocol[Any]) -> tuple[Options, Machine, Protocol[Any]]:
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("options", Annotated[Options, tyro.conf.arg(name="")], field(default=Options())),
            ("machine", Annotated[Machine, tyro.conf.arg(name="")], field(default_factory=Machine)),
            ("settings", Annotated[type(recipe), tyro.conf.arg(name="")]),
        ],
        frozen=True,
        kw_only=True,
    )
    command.__doc__ = EVALUATIONS[name].about
    read = tyro.cli(
        command,
        args=arguments,
        default=command(settings=recipe),
        config=(tyro.conf.OmitArgPrefixes,),
        prog=f"simsiam evaluate {name}",
    )
    found = cast("Any", read)
    return found.options, found.machine, found.settings


def _leading_words(arguments: list[str]) -> list[str]:
    """The words before the first flag: the weights."""
    flags = [n for n, argument in enumerate(arguments) if argument.startswith("-")]
    return arguments[: flags[0]] if flags else arguments


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"--size {text}: a whole number of pixels above zero.")
    return int(text)


def _say(text: str) -> None:
    if is_first_process():
        print(text, file=sys.stderr)
