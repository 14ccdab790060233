"""Was it worth it? The trained backbone beside raw pixels, the same network untrained, and weights of the user's.

Two measures: kNN where labels exist, and view retrieval, which needs none. Figures come with Wilson's interval, and
comparisons with a paired test, because both sides see the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.evaluation.intervals import paired_difference, wilson_interval
from simsiam.pretraining.measures import knn_hits, view_hits
from simsiam.pretraining.monitor import Monitor, evaluating

Measure = Literal["knn", "view_recall"]
PIXELS_SIDE = 32  # raw pixels are compared at this size at most


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network under a name that the report prints; `trained` is the one in question."""

    name: str
    network: nn.Module  # B x 3 x H x W -> B x C


class RawPixels(nn.Module):
    """The image itself as its feature vector, shrunk to at most 32 x 32."""

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W to B x 3hw."""
        side = min(PIXELS_SIDE, images.shape[-1])
        if images.shape[-1] != side:
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images.flatten(1)


def appraise(trained: nn.Module, others: Sequence[Contender], monitor: Monitor) -> dict[str, Any]:
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
            measure: [{"name": name, **percentage(h)} for name, h in by_name.items()]
            for measure, by_name in measured.items()
        },
        "comparisons": [
            compare(by_name["trained"], h, measure=measure, against=name)
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


def percentage(hits: np.ndarray) -> dict[str, float]:
    """The mean of 0/1 hits in percent with its 95 % interval: value, low, high."""
    interval = wilson_interval(int(hits.sum()), len(hits))
    return {
        "value": round(100 * float(hits.mean()), 2),
        "low": round(100 * interval.low, 2),
        "high": round(100 * interval.high, 2),
    }


def compare(ours: np.ndarray, theirs: np.ndarray, *, measure: Measure, against: str) -> dict[str, Any]:
    """The difference in percentage points, and whether it is more than chance."""
    found = paired_difference(ours, theirs)
    return {
        "measure": measure,
        "against": against,
        "difference": round(100 * found.value, 2),
        "low": round(100 * found.low, 2),
        "high": round(100 * found.high, 2),
        "p": found.p,
        "outcome": found.outcome,
    }
