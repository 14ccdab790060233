"""`simsiam show`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from simsiam.commands.reading import read as read_line
from simsiam.config import Pretraining, as_dict
from simsiam.errors import UserError, did_you_mean
from simsiam.pretraining.library import choose_recipe
from simsiam.recipes.pretrain import RECIPES

if TYPE_CHECKING:
    from simsiam.evaluation.protocol import Protocol

Prefixes = Literal["with", "without"]


@dataclass(frozen=True)
class Command:
    """Print one recipe whole: every setting that decides the result."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]  # as `simsiam recipes` lists it
    format: Literal["text", "json"] = "text"  # text, or json.


def run(arguments: list[str]) -> int:
    """Print the recipe."""
    command = read_line(Command, arguments, prog="simsiam show")
    recipe = _find(command.name)
    record = as_dict(recipe)
    prefixes: Prefixes = "with" if isinstance(recipe, Pretraining) else "without"
    print(json.dumps(record, indent=1) if command.format == "json" else "\n".join(_lines(record, "", prefixes)))
    return 0


def _find(name: str) -> Pretraining | Protocol[Any]:
    """A recipe of any verb by name; those of the evaluations at 224 pixels."""
    from simsiam.protocols import PROTOCOLS
    from simsiam.recipes.scaled import Wanted

    makers = {recipe: make for protocol in PROTOCOLS.values() for recipe, make in protocol.recipes.items()}
    if name in RECIPES or name not in makers:
        if name not in RECIPES and (hint := did_you_mean(name, [*RECIPES, *makers])):
            raise UserError(f"{name}: there is no such recipe.{hint} `simsiam recipes` lists them.")
        return choose_recipe(name, None, device=None, fit=False)
    return makers[name](Wanted())


def _lines(record: dict[str, object], prefix: str, prefixes: Prefixes) -> list[str]:
    """A line a field under the name that its flag has: `evaluate` leaves out which record a field belongs to."""
    lines = []
    for key, value in record.items():
        flag = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            lines += _lines(value, flag + "." if prefixes == "with" else "", prefixes)
        else:
            lines.append(f"{flag:<28} {value}")
    return lines
