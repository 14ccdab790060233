"""`simsiam report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.errors import UserError

if TYPE_CHECKING:
    from simsiam.report.collect import Found
    from simsiam.report.tables import Which

Format = Literal["markdown", "html", "csv", "latex"]
ENDINGS: dict[Format, str] = {"markdown": "md", "html": "html", "csv": "csv", "latex": "tex"}


@dataclass(frozen=True, kw_only=True)
class Command:
    """Write the report page of a pre-training run or an evaluation, and the benchmark tables of all of them."""

    # Run folders, or folders that hold evaluations.
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    format: Format = "markdown"  # Format of the tables.
    # fitting: published rows beside results on the same data; all: beside any; ours: nowhere.
    rows: Literal["fitting", "all", "ours"] = "fitting"
    out: Path | None = None  # Folder for tables in four formats and plots; without it, tables go to the terminal.


def run(arguments: list[str]) -> int:
    """Write the page of a pre-training run or an evaluation; print tables where there are evaluations."""
    command = read_line(Command, arguments, prog="simsiam report")
    if not command.runs:
        raise UserError("name at least one run folder: simsiam report runs/NAME")
    from simsiam.report.collect import collect
    from simsiam.report.evaluation_page import has_page, write_evaluation_page
    from simsiam.report.formats import report
    from simsiam.report.page import write_page

    for folder in command.runs:
        if (folder / "recipe.json").exists():
            write_page(folder)
            print_answer(folder)
        elif has_page(folder):
            print(f"report: {write_evaluation_page(folder)}\n")
    if found := collect(command.runs):
        which: Which = "measured" if command.rows == "all" else command.rows
        print(report(command.runs, format=command.format, which=which))
        if command.out is not None:
            write_all(command.runs, found, command.out, which)
    return 0


def write_all(runs: tuple[Path, ...], found: list[Found], out: Path, which: Which) -> None:
    """The tables in every format, and the plots, into one folder."""
    from simsiam.report.formats import report
    from simsiam.report.plots import draw, plot_files, write_plots

    drawn = draw(found)
    tables = {form: f"tables.{ending}" for form, ending in ENDINGS.items()}
    names = [*plot_files(drawn), *tables.values()]
    with claims.claim(out, command="report", makes=names, inputs=[run for run in runs if run.is_file()]):
        write_plots(drawn, out)
        for form, name in tables.items():
            report(runs, format=form, out=out / name, which=which)
    for name in names:
        print(f"written: {out / name}")


def print_answer(folder: Path) -> None:
    """The report's first lines on the terminal, and where the report is."""
    from simsiam.report.answer import answer
    from simsiam.report.collect import read_run

    found = answer(read_run(folder))
    print(f"\n{found.badge.upper()}: {found.headline}")
    for sentence in found.sentences:
        print(f"  {sentence}")
    print(f"\nreport: {folder / 'report.html'}")
