"""`simsiam recipes`."""

from __future__ import annotations

from dataclasses import dataclass

from simsiam.commands.reading import read as read_line
from simsiam.recipes.pretrain import RECIPES


@dataclass(frozen=True)
class Command:
    """List the recipes."""


def run(arguments: list[str]) -> int:
    """Print a line a recipe."""
    read_line(Command, arguments, prog="simsiam recipes")
    width = max(map(len, RECIPES))
    print("pre-training (simsiam pretrain --recipe NAME):")
    for name, recipe in RECIPES.items():
        print(f"  {name:<{width}}  {recipe().about}")
    from simsiam.protocols import PROTOCOLS
    from simsiam.recipes.scaled import Wanted

    print("\nevaluation (simsiam evaluate NAME WEIGHTS --recipe RECIPE; the first of each is the usual one):")
    width = max(map(len, PROTOCOLS))
    for name, protocol in PROTOCOLS.items():
        small = protocol.usual(Wanted(trained=32), None)
        for number, known in enumerate(protocol.recipes):
            note = ", the usual one up to 64 pixels" if known == small and protocol.scale == "size" else ""
            print(f"  {name if number == 0 else '':<{width}}  {known}{note}")
    return 0
