"""Whether training works, measured on held-out images: spread, spectrum, alignment, neighbours.

Every measure is of the network in evaluation mode, in float32, on images that it is not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

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
from simsiam.features.neighbours import nearest
from simsiam.model import SimSiam
from simsiam.pretraining.measures import (
    Labelled,
    distinct_scenes,
    effective_rank,
    knn_hits,
    mean_cosine_of_others,
    view_hits,
)
from simsiam.pretraining.verdict import Check, Verdict, judge
from simsiam.wording import counted

STABLE_NEIGHBOURS = 10
BATCH = 256
RETRIEVAL = 1000  # images among which view retrieval searches, at most


class Monitor:
    """Measures a network repeatedly on the same held-out images, and judges the outcome.

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
        self.preprocess = preprocess_of(views)
        self.retrieved = self.held_out.subset(np.arange(min(RETRIEVAL, len(self.held_out))))
        self.checks: list[Check] = []
        self.neighbours: Tensor | None = None  # of the last check, N x 10; kept over a resume
        self.start_hits: dict[str, Tensor] = {}  # of the first check, by measure; kept too, for paired tests
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
        found = view_hits(f1, f2)
        return Check(
            epoch=epoch,
            step=step,
            spread=float(simsiam_model.spread(z1)),
            rank_z=effective_rank(functional.normalize(z1, dim=1)),
            rank_features=effective_rank(f1),
            alignment_pairs=float(functional.cosine_similarity(p1, z2).mean()),
            alignment_random=mean_cosine_of_others(p1, z2),
            view_recall=float(found.mean() * 100),
            view_recall_moved=self._moved("view_recall", found),
            candidates=len(f1),
            scenes=self.scenes,
            neighbour_stability=self._stability(plain),
            knn=None if knn is None else float(knn.mean() * 100),
            knn_moved=None if knn is None else self._moved("knn", knn),
            queries=0 if knn is None else len(knn),
            chance=0.0 if self.labelled is None else self.labelled.chance,
            dim=z1.shape[1],
        )

    def _moved(self, measure: str, hits: np.ndarray) -> tuple[int, int] | None:
        """How many images are found now and were not at the start, and the reverse; None where that is not known."""
        now = torch.from_numpy(hits.astype(np.uint8))
        if not self.checks:
            self.start_hits[measure] = now
        before = self.start_hits.get(measure)
        if before is None or before.shape != now.shape:
            return None
        return int((now > before).sum()), int((now < before).sum())

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


def preprocess_of(views: Views) -> Preprocess:
    """How whole images are brought to the size of the views."""
    return Preprocess(kind="center", resize=short_edge(views.size), size=views.size, mean=views.mean, std=views.std)


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
