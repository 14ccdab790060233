"""Independent columns spread over threads, each with its share of the cores.

Many small operations that each wait for all cores crawl when another program holds one of them. Threads that never
wait for each other do not, and lose nothing on an idle machine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Answer = TypeVar("Answer")


def in_threads(work: Callable[[Tensor], Answer], columns: Tensor, *, least: int) -> list[Answer]:
    """Call `work` on consecutive parts of the columns, at least `least` in each; answers in order.

    On a GPU there is one part, in this thread.
    """
    threads = torch.get_num_threads()
    parts = min(threads, max(1, len(columns) // least))
    if columns.device.type != "cpu" or parts == 1:
        return [work(columns)]

    def take_share() -> None:
        torch.set_num_threads(threads // parts)  # of this thread, and of threads still to be born

    try:
        with ThreadPoolExecutor(parts, initializer=take_share) as pool:
            return list(pool.map(work, torch.tensor_split(columns, parts)))
    finally:
        torch.set_num_threads(threads)
