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
    from simsiam.commands.evaluate_detection import RECIPES as DETECTION
    from simsiam.recipes.evaluation import CHOICES
    from simsiam.recipes.segmentation import RECIPES as SEGMENTATION

    trained = {name: [make().name for make in known] for name, known in DETECTION.items()}
    trained |= {name: list(known) for name, known in SEGMENTATION.items()}
    print("\nevaluation (simsiam evaluate NAME WEIGHTS --recipe RECIPE; the first of each is the usual one):")
    width = max(map(len, [*CHOICES, *trained]))
    for name, choice in CHOICES.items():
        for number, recipe_name in enumerate(choice.recipes):
            small = ", the usual one up to 64 pixels" if recipe_name == choice.small else ""
            print(f"  {name if number == 0 else '':<{width}}  {recipe_name}{small}")
    for name, known in trained.items():
        for number, recipe_name in enumerate(known):
            print(f"  {name if number == 0 else '':<{width}}  {recipe_name}")
    return 0
