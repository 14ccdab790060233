"""The verbs of the command line: where each lives and what it is for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from simsiam.errors import UserError, did_you_mean

VERBS = {
    "pretrain": ("simsiam.commands.pretrain", "Pre-train a backbone on images, watch it, and write a report."),
    "reproduce": ("simsiam.commands.reproduce", "Run the paper's findings and check each against its figures."),
    "bench": ("simsiam.commands.bench", "Measure how fast this machine trains, and what limits it."),
    "recipes": ("simsiam.commands.recipes", "List the recipes."),
    "show": ("simsiam.commands.show", "Print one recipe whole."),
    "submit": ("simsiam.commands.submit", "Run another verb as a SLURM job."),
    "evaluate": ("simsiam.commands.evaluate_all", "Measure backbones by a benchmark protocol and print the table."),
    "zoo": ("simsiam.commands.zoo", "The published models and your own; `zoo page` writes the page of all figures."),
    "import": ("simsiam.commands.import_weights", "Convert weights of any program to a folder that every verb reads."),
    "export": ("simsiam.commands.export", "Write a backbone for another program and compare its features there."),
    "predict": ("simsiam.commands.predict", "Draw what a trained detector or segmentor finds in images."),
    "report": ("simsiam.commands.report", "Write the report of a run, or the tables of several."),
    "embed": ("simsiam.commands.embed", "Write a vector for every image, as Parquet, npy or CSV."),
    "neighbors": ("simsiam.commands.neighbors", "Find the images most like a given one, or near duplicates."),
    "browse": ("simsiam.commands.browse", "Search a folder of images by example, on a page of this machine."),
}


def find_verb(name: str) -> Callable[[list[str]], int]:
    """The function behind a verb; raises UserError with the nearest names on a typo."""
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r}.{did_you_mean(name, VERBS)} See `simsiam --help`.")
    run: Callable[[list[str]], int] = importlib.import_module(VERBS[name][0]).run
    return run
