"""Nearest-neighbour search against the bare matrix product that it cannot do without, in one run.

    python benchmarks/knn.py [--references 65536] [--queries 8192] [--channels 2048] [--k 200] [--device cpu]

References are half-precision rows of a memory-mapped file, as a cached extraction leaves them. The product's side
multiplies the same numbers in the same chunks, in float32 and already in memory, and keeps nothing. Both sides take
turns; the best time of each counts. At the end one chunk is searched with 50,000 queries, the memory of which does
not depend on how many more references follow.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from simsiam.features.neighbours import QUERY_ROWS, REFERENCE_ROWS, nearest

IMAGENET_TRAIN, IMAGENET_VAL = 1_281_167, 50_000


def main() -> None:
    """Print times, their ratio, and the memory of a full-size query set."""
    options = _options()
    load = os.getloadavg()[0]
    device = torch.device(options.device)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        references = _write(Path(folder) / "references.npy", options.references, options.channels, random)
        queries = _rows(options.queries, options.channels, random)
        searches, products = [], []
        for _ in range(options.rounds):
            products.append(_timed(lambda: _product(queries, options.references, device), device))
            searches.append(_timed(lambda: nearest(queries, references, k=options.k, device=device), device))
        flops = 2 * options.references * options.queries * options.channels
        print(
            f"{options.queries:,} queries x {options.references:,} references x {options.channels} channels, k "
            f"{options.k}, {options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
            f"load average before {load:.1f}"
        )
        print(f"matrix product {min(products):.2f} s ({flops / min(products) / 1e9:,.0f} GFLOP/s)")
        print(f"search         {min(searches):.2f} s, {min(searches) / min(products):.2f} x the product")
        whole = min(searches) * (IMAGENET_TRAIN / options.references) * (IMAGENET_VAL / options.queries)
        print(f"scaled to ImageNet (1,281,167 x 50,000): {whole / 60:,.0f} minutes")
        many = _rows(IMAGENET_VAL, options.channels, random)
        with _PeakMemory() as memory:
            nearest(many, references[: 2 * REFERENCE_ROWS], k=options.k, device=device)
        print(f"memory of the process with 50,000 queries: {memory.peak / 1e9:.2f} GB (without mapped files)")


def _product(queries: np.ndarray, references: int, device: torch.device) -> None:
    rows = torch.from_numpy(queries).to(device).float()
    chunk = torch.rand(REFERENCE_ROWS, rows.shape[1], device=device)
    for start in range(0, references, REFERENCE_ROWS):
        part = chunk[: min(REFERENCE_ROWS, references - start)]
        for first in range(0, len(rows), QUERY_ROWS):
            rows[first : first + QUERY_ROWS] @ part.T


def _timed(work: object, device: torch.device) -> float:
    assert callable(work)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _rows(count: int, channels: int, random: np.random.Generator) -> np.ndarray:
    """Features of a thousand loose clusters, all positive as pooled features are."""
    centres = np.random.default_rng(1).random((1000, channels), dtype=np.float32)
    rows = centres[random.integers(0, 1000, count)] + random.random((count, channels), dtype=np.float32)
    half: np.ndarray = rows.astype(np.float16)
    return half


def _write(file: Path, count: int, channels: int, random: np.random.Generator) -> np.ndarray:
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(count, channels))
    for start in range(0, count, REFERENCE_ROWS):
        mapped[start : start + REFERENCE_ROWS] = _rows(min(REFERENCE_ROWS, count - start), channels, random)
    mapped.flush()
    read: np.ndarray = np.load(file, mmap_mode="r")
    return read


class _PeakMemory:
    """The largest anonymous memory of this process while the block runs (Linux), sampled."""

    def __enter__(self) -> _PeakMemory:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("references", 65536), ("queries", 8192), ("channels", 2048), ("k", 200), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
