"""A bar on the terminal while many files are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

FEW = 500  # files that are read before anybody asks how long it takes


def watched(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items; on a terminal, and where there are many, with a bar and an estimate on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = total < FEW or not console.is_terminal
    yield from track(items, total=total, description=what, console=console, transient=True, disable=quiet)
