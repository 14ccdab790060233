"""The model zoo page as Markdown and as HTML."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simsiam.report import formats
from simsiam.report.html import style, template
from simsiam.report.zoo_page import ABOUT, TITLE, Model, Part, ZooPage
from simsiam.results import write_atomic

_HEAD = ("Self-Supervised Config", "By", "Epochs", "Batch", "Licence", "Weights")
TRAINING = "Not trained here; these commands do it (eight GPUs; see docs/guides/reproduce.md for SLURM and one GPU):"
FILLING = "Not measured here yet; these commands fill the cells:"
FURTHER = "Further measurements"


def write(page: ZooPage, out: Path | None) -> str:
    """The page as text, HTML where `out` ends so, else Markdown; written to `out` as well where it is given."""
    text = html(page) if out is not None and out.suffix in (".html", ".htm") else markdown(page)
    if out is not None:
        write_atomic(out, text.encode())
    return text


def markdown(page: ZooPage) -> str:
    """GitHub's Markdown."""
    lines = [f"# {TITLE}", "", ABOUT, "", "## Models", ""]
    lines += formats.markdown_table(_HEAD, [_cells(model) for model in page.models], numbers=0)
    lines += ["", *_commands(TRAINING, page.training)]
    for section in page.sections:
        lines += [f"## {section.title}", "", section.about, ""]
        for part in section.parts:
            lines += [f"### {part.table.title}", "", *_markdown_part(part)]
    if page.further:
        lines += [f"## {FURTHER}", ""]
    for table in page.further:
        part = Part(table=table, about="", commands=[])
        lines += [f"### {table.title}", "", *_markdown_part(part)]
    lines += [line for note in page.closing for line in (formats.markdown_text(note), "")]
    return "\n".join(lines).rstrip() + "\n"


def html(page: ZooPage) -> str:
    """A whole page that needs no network."""
    return template("zoo_page.html").render(
        page=page,
        title=TITLE,
        about=ABOUT,
        training=TRAINING,
        filling=FILLING,
        further=FURTHER,
        model_head=_HEAD,
        models=[_cells(model) for model in page.models],
        shown=formats.shown,
        leading=len(formats.LEADING),
        style=style(),
    )


def _cells(model: Model) -> list[str]:
    return [str(getattr(model, field.name)) for field in dataclasses.fields(model)]


def _markdown_part(part: Part) -> list[str]:
    table = part.table
    lines = [formats.markdown_text(part.about), ""] if part.about else []
    lines += formats.markdown_table(formats.headings(table), formats.lines(table), numbers=len(table.columns))
    lines += ["", *(f"- {formats.markdown_text(note)}" for note in table.notes), ""]
    return lines + _commands(FILLING, part.commands)


def _commands(said: str, commands: list[str]) -> list[str]:
    return [said, "", "```sh", *commands, "```", ""] if commands else []
