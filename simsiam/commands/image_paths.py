"""Images that a person names, as files or folders, and what their results are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simsiam.errors import UserError


def image_files(places: Sequence[Path]) -> list[Path]:
    """The files themselves, and those in folders and below; raises UserError that lists the places without one."""
    from simsiam.data.images import IMAGE_SUFFIXES

    files: list[Path] = []
    wrong = []
    for place in places:
        inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if place.is_file():
            files.append(place)
        elif inside:
            files += inside
        else:
            wrong.append(f"{place}: {'no image in it or below it' if place.is_dir() else 'no such image or folder'}")
    if wrong:
        raise UserError("\n".join(wrong))
    if not files:
        raise UserError("name the images: files, or folders of them.")
    return files


def file_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's results: its own, numbered where several files share it."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 1
        while name in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
