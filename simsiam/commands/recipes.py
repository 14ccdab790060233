"""`simsiam recipes`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from simsiam.recipes.pretrain import RECIPES


@dataclass(frozen=True)
class Command:
    """List the recipes."""


def run(arguments: list[str]) -> int:
    """Print a line a recipe."""
    tyro.cli(Command, args=arguments, prog="simsiam recipes")
    width = max(map(len, RECIPES))
    print("pre-training (simsiam pretrain --recipe NAME):")
    for name, recipe in RECIPES.items():
        print(f"  {name:<{width}}  {recipe().about}")
    return 0
