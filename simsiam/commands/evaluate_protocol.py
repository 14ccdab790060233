"""`simsiam evaluate NAME` for the classification protocols: from words to data, recipe and result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from simsiam.commands.evaluation_line import check_places, check_weights, own_folder, parse, say_unfinished
from simsiam.commands.names import value_of
from simsiam.commands.running import is_first_process, say
from simsiam.commands.tables import print_table
from simsiam.errors import UserError
from simsiam.evaluation.protocol import run_once
from simsiam.protocols import fitted, named, open_data
from simsiam.recipes.evaluation import CHOICES
from simsiam.wording import counted

CONFIG = (tyro.conf.OmitArgPrefixes,)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, on which data."""

    # Run folders, files, zoo names; random or random:RUN for untrained networks.
    weights: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WEIGHTS ...]")] = ()
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
        parse(name, arguments, Options(), CHOICES[name].recipe(224, value_of("--recipe", arguments)), config=CONFIG)
        if asks_help:
            return 0
        raise UserError(f"name the weights to measure: simsiam evaluate {name} RUN --train DIR --test DIR.")
    out = value_of("--out", arguments)
    check_places(name, sources, out=Path(out) if out is not None else None, again="--again" in arguments)
    say_unfinished(sources)
    if len(sources) > 1:
        check_weights(sources, backbone=value_of("--backbone", arguments))
    places = []
    for source in sources:
        places += _evaluate(name, source, arguments, sources=len(sources))
    if is_first_process():
        print_table(places)
    return 0


def _evaluate(name: str, source: str, arguments: list[str], *, sources: int) -> list[Path]:
    from simsiam.data.classification.datasets import DatasetArgs
    from simsiam.evaluation.classification.knn import Knn
    from simsiam.weights.pretrained import open_subject

    choice = CHOICES[name]
    backbone = value_of("--backbone", arguments)
    subject = open_subject(source, seed=0, backbone=backbone)
    size = _whole(value_of("--size", arguments)) or subject.size
    recipe = choice.recipe(size, value_of("--recipe", arguments))
    options, machine, settings = parse(name, arguments, Options(), recipe, config=CONFIG)
    words = DatasetArgs(data=options.data, train=options.train, test=options.test, cache=machine.cache)
    data = open_data(name, words, part=options.part)
    asked = frozenset(field for field in ("k", "quoted_k", "stages", "layer") if _given(field, arguments))
    settings = fitted(named(settings, recipe), subject, data, asked=asked)
    if isinstance(settings, Knn) and settings.k != getattr(recipe, "k", settings.k) and "k" not in asked:
        say(f"{data.train.name} has {counted(len(data.train), 'image')}: k {', '.join(map(str, settings.k))} only")
    words_of_name = [name, settings.data_id(data).name.removesuffix("-test"), options.recipe or ""]
    folder_name = "-".join(word for word in words_of_name if word)
    places = []
    for seed in options.seeds:
        subject = subject if seed == subject.seed else open_subject(source, seed=seed, backbone=backbone)
        out = own_folder(folder_name, source, seed, out=machine.out, sources=sources, seeds=options.seeds)
        say(f"{settings.name}: {source} ({subject.backbone.name}, {size} px), seed {seed} -> {out}")
        run_once(settings, subject, data, machine=dataclasses.replace(machine, out=out), again=options.again)
        places.append(out)
    return places


def _leading_words(arguments: list[str]) -> list[str]:
    """The words before the first flag: the weights."""
    flags = [n for n, argument in enumerate(arguments) if argument.startswith("-")]
    return arguments[: flags[0]] if flags else arguments


def _given(field: str, arguments: list[str]) -> bool:
    return value_of(f"--{field.replace('_', '-')}", arguments) is not None


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"--size {text}: a whole number of pixels above zero.")
    return int(text)
