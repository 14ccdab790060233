"""`simsiam report`: the tables of any number of runs as one document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from simsiam.errors import UserError
from simsiam.report.collect import collect
from simsiam.report.formats import Format, render
from simsiam.report.tables import Which, build
from simsiam.results import write_atomic


def report(
    runs: Sequence[Path], *, format: Format = "markdown", out: Path | None = None, which: Which = "measured"
) -> str:
    """The page's tables for the results under `runs`.

    Args:
        runs: run folders, evaluation folders or result files.
        format: of the text.
        out: file to write the text to as well.
        which: "all" shows the page's tables that no result fills too.

    Raises UserError where a place holds no result, a result file is damaged, or the format is unknown.
    """
    if format not in get_args(Format):
        raise UserError(f"--format {format}: unknown. Choose one of {', '.join(get_args(Format))}.")
    text = render(build(collect(runs), which=which), format=format)
    if out is not None:
        write_atomic(out, text.encode())
    return text
