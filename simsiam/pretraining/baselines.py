"""Was it worth it? The trained backbone beside raw pixels, the same network untrained, and weights of the user's.

Two measures: kNN where labels exist, and view retrieval, which needs none. Every difference comes with a bootstrap
interval over the images, paired, because both sides see the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.pretraining.monitor import Monitor, evaluating, knn_hits, view_hits

Measure = Literal["knn", "view_recall"]
RESAMPLES = 2000
PIXELS_SIDE = 32  # raw pixels are compared at this size at most


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network under a name that the report prints; `trained` is the one in question."""

    name: str
    network: nn.Module  # B x 3 x H x W -> B x C


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentage and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class RawPixels(nn.Module):
    """The image itself as its feature vector, shrunk to at most 32 x 32."""

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W to B x 3hw."""
        side = min(PIXELS_SIDE, images.shape[-1])
        if images.shape[-1] != side:
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images.flatten(1)


def appraise(trained: nn.Module, others: Sequence[Contender], monitor: Monitor, *, seed: int) -> dict[str, Any]:
    """Both measures for all contenders: the `baselines`, `comparisons` and `settings` of the result's detail."""
    contenders = [
        Contender(name="trained", network=trained),
        *others,
        Contender(name="raw pixels", network=RawPixels()),
    ]
    hits: dict[Measure, dict[str, np.ndarray]] = {"view_recall": {}, "knn": {}}
    for contender in contenders:
        with evaluating(contender.network):
            hits["view_recall"][contender.name] = _view_hits(contender.network, monitor)
            if monitor.labelled is not None:
                hits["knn"][contender.name] = _knn_hits(contender.network, monitor)
    measured = {measure: by_name for measure, by_name in hits.items() if by_name}
    settings = {
        "view_recall": f"one augmented view of each of {len(monitor.retrieved):,} held-out images against the other "
        "views: how often the nearest is of the same image"
    }
    if monitor.labelled is not None:
        settings["knn"] = monitor.labelled.describe()
    return {
        "baselines": {
            measure: [{"name": name, **vars(bootstrap(h, seed=seed))} for name, h in by_name.items()]
            for measure, by_name in measured.items()
        },
        "comparisons": [
            compare(by_name["trained"], h, measure=measure, against=name, seed=seed)
            for measure, by_name in measured.items()
            for name, h in by_name.items()
            if name != "trained"
        ],
        "settings": settings,
    }


def _view_hits(network: nn.Module, monitor: Monitor) -> np.ndarray:
    first, second = [], []
    for x1, x2 in monitor.pairs():
        first.append(network(x1).float().cpu())
        second.append(network(x2).float().cpu())
    return view_hits(torch.cat(first), torch.cat(second))


def _knn_hits(network: nn.Module, monitor: Monitor) -> np.ndarray:
    labelled = monitor.labelled
    assert labelled is not None
    references = monitor.features(network, labelled.references)
    if labelled.own_row == "skip":
        return knn_hits(references, references, labelled)
    queries = monitor.features(network, labelled.queries)
    return knn_hits(queries, references, labelled)


def bootstrap(hits: np.ndarray, *, seed: int) -> Interval:
    """The mean of 0/1 hits in percent, with the percentile interval of means of resampled images."""
    means = 100 * _resampled_means(hits, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value=round(100 * float(hits.mean()), 2), low=round(float(low), 2), high=round(float(high), 2))


def compare(ours: np.ndarray, theirs: np.ndarray, *, measure: Measure, against: str, seed: int) -> dict[str, Any]:
    """The difference in percentage points and whether its interval leaves zero out."""
    interval = bootstrap(ours - theirs, seed=seed)
    outcome = "better" if interval.low > 0 else "worse" if interval.high < 0 else "no clear difference"
    return {
        "measure": measure,
        "against": against,
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        "outcome": outcome,
    }


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(values), (RESAMPLES, len(values)), dtype=np.int32)  # resamples x images
    means: np.ndarray = values[drawn].mean(1)
    return means
