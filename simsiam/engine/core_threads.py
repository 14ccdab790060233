"""Independent pieces of work spread over threads, each with its share of the cores.

Many operations that each wait for all cores crawl when another program holds one of them. Threads that never wait for
each other do not, and lose nothing on an idle machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


class Threads:
    """Runs work on pieces, side by side where that pays."""

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self._pool = pool
        self.count = count

    def map(self, work: Callable[[Piece], Answer], pieces: Sequence[Piece]) -> list[Answer]:
        """The answers, in the order of the pieces."""
        return [work(piece) for piece in pieces] if self._pool is None else list(self._pool.map(work, pieces))


@contextmanager
def core_threads(device: torch.device, *, most: int) -> Iterator[Threads]:
    """As many threads as torch uses cores, but no more than `most`; on a GPU only the caller's own."""
    cores = torch.get_num_threads()
    count = max(1, min(cores, most))
    if device.type != "cpu" or count == 1:
        yield Threads(None, 1)
        return

    def take_share() -> None:
        torch.set_num_threads(cores // count)  # of this thread, and of threads still to be born

    try:
        with ThreadPoolExecutor(count, initializer=take_share) as pool:
            yield Threads(pool, count)
    finally:
        torch.set_num_threads(cores)
