"""`simsiam zoo`: the published models and one's own, and the page with every figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from simsiam.report.zoo_page import Model

USAGE = """usage: simsiam zoo [ACTION] ...

The published SimSiam models, your own, and the model zoo page.

actions:
  list       Models with address, licence, recipe and headline figure (also without an action).
  show NAME  The page's tables for a model: every published number with its version.
  get NAME   Download a published model, resuming where an earlier try stopped, and verify it.
  add RUN    Take a run of yours in: weights, recipe, verdict, results and a Markdown card.
  page       The model zoo page: published figures, and those of your result files beside them.

`simsiam zoo ACTION --help` explains each."""


@dataclass(frozen=True)
class List:
    """List the published models and your own."""

    format: Literal["text", "json"] = "text"  # text for people, json for programs.


@dataclass(frozen=True)
class Show:
    """Print a model's card: address, licence, recipe, and the page's tables in every version."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]  # as `simsiam zoo list` prints it


@dataclass(frozen=True)
class Get:
    """Download a published model and verify it; without a network, say where to put the file by hand."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]  # as `simsiam zoo list` prints it


@dataclass(frozen=True, kw_only=True)
class Add:
    """Take a run of yours into the zoo, as one folder with a Markdown card."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]  # the folder of a finished run
    licence: str  # Licence of the weights, in words or as an SPDX name: Apache-2.0, CC BY 4.0.
    name: str | None = None  # Name of the model; without it, the run folder's.


@dataclass(frozen=True, kw_only=True)
class Page:
    """Write the model zoo page: the published tables, filled from result files.

    What is not measured yet is marked, with the command that fills it.
    """

    # Run folders, or folders that hold results.
    results: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    # The page; without it, Markdown to the terminal.
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md|FILE.html")] = None


def run(arguments: list[str]) -> int:
    """Hand over to the action that the first word names."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    is_list = not arguments or arguments[0].startswith("-")
    action, rest = ("list", arguments) if is_list else (arguments[0], arguments[1:])
    if action not in ACTIONS:
        raise UserError(f"zoo {action}: there is no such action.{did_you_mean(action, ACTIONS)} See `simsiam zoo -h`.")
    ACTIONS[action](rest)
    return 0


def _list(arguments: list[str]) -> None:
    from simsiam.weights import zoo

    command = read_line(List, arguments, prog="simsiam zoo list")
    if command.format == "json":
        print(zoo.as_json())
        return
    entries = zoo.entries()
    head = zoo.Entry(name="name", by="by", licence="licence", recipe="recipe", linear="linear", here="", url="")
    shown = ("name", "by", "recipe", "linear", "licence")
    widths = {field: max(len(getattr(entry, field)) for entry in (head, *entries)) for field in shown}
    for entry in (head, *entries):
        print("  ".join(f"{getattr(entry, field):<{widths[field]}}" for field in shown).rstrip())
        if entry is not head:
            print(f"    {f'here: {entry.here}' if entry.here else entry.url}")
    print("\nlinear: published ImageNet top-1 of the linear classifier, in the version of each model.")
    print("`simsiam zoo show NAME` prints every published number; `simsiam zoo get NAME` downloads.")


def _show(arguments: list[str]) -> None:
    from simsiam.weights import zoo

    print(zoo.show(read_line(Show, arguments, prog="simsiam zoo show").name), end="")


def _get(arguments: list[str]) -> None:
    from simsiam.results import file_digest
    from simsiam.weights import cards, zoo

    name = read_line(Get, arguments, prog="simsiam zoo get").name
    path = zoo.get(name)
    card = cards.get(name)
    print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {file_digest(path)}")
    print(f"licence: {card.licence}")
    for note in card.notes:
        print(f"note: {note}")
    print(f"\nevery command takes it by its name: simsiam evaluate knn {name} --data data/imagenet")


def _add(arguments: list[str]) -> None:
    from simsiam.weights import zoo

    command = read_line(Add, arguments, prog="simsiam zoo add")
    folder = zoo.add(command.run, name=command.name, licence=command.licence)
    print(f"{folder}: added; every command takes it by its name, {folder.name}")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            print(f"  {path.relative_to(folder)}")


def _page(arguments: list[str]) -> None:
    from simsiam.report.collect import collect
    from simsiam.report.zoo_page import write, zoo_page

    command = read_line(Page, arguments, prog="simsiam zoo page")
    if command.out is not None and command.out.suffix not in (".md", ".html", ".htm"):
        raise UserError(f"--out {command.out}: end it in .md or .html.")
    page = zoo_page(published_models(), collect(command.results))
    if command.out is None:
        print(write(page, None))
        return
    file, read = command.out, [each for each in command.results if each.is_file()]
    with claims.claim(file.parent, command=f"zoo page {file.name}", makes=[file.name], inputs=read):
        write(page, file)
    print(f"written: {file}")


def published_models() -> list[Model]:
    """The cards as lines of the page's first table."""
    from simsiam.report.zoo_page import Model
    from simsiam.weights import cards

    return [
        Model(
            name=card.row if card.by == "MMSelfSup" else f"{card.by}, {card.row}",
            by=f"{card.by}, {card.version}" if card.by == "MMSelfSup" else card.version,
            epochs=str(card.epochs),
            batch_size=str(card.batch_size),
            licence=card.licence,
            weights=f"simsiam zoo get {card.name}",
        )
        for card in cards.CARDS
    ]


ACTIONS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "show": _show,
    "get": _get,
    "add": _add,
    "page": _page,
}
