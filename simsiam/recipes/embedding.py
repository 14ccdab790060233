"""How images are embedded unless someone says otherwise: every setting by name."""

from __future__ import annotations

from simsiam.data.preprocess import short_edge
from simsiam.evaluation.embedding import Embedding


def embedding(size: int) -> Embedding:
    """The network's pooled output, as it is, of the centre of each picture at `size` pixels (as kNN takes it)."""
    return Embedding(
        layer="pooled",
        normalise="none",
        fit="center",
        resize=short_edge(size),
        size=size,
        precision="fp32",
        storage="float32",
        batch_size=64,
    )
