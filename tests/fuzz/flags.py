"""Random values for the flags of recipes, by hypothesis: each command line is taken, or refused by a flag's name.

Nothing is read or trained: the program is stopped where its settings are complete and checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections import Counter
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as some

from simsiam import cli
from simsiam.commands.evaluate import Line
from simsiam.protocols import PROTOCOLS, Evaluation
from simsiam.recipes.pretrain import folder
from simsiam.recipes.scaled import Wanted

VALUES = (
    some.integers(1, 40).map(str)
    | some.floats(0, 1).map(repr)
    | some.integers(-(2**70), 2**70).map(str)
    | some.integers(-3, 600).map(str)
    | some.floats().map(repr)
    | some.sampled_from(("0", "-0.0", "1e400", "1e-400", "١٢", "0x10", "1_000", "", " ", "None", "--", "True", "auto"))
    | some.text(max_size=12)
)


class Taken(Exception):
    """The settings are complete and were found possible."""


def fuzz_flags(examples: int) -> Counter[str]:
    """How many command lines were taken and how many refused; raises AssertionError on the first that breaks."""
    counts: Counter[str] = Counter()
    kinds = {"pretrain": _flags(folder()), **{name: _flags(_recipe(each)) for name, each in PROTOCOLS.items()}}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(some.data())
    def each(data: some.DataObject) -> None:
        kind = data.draw(some.sampled_from(("pretrain", *kinds)))  # pretrain twice as often
        flags = data.draw(some.lists(some.sampled_from(kinds[kind]), min_size=1, max_size=4, unique=True))
        words = [f"{flag}={data.draw(VALUES)}" for flag in flags]
        counts[_outcome(kind, words, flags)] += 1

    each()
    return counts


def _outcome(kind: str, words: list[str], flags: list[str]) -> str:
    """As a person would get it."""
    start = ["pretrain", "photos"] if kind == "pretrain" else ["evaluate", kind, "random", "--backbone=resnet10"]
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
        mock.patch("simsiam.pretraining.run.open_inputs", side_effect=Taken),
        mock.patch("simsiam.commands.pretrain.choose_recipe", return_value=folder()),
        mock.patch("simsiam.commands.evaluate.measure", _check),
        mock.patch.object(cli, "write_to_any_terminal"),
    ):
        try:
            cli.main([*start, *words])
        except Taken:
            return "taken"
        except SystemExit as end:
            code = end.code
    text = said.getvalue()
    assert code == cli.EXIT_USER_ERROR, (words, text)
    assert "Traceback" not in text, (words, text)
    assert any(flag in text for flag in flags), (words, text)
    return "refused"


def _check(name: str, evaluation: Evaluation, line: Line) -> None:
    line.over(_recipe(evaluation)).check()
    raise Taken


def _recipe(evaluation: Evaluation) -> Any:
    return evaluation.recipe(None, Wanted())


def _flags(record: Any, above: str = "--") -> list[str]:
    """Every flag of a record and of those within it."""
    found = []
    for each in dataclasses.fields(record):
        flag, held = above + each.name.replace("_", "-"), getattr(record, each.name)
        if dataclasses.is_dataclass(held):
            found += _flags(held, f"{flag}.")
        elif each.name not in ("name", "about"):
            found.append(flag)
    return found


if __name__ == "__main__":
    print(fuzz_flags(int(sys.argv[1])))
