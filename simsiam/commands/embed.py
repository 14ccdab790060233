"""`simsiam embed`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from simsiam import claims
from simsiam.commands.embedding_options import read, say
from simsiam.engine.logs import share_bar
from simsiam.errors import UserError
from simsiam.wording import counted

ABOUT = """Write one vector for each image to a file that other programs read.

Rows keep the order of the images and carry their paths; images that cannot be read are listed beside the file. An
interrupted command resumes when it is given again.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The file."""

    out: Path | None = None  # The file to write, .parquet, .npy or .csv; needed: --out features.parquet.
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # Replace a file that exists.


def run(arguments: list[str]) -> int:
    """Embed the images and write the file."""
    from simsiam.embedding import files as embedding_files

    asked = read(
        arguments,
        Options(),
        about=ABOUT,
        prog="simsiam embed",
        before=lambda options: embedding_files.check(_named(options)),
    )
    out = _named(asked.options)
    ended = claims.ended(out.parent, f"embed {out.name}")
    with embedding_files.hold(out, reads=asked.reads):
        if out.exists() and ended and not asked.options.again:
            raise UserError(f"--out {out}: exists already. Give another name, or --again to replace it.")
        embedded = asked.embed()
        with share_bar(f"writing {out.name}") as progress:
            written = embedding_files.write(embedded, out, progress=progress)
    print(f"{written.file}: {counted(len(embedded), 'image')}, {embedded.channels} numbers each")
    for file in written.beside:
        print(f"{file}: {_purpose(file)}")
    if embedded.bad:
        say(f"{len(embedded.bad):,} of {counted(len(embedded.source), 'image')} could not be read")
    return 0


def _named(options: Options) -> Path:
    """The file to write; raises UserError if none is named."""
    if options.out is None:
        raise UserError("--out: name the file to write, for instance --out features.parquet (or .npy, .csv).")
    return options.out


def _purpose(file: Path) -> str:
    if file.name.endswith(".bad.csv"):
        return "the images left out, and why"
    return "the path of every row" if file.name.endswith(".paths.csv") else "weights, layer, scaling and pre-processing"
