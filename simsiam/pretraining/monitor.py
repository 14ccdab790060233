"""What says whether a training works, measured on a held-out sample: spread, spectrum, alignment, neighbours.

Every measure is of the network in evaluation mode, in float32, on images that it is not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam import model as simsiam_model
from simsiam.config import Views, published_views
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess, short_edge
from simsiam.data.sources import Source, as_source
from simsiam.data.two_views.loader import pair_batches
from simsiam.engine import stopping
from simsiam.errors import UserError
from simsiam.features.extraction import Features, extract
from simsiam.features.neighbours import nearest, vote
from simsiam.model import SimSiam
from simsiam.pretraining.verdict import Check, Verdict, judge
from simsiam.wording import counted

KNN_K = 20
KNN_TEMPERATURE = 0.07
STABLE_NEIGHBOURS = 10
BATCH = 256
SCENE_SIDE, SAME_SCENE = 16, 0.06
RETRIEVAL = 1000  # images among which view retrieval searches, at most


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

    def describe(self) -> str:
        """The protocol in a line."""
        left_out = ", each query left out of its own references" if self.own_row == "skip" else ""
        return (
            f"k {self.k}, T {KNN_TEMPERATURE}, {counted(len(self.references), 'reference')}, "
            f"{counted(len(self.queries), 'query', 'queries')}{left_out}"
        )


class Monitor:
    """Measures a network again and again on the same held-out images, and judges what it found.

    Args:
        held_out: images that are not trained on: a folder, a torch data set (its transform is left out), a list of PIL
            images, N x H x W x 3 uint8, or a source of ours.
        labelled: for kNN; None where there are no labels.
        views: how the two views of a held-out image are drawn, once for all checks; None: as published, at `size`.
        size: pixels that the network sees.
        seed: of the views.
        device: None: where the network lies.
        workers: processes that decode images.

    Raises UserError where there are fewer than two images.

    >>> model = SimSiam("resnet18", projector_dim=64)
    >>> watch = Monitor("photos", size=32)
    >>> start = watch.check(model)  # before the first step: later checks are compared with it
    >>> later = watch.check(model, epoch=1, step=40)
    >>> later.view_recall == start.view_recall, later.neighbour_stability
    (True, 1.0)
    >>> watch.verdict.numbers["view retrieval, %"] == later.view_recall
    True
    """

    def __init__(
        self,
        held_out: Source | Any,
        labelled: Labelled | None = None,
        *,
        views: Views | None = None,
        size: int = 224,
        seed: int = 0,
        device: torch.device | None = None,
        workers: int = 0,
    ) -> None:
        self.held_out = as_source(held_out)
        if len(self.held_out) < 2:
            raise UserError(
                f"{self.held_out.name}: holds {counted(len(self.held_out), 'image')}; two or more are needed."
            )
        self.labelled, self.seed, self.device, self.workers = labelled, seed, device or torch.device("cpu"), workers
        self.views = views = views or published_views(size)
        self.preprocess = Preprocess(
            kind="center", resize=short_edge(views.size), size=views.size, mean=views.mean, std=views.std
        )
        self.retrieved = self.held_out.subset(np.arange(min(RETRIEVAL, len(self.held_out))))
        self.checks: list[Check] = []
        self.neighbours: Tensor | None = None  # of the last check, N x 10; kept over a resume
        self._follows_network = device is None

    @cached_property
    def scenes(self) -> int:
        """How many clearly different pictures are held out: frames of a video count once."""
        return distinct_scenes(self.held_out, workers=self.workers)

    @property
    def about(self) -> str:
        """The images that everything is measured on, in a sentence."""
        images = f"every measure is of {counted(len(self.held_out), 'image')}"
        if self.scenes > len(self.held_out) / 2:
            return images
        return f"{images}, of about {counted(self.scenes, 'distinct scene')}: the others are near-duplicates"

    @property
    def verdict(self) -> Verdict:
        """What the checks so far say, the first of which is of the network at its start."""
        return judge(self.checks)

    def check(self, network: SimSiam, *, epoch: int | None = None, step: int = 0) -> Check:
        """Measure the network as it stands; the check joins `checks`.

        Args:
            network: left in the mode in which it was.
            epoch: None: the number of checks before this one.
            step: global; 0 where it is not known. Under 20 steps are too few for a verdict.
        """
        found = self._check(network, epoch=len(self.checks) if epoch is None else epoch, step=step)
        self.checks.append(found)
        return found

    def _check(self, network: SimSiam, *, epoch: int, step: int) -> Check:
        if self._follows_network:
            self.device = next(network.parameters()).device
        with evaluating(network):
            f1, f2, z1, z2, p1 = self._pairs(network)
            if not all(bool(rows.isfinite().all()) for rows in (f1, f2, z1, z2, p1)):
                return _diverged(epoch=epoch, step=step, candidates=len(f1))
            plain = self.features(network.backbone, self.held_out)
            knn = self._knn(network.backbone)
        recall = view_hits(f1, f2).mean() * 100
        return Check(
            epoch=epoch,
            step=step,
            spread=float(simsiam_model.spread(z1)),
            rank_z=effective_rank(functional.normalize(z1, dim=1)),
            rank_features=effective_rank(f1),
            alignment_pairs=float(functional.cosine_similarity(p1, z2).mean()),
            alignment_random=mean_cosine_of_others(p1, z2),
            view_recall=float(recall),
            candidates=len(f1),
            scenes=self.scenes,
            neighbour_stability=self._stability(plain),
            knn=None if knn is None else float(knn.mean() * 100),
            queries=0 if knn is None else len(knn),
            dim=z1.shape[1],
        )

    def _pairs(self, network: SimSiam) -> tuple[Tensor, ...]:
        """Features f, projections z of both views and predictions p of the first, all on the CPU."""
        parts: list[tuple[Tensor, ...]] = []
        for batch in self.pairs():
            f1, f2 = network.backbone(batch[0]), network.backbone(batch[1])
            z1, z2 = network.projector(f1), network.projector(f2)
            parts.append(tuple(t.float().cpu() for t in (f1, f2, z1, z2, network.predictor(z1))))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The two views of each held-out image (of 1,000 at most), always the same."""
        for batch in pair_batches(
            self.retrieved,
            self.views,
            seed=self.seed,
            batch_size=BATCH,
            device=self.device,
            workers=self.workers,
        ):
            stopping.check()
            yield batch.x1, batch.x2

    def _knn(self, backbone: nn.Module) -> np.ndarray | None:
        if self.labelled is None:
            return None
        references = self.features(backbone, self.labelled.references)
        same = self.labelled.own_row == "skip"
        queries = references if same else self.features(backbone, self.labelled.queries)
        return knn_hits(queries, references, self.labelled)

    def features(self, backbone: nn.Module, source: Source) -> Features:
        """Pooled features of every readable image of a source, in order."""
        batches = image_batches(source, self.preprocess, batch_size=BATCH, device=self.device, workers=self.workers)
        return extract(backbone, batches)

    def _stability(self, features: Features) -> float | None:
        """Share of each image's ten nearest neighbours that were among its ten at the last check."""
        k = min(STABLE_NEIGHBOURS, len(features.indices) - 1)
        if k < 1:
            return None
        now = nearest(features.pooled, features.pooled, k=k, device=self.device, own_row="skip").index
        before, self.neighbours = self.neighbours, now
        if before is None or before.shape != now.shape:
            return None
        return float((now[:, :, None] == before[:, None, :]).any(2).float().mean())


def _diverged(*, epoch: int, step: int, candidates: int) -> Check:
    """The check of a network whose outputs are not numbers."""
    nan = float("nan")
    return Check(
        epoch=epoch,
        step=step,
        spread=nan,
        rank_z=nan,
        rank_features=nan,
        alignment_pairs=nan,
        alignment_random=nan,
        view_recall=nan,
        candidates=candidates,
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
    batches = image_batches(source, small, batch_size=BATCH, device=torch.device("cpu"), workers=workers)
    rows = torch.cat([batch.images.flatten(1) for batch in batches])  # N x 768
    close = torch.cdist(rows, rows) < SAME_SCENE * rows.shape[1] ** 0.5
    waiting, scenes = torch.ones(len(rows), dtype=torch.bool), 0
    while bool(waiting.any()):
        waiting &= ~close[int(waiting.nonzero()[0])]
        scenes += 1
    return scenes


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside, the former mode afterwards."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)
