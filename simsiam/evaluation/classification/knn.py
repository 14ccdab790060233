"""The weighted k-nearest-neighbour classifier, as a function of features and as a protocol.

Source: Wu et al. 2018 (instance discrimination), section 3.4: votes weighted by exp(cosine / temperature).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from simsiam.config import Machine
from simsiam.data.preprocess import Preprocess
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.features.neighbours import QUERY_ROWS, Neighbours, nearest, vote
from simsiam.limits import Count, Positive
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from simsiam.evaluation.classification.accuracy import AccuracyMeter
    from simsiam.features.neighbours import Rows

__all__ = ["Knn", "KnnScore", "Neighbours", "knn_scores", "nearest", "vote"]


@dataclass(frozen=True, kw_only=True)
class Knn(Protocol[Splits]):
    """kNN on the pooled features: the training images are the references, the test images the queries."""

    protocol: ClassVar[str] = "knn"
    everyday: ClassVar[tuple[str, ...]] = ("k", "temperature")
    k: tuple[Count, ...]  # Number of neighbours that vote; one figure for each value.
    quoted_k: Count  # The k whose figure is quoted alone; one of --k.
    temperature: Positive  # The weight of a neighbour's vote is exp(cosine / temperature).
    resize: Count  # Pixels that the short edge is resized to, before the centre crop.
    size: Count  # Pixels of the crop.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the backbone's forward pass.
    storage: Literal["fp32", "fp16"]  # Number format of the features in their files.
    batch_size: Count  # Images in a forward pass; it does not change the figure beyond rounding.

    @property
    def main_metric(self) -> str:
        """Top-1 at the quoted k."""
        return f"top1_k{self.quoted_k}"

    def fitted(self, recipe: Self, subject: PretrainedBackbone, data: Splits) -> Self:
        """Without the k that the training set is too small for; the largest is quoted where the usual one is none."""
        k = self.k
        if k == recipe.k:
            k = tuple(count for count in k if count <= len(data.train)) or (min(len(data.train), min(k)),)
        if self.quoted_k in k:
            return replace(self, k=k)
        if self.quoted_k != recipe.quoted_k:
            raise UserError(f"--quoted-k {self.quoted_k}: must be one of --k {' '.join(map(str, k))}.")
        return replace(self, k=k, quoted_k=max(k))

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1_kK and (with more than five classes) top5_kK for every K, percent."""
        from simsiam.data.classification.loader import class_count
        from simsiam.engine.distributed import pick_device
        from simsiam.features.store import Extraction, features_of

        classes = class_count(data.train, data.test)
        preprocess = Preprocess(kind="center", resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)
        extraction = Extraction(
            preprocess=preprocess,
            layers="pooled",
            pooling="specified",
            precision=self.precision,
            storage=self.storage,
            batch_size=self.batch_size,
        )
        train = features_of(subject, data.train, extraction, machine=machine)
        test = features_of(subject, data.test, extraction, machine=machine)
        scores = knn_scores(
            test.pooled,
            test.labels(data.test),
            train.pooled,
            train.labels(data.train),
            k=self.k,
            temperature=self.temperature,
            classes=classes,
            device=pick_device(machine.device),
        )
        metrics = {f"top1_k{score.k}": score.top1 for score in scores}
        metrics |= {f"top5_k{score.k}": score.top5 for score in scores if score.top5 is not None}
        return Measured(
            metrics=metrics,
            detail=scores[self.k.index(self.quoted_k)].tally.detail(data.test.classes or data.train.classes),
            notes=[*train.skipped(data.train), *test.skipped(data.test)],
        )


@dataclass(frozen=True, kw_only=True)
class KnnScore:
    """What the classifier scored at one k."""

    k: int
    top1: float  # percent
    top5: float | None  # percent; None when there are no more than five classes
    predictions: np.ndarray  # Q, int64
    tally: AccuracyMeter  # per class, and the confusion matrix


def knn_scores(
    queries: Rows,
    query_labels: np.ndarray,
    references: Rows,
    reference_labels: np.ndarray,
    *,
    k: Sequence[int],
    temperature: float,
    classes: int,
    device: str | torch.device,
) -> list[KnnScore]:
    """Classify the queries by their neighbours, at every k with one search.

    Args:
        queries: Q x C features.
        query_labels: Q, in 0 ... classes - 1.
        references: N x C features.
        reference_labels: N.
        k: the neighbour counts.
        temperature: of the vote.
        classes: how many.
        device: where the products are computed.

    Raises UserError as `nearest` does, and if labels lie outside the classes.
    """
    import numpy as np
    import torch

    for what, found, rows in (("query", query_labels, queries), ("reference", reference_labels, references)):
        if len(found) != len(rows):
            raise UserError(f"{counted(len(found), f'{what} label')} for {counted(len(rows), 'feature')}.")
        if len(found) == 0 or found.min() < 0 or found.max() >= classes:
            raise UserError(f"{what} labels must lie in 0 ... {classes - 1} and there must be at least one.")
    neighbours = nearest(queries, references, k=max(k), device=device)
    labels = torch.from_numpy(np.asarray(reference_labels, dtype=np.int64))
    return [_score(neighbours, labels, query_labels, k=count, temperature=temperature, classes=classes) for count in k]


def _score(
    neighbours: Neighbours, labels: Tensor, truth: np.ndarray, *, k: int, temperature: float, classes: int
) -> KnnScore:
    import numpy as np
    import torch

    from simsiam.evaluation.classification.accuracy import AccuracyMeter

    wanted = torch.from_numpy(np.asarray(truth, dtype=np.int64))  # Q
    tally = AccuracyMeter(classes, torch.device("cpu"))
    in_five, guesses = 0, []
    for rows in _blocks(len(truth), QUERY_ROWS):
        part = Neighbours(similarity=neighbours.similarity[rows], index=neighbours.index[rows])
        scores = vote(part, labels, k=k, temperature=temperature, classes=classes)
        tally.add(scores, wanted[rows])
        values, ranked = scores.topk(min(5, classes), dim=1)
        in_five += int(((ranked == wanted[rows, None]) & (values > 0)).sum())  # a class without a vote is no guess
        guesses.append(ranked[:, 0])
    return KnnScore(
        k=k,
        top1=tally.top1,
        top5=100 * in_five / len(truth) if classes > 5 else None,
        predictions=torch.cat(guesses).numpy(),
        tally=tally,
    )


def _blocks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))
