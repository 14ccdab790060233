"""Counts and times in sentences: `1 image is`, `2 images are`, `3 min 20 s`."""

from __future__ import annotations

from collections.abc import Sequence


def plural(number: int, one: str, many: str | None = None) -> str:
    """The word that fits the number; without `many`, the plural is `one` with an s."""
    return one if number == 1 else many or f"{one}s"


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 42 s, 3 min 20 s, 5 h 12 min, 2 d 4 h."""
    if seconds != seconds:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number, with commas, and the word or words that fit it."""
    return f"{number:,} {plural(number, one, many)}"


def left_out(number: int, one: str) -> str:
    """What is said of images that a measure had to do without."""
    return f"{counted(number, one)} could not be read and {plural(number, 'was', 'were')} left out"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def in_words(classes: Sequence[str], count: int | None = None) -> str:
    """How many classes there are, and the first of their names: 3 classes (cat, dog, owl)."""
    names = f" ({some(classes)})" if classes else ""
    return f"{counted(len(classes) if count is None else count, 'class', 'classes')}{names}"


def one_line(text: str) -> str:
    """A file's name for people: line breaks, control characters and bytes that are no UTF-8 appear as `?`."""
    return "".join(each if each.isprintable() else "?" for each in text)


def plain(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text).strip("-.")
