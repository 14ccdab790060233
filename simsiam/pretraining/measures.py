"""What the monitor measures of outputs and images: hits, cosines, ranks, distinct pictures. Each is its formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source
from simsiam.features.extraction import Features
from simsiam.features.neighbours import nearest, vote
from simsiam.wording import counted

KNN_K = 20
KNN_TEMPERATURE = 0.07
SCENE_SIDE, SAME_SCENE = 16, 0.06
SCENE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images with labels for the online kNN: references and queries, or one set where each leaves itself out."""

    references: Source
    queries: Source
    own_row: Literal["keep", "skip"]  # skip: references and queries are the same images

    @property
    def k(self) -> int:
        """20, or as many as there are."""
        return min(KNN_K, len(self.references) - (self.own_row == "skip"))

    @property
    def chance(self) -> float:
        """The accuracy of always naming the commonest class of the queries, in percent."""
        assert self.queries.labels is not None
        return 100 * float(np.bincount(self.queries.labels).max()) / len(self.queries)

    def describe(self) -> str:
        """The protocol in a line."""
        left_out = ", each query left out of its own references" if self.own_row == "skip" else ""
        return (
            f"k {self.k}, T {KNN_TEMPERATURE}, {counted(len(self.references), 'reference')}, "
            f"{counted(len(self.queries), 'query', 'queries')}{left_out}"
        )


def knn_hits(queries: Features, references: Features, labelled: Labelled) -> np.ndarray:
    """For each query, 1 where the weighted vote of its neighbours is right, else 0."""
    truth = torch.from_numpy(queries.labels(labelled.queries))
    labels = torch.from_numpy(references.labels(labelled.references))
    found = nearest(
        queries.pooled, references.pooled, k=min(labelled.k, len(labels) - 1), device="cpu", own_row=labelled.own_row
    )
    scores = vote(found, labels, k=found.index.shape[1], temperature=KNN_TEMPERATURE, classes=int(labels.max()) + 1)
    return (scores.argmax(1) == truth).numpy().astype(np.float64)


def view_hits(f1: Tensor, f2: Tensor) -> np.ndarray:
    """For each image, 1 where the nearest second view to its first view is its own, else 0."""
    found = nearest(f1, f2, k=1, device="cpu").index[:, 0]
    return (found == torch.arange(len(f1))).numpy().astype(np.float64)


def mean_cosine_of_others(p: Tensor, z: Tensor) -> float:
    """The mean cosine of p of one image with z of another over all N (N - 1) pairs, none of them formed; N x d each."""
    p, z = (functional.normalize(rows.double(), dim=1) for rows in (p, z))
    total = p.sum(0) @ z.sum(0) - (p * z).sum()
    return float(total / (len(p) * (len(p) - 1)))


def effective_rank(rows: Tensor) -> float:
    """How many directions the centred rows use: exp of the entropy of the normalised singular values.

    Between 1 (one direction) and min(N, C); 0 where all rows are equal. Source: Roy and Vetterli 2007.
    """
    centred = rows.double() - rows.double().mean(0)
    if not bool(torch.isfinite(centred).all()):
        return float("nan")
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()  # the singular values
    total = values.sum()
    if total <= 1e-6 * rows.double().norm():
        return 0.0
    share = values / total
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def distinct_scenes(source: Source, *, workers: int = 0) -> int:
    """How many images are no near-duplicates of an earlier one: 16 x 16 pixels that differ by 6 % or more (RMS)."""
    small = Preprocess(kind="squash", resize=SCENE_SIDE, size=SCENE_SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batches = image_batches(source, small, batch_size=SCENE_BATCH, device=torch.device("cpu"), workers=workers)
    rows = torch.cat([batch.images.flatten(1) for batch in batches])  # N x 768
    close = torch.cdist(rows, rows) < SAME_SCENE * rows.shape[1] ** 0.5
    waiting, scenes = torch.ones(len(rows), dtype=torch.bool), 0
    while bool(waiting.any()):
        waiting &= ~close[int(waiting.nonzero()[0])]
        scenes += 1
    return scenes
