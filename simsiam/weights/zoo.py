"""The zoo's verbs: list, show, get a published model, add an own run (torch is imported only to add)."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from simsiam import claims, locks, published
from simsiam.data.download import Unavailable, fetch_checked
from simsiam.errors import UserError
from simsiam.published import Published
from simsiam.report.formats import EMPTY, markdown_table
from simsiam.report.layout import PAGE_LAYOUTS, Column, Layout
from simsiam.results import Result, file_digest, now, read_json, write_atomic, write_json
from simsiam.weights import cards
from simsiam.weights.cards import Card
from simsiam.wording import counted

_SMALLEST = 10 << 20  # bytes; a ResNet-50's weights are about 100 MB, an error page is not


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the zoo's list."""

    name: str
    by: str
    licence: str
    recipe: str
    linear: str  # ImageNet top-1 of the published linear evaluation, or empty
    here: str  # where the weights lie on this machine, or empty
    url: str  # where they are fetched from; empty for own runs


def entries(cache: Path | None = None) -> list[Entry]:
    """Published models first, then own runs that were added."""
    made = []
    for card in cards.CARDS:
        path = cards.place(card, cache)
        linear = own_figure(card, "linear_avgpool", "top1")
        made.append(
            Entry(
                name=card.name,
                by=f"{card.by} {card.version}" if card.by == "MMSelfSup" else card.by,
                licence=card.licence,
                recipe=card.recipe,
                linear=f"{linear.value:.2f}" if linear else "",
                here=str(path) if path.exists() else "",
                url=card.url,
            )
        )
    for file in sorted((cards.zoo_folder(cache) / "own").glob("*/card.json")):
        raw = read_json(file)
        text = {key: str(raw.get(key) or "") for key in ("name", "licence", "recipe")}
        made.append(Entry(**text, by="own run", linear="", here=str(file.parent), url=""))
    return made


def show(name: str, cache: Path | None = None) -> str:
    """A card as Markdown: address, licence, recipe, and every published number in each version of its page."""
    if cards.find(name) is None and (own := cards.own_folder(name, cache) / "README.md").exists():
        return own.read_text("utf-8")
    card = cards.get(name)
    path = cards.place(card, cache)
    lines = [
        f"# {card.name}",
        "",
        f"- By: {card.by}, {card.version}; {card.epochs} epochs, batch {card.batch_size}, ResNet-50",
        f"- Address: {card.url}",
        *([f"- Linear classifier: {card.linear_url}"] if card.linear_url else []),
        f"- Licence: {card.licence}",
        f"- Recipe here: {card.recipe}",
        f"- Images: trained on {card.channel_order}"
        + ("; loaded here so that RGB goes in" if (card.channel_order == "BGR") else ""),
        f"- On this machine: {path if path.exists() else f'not yet; simsiam zoo get {card.name}'}",
        *(f"- {note}" for note in card.notes),
        "",
        *published_tables(card),
    ]
    return "\n".join(lines) + "\n"


def get(name: str, cache: Path | None = None) -> Path:
    """Fetch a published model, resuming an interrupted download, and verify it.

    The first eight digits of SHA-256 stand in MMSelfSup's file names; the official files have no published digest,
    so theirs is written down at the first fetch and held against every later one.

    Raises UserError that says how to place the file by hand where the download fails.
    """
    card = cards.get(name)
    path = cards.place(card, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locks.held(path.parent / ".lock"):
            fetch_checked(card.url, path, fault=lambda file: fault(card, file))
    except Unavailable as error:
        raise UserError(
            f"{card.name}: {error}.\nTo place it by hand, download {card.url}\nand put it at {path}\n"
            f"then run `simsiam zoo get {card.name}` again, which verifies it."
        ) from error
    write_json(
        path.parent / "fetched.json",
        {
            "url": card.url,
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
            "licence": card.licence,
            "when": now(),
        },
    )
    return path


def fault(card: Card, path: Path) -> str | None:
    """What is wrong with a card's file, or None; the name of a `.part` file does not matter."""
    if path.stat().st_size < _SMALLEST:
        return f"only {counted(path.stat().st_size, 'byte')}, so no ResNet-50"
    found = file_digest(path)
    if card.sha8 is not None:
        return None if found.startswith(card.sha8) else f"SHA-256 begins with {found[:8]}, not {card.sha8}"
    record = path.parent / "fetched.json"
    if record.exists() and (known := read_json(record).get("sha256")) != found:
        return f"SHA-256 {found[:8]}..., but {str(known)[:8]}... at the first fetch"
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    return "the archive is cut off" if is_zip and not zipfile.is_zipfile(path) else None


def add(run: Path, *, name: str | None = None, licence: str, cache: Path | None = None) -> Path:
    """Take an own run into the zoo: weights, recipe, verdict, results and a Markdown card in one folder.

    Args:
        run: a run folder.
        name: of the model; None: the folder's own.
        licence: of the weights, in words or as an SPDX name.

    Returns:
        The folder; `load_backbone(name)` finds it.
    """
    from simsiam.weights import modelcard
    from simsiam.weights.load import load_backbone
    from simsiam.weights.save import IMPORT_FILES, write_import

    name = name or run.resolve().name
    if cards.find(name) is not None or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        reason = "a published model has it" if cards.find(name) else "use letters, digits, . _ + -"
        raise UserError(f"--name {name}: not a name for an own model ({reason}).")
    loaded = load_backbone(run)
    results = [Result.read(path) for path in sorted(run.glob("**/result.json"))]
    folder = cards.own_folder(name, cache)
    training = [result.detail.get("verdict", {}) for result in results if result.protocol == "pretrain"]
    verdict = " ".join(str(training[0].get(key, "")) for key in ("status", "summary")) if training else None
    facts = modelcard.Facts(
        title=name,
        method="SimSiam" if loaded.recipe is not None or loaded.projector is not None else "not known",
        licence=licence,
        backbone=f"{loaded.backbone.name}, {loaded.backbone.features} features",
        preprocess=dataclasses.asdict(loaded.preprocess),
        recipe=loaded.recipe,
        sha256=loaded.weights.sha256,
        source=run.resolve().name,
        usage=modelcard.usage("safetensors", "backbone.safetensors", loaded.backbone.name, "imagenet"),
        results=results,
        verdict=verdict,
        notes=[f"Data: {r.data.name}, {counted(r.data.images, 'image')}, SHA-256 {r.data.sha256}" for r in results[:1]],
    )
    makes = (*IMPORT_FILES, "results/*/result.json", "README.md", "card.json")
    with claims.claim(folder, command="zoo add", makes=makes, whole=True, again=True, flag="--name"):
        write_import(loaded, folder, licence=licence)
        for number, result in enumerate(results):
            result.write(folder / "results" / f"{number:03d}-{result.protocol}" / "result.json")
        write_atomic(folder / "README.md", modelcard.render(facts))
        own = {"name": name, "licence": licence, "recipe": loaded.recipe.name if loaded.recipe is not None else None}
        own |= {"sha256": loaded.weights.sha256, "verdict": verdict, "added": now()}
        write_json(folder / "card.json", own)
    return folder


def licence_of(source: str, cache: Path | None = None) -> str | None:
    """The licence of a zoo model, of an own run in the zoo, or of an import that recorded one; None: not known."""
    if (card := cards.find(source)) is not None:
        return card.licence
    for record in (cards.own_folder(source, cache) / "card.json", Path(source) / "import.json"):
        if record.is_file():
            found = read_json(record).get("licence")
            return str(found) if found else None
    return None


def as_json(cache: Path | None = None) -> str:
    """The list for other programs."""
    return json.dumps([dataclasses.asdict(entry) for entry in entries(cache)], indent=1)


_SAME = "="
_HOW = (
    "Published figures, a line for each version of the page that changed one. "
    f"{_SAME}: as in the line above. {EMPTY}: not published."
)


def figures(card: Card) -> list[Published]:
    """Every published figure of the card's row, in the order of publication."""
    return published.figures(model=card.row, source=published.PAGE if card.by == "MMSelfSup" else published.OFFICIAL)


def own_figure(card: Card, protocol: str, metric: str) -> Published | None:
    """The figure that stood on the page of the card's own version; None where it had none."""
    found = [one for one in figures(card) if (one.protocol, one.metric) == (protocol, metric)]
    if card.by == "MMSelfSup":
        found = [one for one in found if _order(one.version) <= _order(card.version)]
    return found[-1] if found else None


def published_tables(card: Card) -> list[str]:
    """The tables as lines of Markdown, with what is to be known of each line's figures below."""
    lines = [_HOW]
    for layout in PAGE_LAYOUTS:
        lines += _table(card, layout)
    return lines


def _table(card: Card, layout: Layout) -> list[str]:
    mine = [one for one in figures(card) if one.protocol in layout.protocols]
    columns = [column for column in layout.columns if any(_matches(one, column) for one in mine)]
    if not columns:
        return []
    body, before = [], [EMPTY] * len(columns)
    for version in dict.fromkeys(one.version for one in mine):
        new = [one for one in mine if one.version == version]
        cells = [_cell(new, column, layout.digits) for column in columns]
        mark = " (this model's release)" if version == card.version else ""
        known = [_SAME if old != EMPTY else EMPTY for old in before]
        body.append([version + mark, *(cell or sign for cell, sign in zip(cells, known, strict=True))])
        before = [cell or old for cell, old in zip(cells, before, strict=True)]
    head = ["Version", *(column.heading for column in columns)]
    table = markdown_table(head, body, numbers=len(columns))
    return ["", f"## {layout.title}", "", *table, "", *_notes(mine, columns)]


def _notes(mine: list[Published], columns: list[Column]) -> list[str]:
    """A line for each thing to know, with the versions and columns that it holds for."""
    said: dict[str, dict[str, set[str]]] = {}
    for one in mine:
        if one.note:
            headings = {column.heading for column in columns if _matches(one, column)}
            said.setdefault(one.note, {}).setdefault(one.version, set()).update(headings)
    lines = []
    for note, versions in said.items():
        named = set().union(*versions.values())
        which = [column.heading for column in columns if column.heading in named]
        place = [" and ".join(versions), *(which if len(which) < len(columns) else [])]
        lines.append(f"- {', '.join(place)}: {note}.")
    return lines


def _matches(one: Published, column: Column) -> bool:
    metric = "feature5" if column.kind == "best layer" else column.published or column.metric
    return one.protocol == column.protocol and one.metric == metric


def _cell(new: list[Published], column: Column, digits: int) -> str:
    """The figure that this version brought, with how sure it is where it was not read; empty if it brought none."""
    found = next((one for one in new if _matches(one, column)), None)
    if found is None:
        return ""
    text = found.metric if column.kind == "best layer" else f"{found.value:.{digits}f}"
    return text if found.certainty == "read" else f"{text} ({found.certainty})"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))
