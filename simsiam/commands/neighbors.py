"""`simsiam neighbors`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from simsiam import claims, results
from simsiam.commands.embedding_options import Asked, read, say
from simsiam.errors import UserError
from simsiam.wording import counted, one_line

if TYPE_CHECKING:
    from simsiam.browse.pictures import Row, Shown
    from simsiam.embedding.similarity import Group, Hit, Index
    from simsiam.embedding.vectors import Embedded

ABOUT = """Find the images most like a given one, or those that show the same thing twice.

Similarity is the cosine of two images' vectors: 1 for equal pictures, and what is usual for unlike ones depends on the
weights, so the similarity of pairs drawn at random is printed beside it.
"""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
GROUPS_SHOWN = 12  # on a contact sheet


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is looked for."""

    query: tuple[Path, ...] = ()  # Pictures to find the neighbours of; they need not be among the images.
    k: int = 10  # Neighbours of each picture.
    duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # List images that show the same thing.
    threshold: float = 0.95  # With --duplicates: cosine, above 0 to 1, from which two images count as the same.
    out: Path | None = None  # Also write a contact sheet, a .png, .jpg or .webp: --out alike.png.
    table: Path | None = None  # Also write a table: --table alike.csv.


@dataclass(frozen=True, kw_only=True)
class Found:
    """The same findings for a person and for a program."""

    sheet: list[Row]
    table: list[dict[str, str]]


def run(arguments: list[str]) -> int:
    """Search, print, and draw the sheet."""
    asked = read(arguments, Options(), about=ABOUT, prog="simsiam neighbors")
    options: Options = asked.options
    _check(options)
    with ExitStack() as held:
        for flag, file in (("--out", options.out), ("--table", options.table)):
            if file is not None:
                held.enter_context(
                    claims.claim(
                        file.parent,
                        command=f"neighbors {file.name}",
                        makes=[file.name],
                        inputs=[*asked.reads, *options.query],
                        flag=flag,
                    )
                )
        return _search(asked)


def _search(asked: Asked) -> int:
    from simsiam.embedding.similarity import Index

    options: Options = asked.options
    embedded = asked.embed()
    index = Index.of(embedded)
    background = index.background()
    say(
        f"two images drawn at random: median similarity {background.median:.3f}, "
        f"99.9 % of such pairs below {background.high:.3f}"
    )
    found = _duplicates(options, embedded, index) if options.duplicates else _neighbours(asked, embedded, index)
    if options.table is not None:
        _write_table(options.table, found)
    if options.out is not None and found.sheet:
        from simsiam.browse.pictures import contact_sheet
        from simsiam.evaluation.palette import write_picture

        write_picture(options.out, contact_sheet(found.sheet))
        say(f"written: {options.out}")
    return 0


def _check(options: Options) -> None:
    """Mistakes that need no image to be read."""
    if bool(options.query) == options.duplicates:
        raise UserError("say what to look for: --query PICTURE, or --duplicates (not both).")
    for query in options.query:
        if not query.is_file():
            raise UserError(f"--query {query}: no such file.")
    if options.k < 1:
        raise UserError(f"--k {options.k}: one neighbour or more.")
    if not 0 < options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: a cosine above 0 and at most 1.")
    if options.out is not None and options.out.suffix.lower() not in PICTURES:
        raise UserError(f"--out {options.out}: the sheet's name must end in {', '.join(PICTURES)}.")
    if options.table is not None and options.table.suffix.lower() != ".csv":
        raise UserError(f"--table {options.table}: the name must end in .csv.")
    for flag, file in (("--out", options.out), ("--table", options.table)):
        if file is not None:
            results.require_writable_file(file, flag=flag)


def _neighbours(asked: Asked, embedded: Embedded, index: Index) -> Found:
    from simsiam.browse.pictures import Row, Shown
    from simsiam.data.images import read_image
    from simsiam.embedding.embedder import Embedder

    embedder = Embedder(asked.subject, asked.settings, device=asked.inputs.device)
    found = Found(sheet=[], table=[])
    for query, vector in zip(asked.options.query, embedder(list(asked.options.query)), strict=True):
        hits = index.nearest(vector, asked.options.k)
        print(f"{one_line(str(query))}:")
        for hit in hits:
            path = embedded.path(hit.row)
            print(f"  {hit.similarity:6.4f}  {one_line(path)}")
            found.table.append({"query": str(query), "path": path, "similarity": f"{hit.similarity:.6f}"})
        shown = Shown(image=read_image(query, name=str(query)), title="query", detail=query.name)
        found.sheet.append(Row(query=shown, found=_shown(embedded, hits)))
    return found


def _duplicates(options: Options, embedded: Embedded, index: Index) -> Found:
    from simsiam.browse.pictures import Row
    from simsiam.embedding.similarity import Hit, near_duplicates
    from simsiam.engine.logs import share_bar

    with share_bar("comparing all pairs") as progress:
        groups = near_duplicates(
            index.rows,
            threshold=options.threshold,
            digests=embedded.digests(),
            progress=progress,
        )
    found = Found(sheet=[], table=_print_groups(options, embedded, groups))
    for group in groups[:GROUPS_SHOWN]:
        hits = [Hit(row=member.row, similarity=member.similarity) for member in group.members]
        first, *others = _shown(embedded, hits)
        title = f"group of {len(group.members)}"
        found.sheet.append(Row(query=replace(first, title=title), found=others))
    return found


def _print_groups(options: Options, embedded: Embedded, groups: list[Group]) -> list[dict[str, str]]:
    """Print the groups and what they amount to; returns them as rows of a table."""
    table = []
    for number, group in enumerate(groups, 1):
        print(f"group {number}: {counted(len(group.members), 'image')}")
        for member in group.members:
            path, same = embedded.path(member.row), "" if member.same_as is None else embedded.path(member.same_as)
            print(f"  {member.similarity:6.4f}  {one_line(path)}{same and f'  (exactly {one_line(same)})'}")
            number_and_path = {"group": str(number), "path": path}
            table.append({**number_and_path, "similarity": f"{member.similarity:.6f}", "copy_of": same})
    members = sum(len(group.members) for group in groups)
    print(
        f"groups at a similarity of {options.threshold:g} or more: {len(groups)}, of "
        f"{counted(members, 'image')} in all; "
        f"exact copies of another: {sum(group.copies for group in groups)}"
    )
    if groups and len(groups[0].members) > max(10, len(embedded) // 10):
        say(
            f"the largest group holds {len(groups[0].members)} of {len(embedded)} images: the threshold is too low for "
            "these weights, whose vectors all lie close together. Raise --threshold."
        )
    return table


def _write_table(file: Path, found: Found) -> None:
    import csv
    import io

    from simsiam.results import write_atomic

    text = io.StringIO()
    names = list(found.table[0]) if found.table else ["path", "similarity"]
    rows = csv.DictWriter(text, names, lineterminator="\n")
    rows.writeheader()
    rows.writerows(found.table)
    write_atomic(file, text.getvalue().encode("utf-8", "surrogateescape"))
    say(f"written: {file}")


def _shown(embedded: Embedded, hits: list[Hit]) -> list[Shown]:
    from simsiam.browse.pictures import CELL, Shown, picture

    indices = embedded.features.indices
    return [
        Shown(
            image=picture(embedded.source, int(indices[hit.row]), side=CELL),
            title=f"{hit.similarity:.4f}",
            detail=embedded.path(hit.row),
        )
        for hit in hits
    ]
