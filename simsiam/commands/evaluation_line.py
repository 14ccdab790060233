"""The command line of one evaluation: what all of `simsiam evaluate NAME` parse and name alike."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from simsiam.commands.evaluations import EVALUATIONS, plain, result_folder
from simsiam.experiment import Machine

Options = TypeVar("Options")
Settings = TypeVar("Settings")


def parse(
    name: str, arguments: list[str], options: Options, settings: Settings, *, config: tuple[Any, ...]
) -> tuple[Options, Machine, Settings]:
    """Options, machine and settings as the flags change them.

    Args:
        name: of the evaluation.
        options: the record with its defaults.
        settings: the recipe; every field of it is a flag.
        config: tyro's markers for the whole line.
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
    read = tyro.cli(
        command, args=arguments, default=command(settings=settings), config=config, prog=f"simsiam evaluate {name}"
    )
    found = cast("Any", read)
    return found.options, found.machine, found.settings


def own_folder(named: str, source: str, seed: int, *, out: Path | None, sources: int, seeds: tuple[int, ...]) -> Path:
    """A folder of its own for each start and seed, where there are several; `named` says the rest."""
    folder = result_folder(source, named, out)
    if out is not None and sources > 1:
        folder /= plain(source)
    return folder / f"seed{seed}" if len(seeds) > 1 else folder
