"""Tables as Markdown, HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from simsiam import published
from simsiam.errors import UserError
from simsiam.report.collect import collect
from simsiam.report.html import style, template
from simsiam.report.tables import Cell, Table, Which, build
from simsiam.results import write_atomic

Format = Literal["markdown", "html", "csv", "latex"]
EMPTY = "–"
LEADING = ("Self-Supervised Config", "Figures", "Data")
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "–": "--",
    "−": r"$-$",
}


def render(tables: Sequence[Table], *, format: Format) -> str:
    """All tables as one text. The CSV has one line for each figure, so that tables of any width share a header."""
    writers: dict[Format, Callable[[Sequence[Table]], str]] = {
        "markdown": markdown,
        "html": html,
        "csv": comma_separated,
        "latex": latex,
    }
    return writers[format](tables)


def closing_notes(tables: Sequence[Table]) -> list[str]:
    """What holds for all tables: the empty mark, and the fault behind the published figures."""
    rows = [row for table in tables for row in table.rows]
    notes = []
    if any(show(cell, 2) == EMPTY for row in rows for cell in row.cells):
        notes.append(f"{EMPTY}: not measured here, or, in a published row, not published.")
    if any(row.origin == "published" for row in rows):
        notes.append(published.BGR_NOTE)
    return notes


def show(cell: Cell, digits: int) -> str:
    """A cell as text."""
    if cell.word:
        return cell.word
    if cell.value is None:
        return EMPTY
    text = f"{cell.value:.{digits}f}"
    return text if cell.spread is None else f"{text} ± {cell.spread:.{digits}f}"


def lines(table: Table) -> list[list[str]]:
    """The body of a table as text, the three leading columns first."""
    return [
        [row.model, row.figures, row.marked_data] + [show(cell, table.digits) for cell in row.cells]
        for row in table.rows
    ]


def headings(table: Table) -> list[str]:
    """The head of a table."""
    return [*LEADING, *(column.heading for column in table.columns)]


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's Markdown."""
    parts = []
    for table in tables:
        parts += [f"## {markdown_text(table.title)}", ""]
        parts += markdown_table(headings(table), lines(table), numbers=len(table.columns))
        parts += ["", *(f"- {markdown_text(note)}" for note in table.notes), ""]
    parts += [line for note in closing_notes(tables) for line in (markdown_text(note), "")]
    return "\n".join(parts).rstrip() + "\n"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """The lines of one table; its last `numbers` columns are set to the right."""
    ruler = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    made = ["| " + " | ".join(markdown_text(text) for text in line) + " |" for line in (head, *body)]
    return [made[0], "|" + "|".join(ruler) + "|", *made[1:]]


def markdown_text(text: str) -> str:
    """Text that Markdown leaves alone, on one line."""
    plain = " ".join(text.split())
    for character in "\\`*[]|<>":
        plain = plain.replace(character, f"\\{character}")
    return plain


def html(tables: Sequence[Table]) -> str:
    """A whole page that needs no network, in the style of the pre-training report."""
    return template("tables.html").render(
        tables=[shown(table) for table in tables],
        closing=closing_notes(tables),
        leading=len(LEADING),
        style=style(),
    )


def shown(table: Table) -> dict[str, Any]:
    """What the HTML templates take of a table."""
    return {"table": table, "head": headings(table), "lines": list(zip(table.rows, lines(table), strict=True))}


def comma_separated(tables: Sequence[Table]) -> str:
    """One line for each figure: where it stands, whose it is, what it was measured on, its value and spread."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["table", "model", "figures", "version", "data", "comparable", "protocol", "metric", "value", "std"]
    writer.writerow([*heads, "results", "caveats"])
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                value = cell.word or ("" if cell.value is None else repr(cell.value))
                spread = "" if cell.spread is None else repr(cell.spread)
                comparable = "yes" if row.comparable else "no"
                metric = "best_layer" if column.kind == "best layer" else column.metric
                where = [table.key, row.model, row.origin, row.version, row.data, comparable]
                writer.writerow([*where, column.protocol, metric, value, spread, row.results, row.caveats])
    return out.getvalue()


def latex(tables: Sequence[Table]) -> str:
    """Tables for a paper; they need the booktabs package."""
    parts = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for table in tables:
        columns = "l" * len(LEADING) + "r" * len(table.columns)
        parts += [r"\begin{table}", r"\centering", rf"\caption{{{_latex_text(table.title)}}}"]
        parts += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [_latex_line(headings(table)), r"\midrule", *(_latex_line(line) for line in lines(table))]
        parts += [r"\bottomrule", r"\end{tabular}"]
        parts += [rf"\par\footnotesize {_latex_text(note)}" for note in table.notes]
        parts += [r"\end{table}", ""]
    parts += [rf"\par {_latex_text(note)}" for note in closing_notes(tables)]
    return "\n".join(parts).rstrip() + "\n"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(_latex_text(text) for text in texts) + r" \\"


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


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
        write_atomic(out, text)
    return text
