"""Nearest neighbours by cosine similarity in bounded memory.

References are read in chunks, so they may be a memory-mapped half-precision array far larger than memory. Against
each chunk every query keeps its k best so far; a chunk's similarities are compared with the k-th best first, and only
the few that beat it are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simsiam.errors import UserError
from simsiam.wording import counted, plural

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    Rows = np.ndarray | Tensor  # N x C, any floating type; numpy arrays may be memory-mapped

REFERENCE_ROWS = 16384  # a chunk of references, as float32: 128 MiB at 2048 channels
QUERY_ROWS = 1024  # the similarities of one block against one chunk: 64 MiB


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The k nearest references of every query, nearest first."""

    similarity: Tensor  # Q x k, float32: cosine
    index: Tensor  # Q x k, int64: rows of the references


def nearest(
    queries: Rows,
    references: Rows,
    *,
    k: int,
    device: str | torch.device,
    own_row: Literal["keep", "skip"] = "keep",
    reference_rows: int = REFERENCE_ROWS,
    query_rows: int = QUERY_ROWS,
) -> Neighbours:
    """Find the k nearest references of every query by cosine similarity, exactly, in float32.

    Args:
        queries: Q x C; kept on the device as float32.
        references: N x C; read once, chunk by chunk.
        k: neighbours to keep.
        device: where the products are computed.
        own_row: skip where the queries are the references themselves and a row must not find itself.
        reference_rows: references in a chunk.
        query_rows: queries in a block.

    Raises UserError if there are too few references for k, or if a feature is NaN or infinite.
    """
    import torch

    total = len(references)
    usable = total - (own_row == "skip")
    if k > usable:
        raise UserError(
            f"k = {k} {plural(k, 'neighbour was', 'neighbours were')} asked of {counted(usable, 'reference')}. "
            f"Use k <= {usable}."
        )
    if queries.shape[1] != references.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} channels and references {references.shape[1]}: "
            "they come from two different networks or layers."
        )
    from simsiam.engine.distributed import core_threads

    device = torch.device(device)
    with torch.inference_mode():
        targets = _unit_rows(queries, device, "query")  # Q x C
        best = torch.full((len(targets), k), -torch.inf, device=device)  # Q x k, sorted downwards
        index = torch.zeros((len(targets), k), dtype=torch.int64, device=device)
    blocks = [slice(first, first + query_rows) for first in range(0, len(targets), query_rows)]
    with core_threads(device, most=len(blocks)) as threads:
        for start in range(0, total, reference_rows):
            chunk = _unit_rows(references[start : start + reference_rows], device, "reference", first_row=start)

            def search(rows: slice, chunk: Tensor = chunk, start: int = start) -> None:
                with torch.inference_mode():  # a thread's own setting
                    similarity = targets[rows] @ chunk.T  # q x n
                    if own_row == "skip":
                        _hide_own_row(similarity, rows.start, start)
                    _merge(best[rows], index[rows], similarity, start)

            threads.map(search, blocks)
    return Neighbours(similarity=best.cpu(), index=index.cpu())


def vote(neighbours: Neighbours, labels: Tensor, *, k: int, temperature: float, classes: int) -> Tensor:
    """Class scores from the k nearest: each adds exp(similarity / temperature) to its class, Q x classes."""
    import torch

    weights = (neighbours.similarity[:, :k] / temperature).exp()  # Q x k
    return torch.zeros(len(weights), classes).scatter_add(1, labels[neighbours.index[:, :k]], weights)


def _merge(best: Tensor, index: Tensor, similarity: Tensor, start: int) -> None:
    """Update each query's k best (in place) with the similarities of one chunk that begins at row `start`."""
    import torch

    k = best.shape[1]
    better = _true_places(similarity > best[:, -1:])
    if len(better) == 0:
        return
    if len(better) > similarity.numel() // 20:  # the first chunks, where many are new
        values, columns = similarity.topk(min(k, similarity.shape[1]), dim=1)
    else:
        values, columns = _pack(similarity, better)
    joined = torch.cat([best, values], 1)
    joined_index = torch.cat([index, columns + start], 1)
    top, where = joined.topk(k, dim=1)
    best.copy_(top)
    index.copy_(joined_index.gather(1, where))


def _true_places(mask: Tensor) -> Tensor:
    """Places of the true entries in the flattened mask, ascending."""
    import numpy as np
    import torch

    if mask.device.type == "cpu":  # numpy's scan of a sparse mask is ten times as fast as torch's
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().flatten()


def _pack(similarity: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The entries at the given flat places, moved to the left of their rows: values and columns, padded with -inf."""
    import torch

    row = places.div(similarity.shape[1], rounding_mode="floor")
    column = places - row * similarity.shape[1]
    counts = torch.bincount(row, minlength=len(similarity))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    shape = (len(similarity), int(counts.max()))
    values = similarity.new_full(shape, -torch.inf)
    columns = torch.zeros(shape, dtype=torch.int64, device=row.device)
    values[row, place] = similarity[row, column]
    columns[row, place] = column
    return values, columns


def _hide_own_row(similarity: Tensor, first: int, start: int) -> None:
    """Make it impossible for query `first + i` to find reference `start + j` when they are the same row."""
    import torch

    queries, references = similarity.shape
    low, high = max(first, start), min(first + queries, start + references)
    if low < high:
        same = torch.arange(low, high, device=similarity.device)
        similarity[same - first, same - start] = -torch.inf


def _unit_rows(rows: Rows, device: str | torch.device, what: str, *, first_row: int = 0) -> Tensor:
    """Rows on the device in float32, divided by their L2 norms; UserError on a NaN or an infinity."""
    import numpy as np
    import torch

    block = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
    block = block.to(device).float()
    norms = block.norm(dim=1, keepdim=True)
    if not bool(norms.isfinite().all()):
        bad = int((~norms.isfinite().flatten()).nonzero()[0]) + first_row
        raise UserError(
            f"{what} features hold a NaN or an infinity (first in row {bad}): the weights diverged in training, or "
            "half precision overflowed. Extract in fp32, or use another checkpoint."
        )
    unit: Tensor = block / norms.clamp_min(1e-12)
    return unit
