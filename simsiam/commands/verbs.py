"""The verbs of the command line: where each lives and what it is for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from simsiam.errors import UserError, did_you_mean

VERBS = {
    "pretrain": ("simsiam.commands.pretrain", "Pre-train a backbone on images, watch it, and write a report."),
    "recipes": ("simsiam.commands.recipes", "List the recipes."),
    "show": ("simsiam.commands.show", "Print one recipe whole."),
    "submit": ("simsiam.commands.submit", "Run another verb as a SLURM job."),
    "evaluate": ("simsiam.commands.evaluate", "Measure backbones by a benchmark protocol and print the table."),
    "report": ("simsiam.commands.report", "Write the report of a run, or the tables of several."),
}


def find_verb(name: str) -> Callable[[list[str]], int]:
    """The function behind a verb; raises UserError with the nearest names on a typo."""
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r}.{did_you_mean(name, VERBS)} See `simsiam --help`.")
    run: Callable[[list[str]], int] = importlib.import_module(VERBS[name][0]).run
    return run
