"""Is the training healthy, partly collapsed or collapsed, on which numbers, why, and what to do (no torch).

Thresholds were set on small runs that were made to collapse (no stop-gradient, no predictor, a rate far too high)
beside healthy ones; `tests/pretraining/test_verdict.py` trains them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simsiam.config import Pretraining
from simsiam.wording import counted

Status = Literal["healthy", "partial collapse", "collapsed", "too early to say"]

COLLAPSED_SPREAD = 0.15  # of z on the sphere; full is 1, one point 0, an untrained network here 0.27 to 0.5
LOW_SPREAD = 0.5
COLLAPSED_RANK = 2.5  # effective directions of z
LOW_RANK = 4.5
RANK_LOSS = 0.5  # of the untrained network's effective rank of z
SAME_IMAGES = 0.85  # mean cosine between predictions and projections of different images
SOLVED = 0.9  # mean cosine for two views of one image: the training has nothing left to learn
EARLY_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the monitor measured on the held-out sample at one moment."""

    epoch: int
    step: int  # global
    spread: float  # of z: std x sqrt(d); 1 fills the sphere, 0 is one point
    rank_z: float  # effective rank of the centred projections
    rank_features: float  # of the centred backbone features
    alignment_pairs: float  # mean cosine of p and z for two views of one image
    alignment_random: float  # the same for views of two different images
    view_recall: float  # percent; how often a view's nearest neighbour is the other view of its image
    candidates: int  # images among which view_recall searches
    neighbour_stability: float | None = None  # share of the 10 nearest neighbours kept since the last check
    knn: float | None = None  # percent, where labels exist


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A likely reason and its cure."""

    cause: str
    cure: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The plain answer and what it rests on."""

    status: Status
    summary: str
    numbers: dict[str, float] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)


def judge(checks: Sequence[Check], recipe: Pretraining, *, diverged: str | None = None, images: int = 0) -> Verdict:
    """Judge a run by its checks, the first of which is the untrained network's.

    Args:
        checks: in order of time; at least one.
        recipe: for the causes and cures.
        diverged: what `fit` said when the loss was not finite.
        images: in the training set, for the causes and cures.
    """
    start, last = checks[0], checks[-1]
    numbers = {
        "spread": last.spread,
        "effective rank of z": last.rank_z,
        "effective rank of the features": last.rank_features,
        "cosine of p and z, same image": last.alignment_pairs,
        "cosine of p and z, different images": last.alignment_random,
        "view retrieval, %": last.view_recall,
    }
    if last.knn is not None:
        numbers["kNN, %"] = last.knn
    if diverged is not None or not all(math.isfinite(value) for value in numbers.values()):
        why = diverged or "a measured number is not finite"
        return Verdict(
            status="collapsed",
            summary=f"The training diverged: {why}.",
            numbers=numbers,
            evidence=[why],
            causes=_causes(recipe, images),
        )
    if last.step < EARLY_STEPS:
        return Verdict(status="too early to say", summary=f"Only {counted(last.step, 'step')} so far.", numbers=numbers)
    collapsed, partial = _evidence(start, last)
    if collapsed:
        collapsed += partial
        summary = "The network gives nearly the same output for every image: it has collapsed."
        return Verdict(
            status="collapsed", summary=summary, numbers=numbers, evidence=collapsed, causes=_causes(recipe, images)
        )
    if partial:
        summary = "The network tells images apart, but only along a few directions: it has collapsed in part."
        return Verdict(
            status="partial collapse",
            summary=summary,
            numbers=numbers,
            evidence=partial,
            causes=_causes(recipe, images),
        )
    evidence = [
        f"the projections fill {last.spread:.0%} of the spread of a full sphere",
        f"they use {last.rank_z:.1f} effective directions (the untrained network: {start.rank_z:.1f})",
        f"two views of one image agree at cosine {last.alignment_pairs:.2f}, "
        f"views of different images at {last.alignment_random:.2f}",
    ]
    return Verdict(status="healthy", summary="No sign of collapse.", numbers=numbers, evidence=evidence)


def _evidence(start: Check, last: Check) -> tuple[list[str], list[str]]:
    """Signs of a collapse, and signs of a partial one."""
    collapsed, partial = [], []
    if last.spread < COLLAPSED_SPREAD:
        collapsed.append(f"the spread of z is {last.spread:.3f} (1 is healthy, below {COLLAPSED_SPREAD} is one point)")
    elif last.spread < LOW_SPREAD:
        partial.append(f"the spread of z is {last.spread:.2f} (a healthy run has {LOW_SPREAD} or more)")
    if last.rank_z < COLLAPSED_RANK:
        collapsed.append(f"z varies along {last.rank_z:.2f} effective directions")
    elif last.rank_z < LOW_RANK:
        partial.append(f"z varies along {last.rank_z:.1f} effective directions only")
    elif last.rank_z < RANK_LOSS * start.rank_z:
        partial.append(
            f"z varies along {last.rank_z:.1f} effective directions, down from {start.rank_z:.1f} at the start"
        )
    if last.alignment_random > SAME_IMAGES:
        collapsed.append(f"views of different images have cosine {last.alignment_random:.3f}: all look the same")
    if last.alignment_pairs > SOLVED and partial and last.view_recall <= start.view_recall:
        collapsed.append(
            f"two views of one image agree at cosine {last.alignment_pairs:.2f}, yet find each other no more "
            f"often than in the untrained network ({last.view_recall:.1f} % of {last.candidates}, before "
            f"{start.view_recall:.1f} %)"
        )
    return collapsed, partial


def _causes(recipe: Pretraining, images: int) -> list[Cause]:
    """Likely causes, the likeliest first, from what the recipe says."""
    causes = []
    if recipe.model.stop_gradient == "off":
        causes.append(
            Cause(
                cause="the stop-gradient is off; without it the loss has a trivial minimum (paper, Figure 2)",
                cure="--model.stop-gradient on",
            )
        )
    if recipe.model.predictor == "none":
        causes.append(
            Cause(cause="there is no predictor (paper, Table 1: 0.1 % accuracy)", cure="--model.predictor mlp")
        )
    if recipe.base_lr > 0.3:
        causes.append(
            Cause(
                cause=f"the base rate {recipe.base_lr:g} (lr {recipe.lr:g}) is far above the published 0.03 to 0.05",
                cure=f"--base-lr {max(0.03, recipe.base_lr / 10):g}",
            )
        )
    if recipe.batch_size > 2048:
        causes.append(
            Cause(
                cause=f"batch {recipe.batch_size}: SGD fails above 2,048 (paper, Table 2, from memory)",
                cure="--batch-size 512",
            )
        )
    if recipe.batch_size < 32:
        causes.append(
            Cause(
                cause=f"batch {recipe.batch_size} gives BatchNorm too few images for steady statistics",
                cure="--batch-size 64",
            )
        )
    if recipe.predictor_lr == "cosine":
        causes.append(
            Cause(
                cause="the predictor's rate decays, so it lags behind the projector at the end",
                cure="--predictor-lr fixed",
            )
        )
    if images and images < 2000:
        causes.append(
            Cause(
                cause=f"{counted(images, 'image is', 'images are')} few for a network with "
                f"{recipe.model.projector_dim} output channels",
                cure="more images, or --model.backbone resnet18 --model.projector-dim 512 --model.predictor-dim 128",
            )
        )
    causes += [
        Cause(
            cause="the rate is too high for this data set and network",
            cure=f"--base-lr {recipe.base_lr / 3:.3g}, and --warmup-epochs {max(1, recipe.epochs // 10)}",
        ),
        Cause(
            cause="the views differ too little, so that constant features solve the task",
            cure="look at the views in the report; --views.min-scale 0.2 or less, colour jitter on",
        ),
        Cause(
            cause="many images are near-duplicates of each other",
            cure="look at the neighbours in the report and thin them out",
        ),
    ]
    return causes


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain JSON values."""
    return {
        "status": verdict.status,
        "summary": verdict.summary,
        "numbers": {key: round(value, 4) for key, value in verdict.numbers.items()},
        "evidence": list(verdict.evidence),
        "causes": [{"cause": cause.cause, "cure": cause.cure} for cause in verdict.causes],
    }
