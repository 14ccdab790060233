"""Search among many vectors: one query, all pairs, and the answers of the local page, beside scikit-learn.

python benchmarks/search.py [--images 100000] [--channels 2048] [--pairs 10000]
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from sklearn.neighbors import NearestNeighbors

from simsiam.browse.collection import Collection
from simsiam.browse.server import Server, cookie_name
from simsiam.data.sources import ArraySource
from simsiam.embedding.similarity import near_duplicates
from simsiam.embedding.vectors import Embedded, embedding, unit_rows
from simsiam.features.extraction import Features

RUNS = 5
K = 48


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=10_000)
    asked = parser.parse_args()
    print(f"{asked.images:,} vectors of {asked.channels}; OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}")
    random = np.random.default_rng(0)
    rows = random.standard_normal((asked.images, asked.channels), np.float32)
    started = time.perf_counter()
    collection = Collection(_embedded(rows), cast("Any", None))
    print(f"index and background built in {time.perf_counter() - started:.2f} s")
    index = collection.index

    print(f"one query, {K} nearest:")
    queries = iter(range(10**6))
    ours = _median(lambda: index.nearest(index.rows[next(queries)], K))
    theirs = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(index.rows)
    reference = _median(lambda: theirs.kneighbors(index.rows[next(queries)][None]))
    found = [hit.row for hit in index.nearest(index.rows[5], K)]
    assert found == theirs.kneighbors(index.rows[5][None], return_distance=False)[0].tolist()
    print(f"  ours {1000 * ours:.0f} ms, scikit-learn brute force {1000 * reference:.0f} ms; the same rows")

    with Server(collection, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in ("/api/images?count=120", f"/api/images?start={asked.images - 120}&count=120", "/thumb/5"):
            print(f"  page answer {path}: {1000 * _median(lambda path=path: _ask(server, path)):.1f} ms")
        print(f"  page answer /api/like/N: {1000 * _median(lambda: _ask(server, f'/api/like/{next(queries)}')):.0f} ms")
        filtered = _median(lambda: _ask(server, f"/api/images?text={next(queries)}"))
        print(f"  page answer, filter by name over all: {1000 * filtered:.0f} ms")
        server.shutdown()

    part = unit_rows(rows[: asked.pairs])
    part[asked.pairs // 2 : asked.pairs // 2 + 100] = part[:100]  # a hundred copies to be found
    started = time.perf_counter()
    groups = near_duplicates(part, threshold=0.95, content=str)
    print(f"near duplicates among {asked.pairs:,}: {time.perf_counter() - started:.1f} s, {len(groups)} groups")


def _embedded(rows: np.ndarray) -> Embedded:
    source = ArraySource(np.zeros((len(rows), 8, 8, 3), np.uint8), name="made")
    features = Features(arrays={"pooled": rows}, indices=np.arange(len(rows)), bad=[])
    facts = {"weights": "random", "backbone": "none"}
    return Embedded(source=source, features=features, settings=embedding(224), weights="", facts=facts)


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _ask(server: Server, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("GET", path, headers={"Cookie": f"{cookie_name(server.key)}={server.key}"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    content = answer.read()
    connection.close()
    return content


if __name__ == "__main__":
    main()
