"""The command line of one evaluation: what all of `simsiam evaluate NAME` parse and name alike."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from simsiam import limits, results
from simsiam.commands.evaluations import EVALUATIONS, plain, result_folder
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say
from simsiam.config import Machine
from simsiam.errors import UserError

Options = TypeVar("Options")
Settings = TypeVar("Settings")
Value = TypeVar("Value", int, str)


def parse(
    name: str, arguments: list[str], options: Options, settings: Settings, *, config: tuple[Any, ...]
) -> tuple[Options, Machine, Settings]:
    """Options, machine and settings as the flags change them.

    Args:
        name: of the evaluation.
        options: the record with its defaults.
        settings: the recipe; every field of it is a flag.
        config: tyro's markers for the whole line.

    Raises UserError for what is no flag or no value of it.
    """
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("options", Annotated[type(options), tyro.conf.arg(name="")], field(default=options)),
            ("machine", Annotated[Machine, tyro.conf.arg(name="")], field(default_factory=Machine)),
            ("settings", Annotated[type(settings), tyro.conf.arg(name="")]),
        ],
        frozen=True,
        kw_only=True,
    )
    command.__doc__ = EVALUATIONS[name].about
    read = read_line(
        command, arguments, default=command(settings=settings), config=config, prog=f"simsiam evaluate {name}"
    )
    found = cast("Any", read)
    refuse_repeated_seeds(found.options.seeds)
    limits.check(found.machine, prefixes=False)
    limits.check(found.settings, prefixes=tyro.conf.OmitArgPrefixes not in config)
    return found.options, found.machine, found.settings


def refuse_repeated_seeds(seeds: Sequence[int]) -> None:
    """Raise UserError where a seed comes twice: it would give the same result, counted as another."""
    if twice := _repeated(seeds):
        named = ", ".join(map(str, twice))
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: {named} is named twice; each seed gives one result.")


def refuse_repeated_starts(sources: Sequence[str]) -> None:
    """Raise UserError where a start comes twice: its second training would find the first one's result."""
    if twice := _repeated(sources):
        raise UserError(f"{', '.join(twice)}: named twice; each start is trained once.")


def _repeated(values: Sequence[Value]) -> list[Value]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def check_sources(
    named: str, sources: Sequence[str], *, out: Path | None, seeds: tuple[int, ...], again: bool, backbone: str | None
) -> None:
    """What can be known of the weights and of where results go, before data are read; raises UserError."""
    check_places(named, sources, out=out, seeds=seeds, again=again)
    say_unfinished(sources)
    check_weights(sources, backbone=backbone)


def check_places(
    named: str, sources: Sequence[str], *, out: Path | None, seeds: tuple[int, ...] = (0,), again: bool = False
) -> None:
    """Raise UserError where a result could not be written, before data are read or a network is built.

    Where results lie already and none is replaced (`again`), one of them may be all that is asked for, and it needs to
    be read only. Which one is known once the data are; `run_once` then looks again.
    """
    for source in sources:
        for seed in seeds:
            folder = own_folder(named, source, seed, out=out, sources=len(sources), seeds=seeds)
            try:
                results.require_writable(folder)
            except UserError:
                place = result_folder(source, named, None).parent if out is None else out
                if again or not any(place.rglob("result.json")):
                    raise


def check_weights(sources: Sequence[str], *, backbone: str | None) -> None:
    """Open every source once, before the first is trained for hours; raises UserError with all that do not open."""
    from simsiam.weights.pretrained import open_subject

    wrong = []
    for source in sources:
        try:
            open_subject(source, seed=0, backbone=backbone)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))


def say_unfinished(sources: Sequence[str]) -> None:
    """Say which of the weights come from a pre-training that is not finished, and how it goes on."""
    from simsiam.weights.load import unfinished

    for source in sources:
        if (words := unfinished(source)) is not None:
            say(f"note: {words}")


def own_folder(named: str, source: str, seed: int, *, out: Path | None, sources: int, seeds: tuple[int, ...]) -> Path:
    """A folder of its own for each start and seed, where there are several; `named` says the rest."""
    folder = result_folder(source, named, out)
    if out is not None and sources > 1:
        folder /= plain(source)
    return folder / f"seed{seed}" if len(seeds) > 1 else folder
