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
from simsiam.evaluation.intervals import difference_interval
from simsiam.wording import counted

Status = Literal[
    "healthy",
    "partial collapse",
    "collapsed",
    "worse than its start",
    "not learning",
    "too early to say",
    "too few images to tell",
]

FEW_IMAGES = 10  # held out and distinct; fewer have no rank to speak of, and shares move in steps of a tenth or more
ONE_POINT, ONE_POINT_OF_MANY = 0.001, 0.05  # the spread of z that is one point however few the images; or the scenes
COLLAPSED_SPREAD = 0.15  # of z on the sphere; full is 1, one point 0, an untrained network here 0.27 to 0.5
LOW_SPREAD = 0.5
COLLAPSED_RANK, COLLAPSED_RANK_SHARE = 2.5, 0.12  # effective directions of z; also of the most that N images can have
LOW_RANK, LOW_RANK_SHARE = 4.5, 0.25
RANK_LOSS = 0.5  # of the effective rank of z at the start
ONE_DIRECTION = 1.5  # effective rank of the features
SAME_IMAGES = 0.85  # mean cosine between predictions and projections of different images
SOLVED = 0.9  # mean cosine for two views of one image: the training has nothing left to learn
NO_CLOSER = 0.02  # cosine; by so much two views of one image must agree more than views of different ones
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
    alignment_random: float  # the same for all pairs of different images
    view_recall: float  # percent; how often a view's nearest neighbour is the other view of its image
    candidates: int  # images among which view_recall searches
    scenes: int = 0  # how many of the held-out images are no near-duplicates of each other; 0: not counted
    neighbour_stability: float | None = None  # share of the 10 nearest neighbours kept since the last check
    knn: float | None = None  # percent, where labels exist
    queries: int = 0  # images that kNN classifies
    dim: int = 0  # channels of z; 0: not written down (earlier versions)


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


def judge(
    checks: Sequence[Check],
    recipe: Pretraining | None = None,
    *,
    diverged: str | None = None,
    images: int = 0,
    start: str = "the untrained network",
) -> Verdict:
    """Judge a run by its checks, the first of which is of the network at its start.

    Args:
        checks: in order of time; at least one.
        recipe: for the causes and cures; None: those that fit any.
        diverged: what `fit` said when the loss was not finite.
        images: in the training set, for the causes and cures.
        start: what the run started from, in words.
    """
    first, last = checks[0], checks[-1]
    numbers = _numbers(last)

    def verdict(status: Status, summary: str, evidence: list[str], causes: list[Cause]) -> Verdict:
        return Verdict(status=status, summary=summary, numbers=numbers, evidence=evidence, causes=causes)

    if diverged is not None or not all(math.isfinite(value) for value in numbers.values()):
        why = diverged or "a measured number is not finite"
        return verdict("collapsed", f"The training diverged: {why}.", [why], _causes(recipe, images))
    if last is first or 0 < last.step < EARLY_STEPS:
        return verdict("too early to say", f"Only {counted(last.step, 'step')} so far.", [], [])
    if (distinct := last.scenes or last.candidates) < FEW_IMAGES:
        if last.spread < (ONE_POINT if last.candidates < FEW_IMAGES else ONE_POINT_OF_MANY):
            why = f"the spread of z is {last.spread:.4f}: one point"
            return verdict("collapsed", SUMMARIES["collapsed"], [why], _causes(recipe, images))
        few = f"The {last.candidates} held-out images show {counted(distinct, 'scene')}, too few to tell a collapse."
        return verdict("too few images to tell", few, [], [])
    collapsed, partial = _evidence(first, last, start)
    worse = _losses(checks, start)
    gap = last.alignment_pairs - last.alignment_random
    if collapsed:
        return verdict("collapsed", SUMMARIES["collapsed"], collapsed + partial + worse, _causes(recipe, images))
    if partial:
        return verdict("partial collapse", SUMMARIES["partial collapse"], partial + worse, _causes(recipe, images))
    if worse:
        return verdict("worse than its start", SUMMARIES["worse than its start"], worse, _causes(recipe, images))
    if gap < NO_CLOSER:
        why = (
            f"two views of one image agree at cosine {last.alignment_pairs:.2f}, views of different images at "
            f"{last.alignment_random:.2f}"
        )
        return verdict("not learning", SUMMARIES["not learning"], [why], _causes(recipe, images))
    evidence = [
        f"the projections fill {last.spread:.0%} of the spread of a full sphere",
        f"they use {last.rank_z:.1f} effective directions ({start}: {first.rank_z:.1f})",
        f"two views of one image agree at cosine {last.alignment_pairs:.2f}, "
        f"views of different images at {last.alignment_random:.2f}",
    ]
    return verdict("healthy", "No sign of collapse.", evidence, [])


SUMMARIES: dict[Status, str] = {
    "collapsed": "The network gives nearly the same output for every image: it has collapsed.",
    "partial collapse": "The network tells images apart, but only along a few directions: it has collapsed in part.",
    "worse than its start": "No collapse, but training has made the network worse than it was at its start.",
    "not learning": "Two views of one image are no closer to each other than views of different images.",
}


def _numbers(check: Check) -> dict[str, float]:
    numbers = {
        "spread": check.spread,
        "effective rank of z": check.rank_z,
        "effective rank of the features": check.rank_features,
        "cosine of p and z, same image": check.alignment_pairs,
        "cosine of p and z, different images": check.alignment_random,
        "view retrieval, %": check.view_recall,
    }
    return numbers if check.knn is None else {**numbers, "kNN, %": check.knn}


def _evidence(first: Check, last: Check, start: str) -> tuple[list[str], list[str]]:
    """Signs of a collapse, and signs of a partial one."""
    collapsed, partial = [], []
    most = min((last.scenes or last.candidates) - 1, last.dim or last.candidates)  # no rank can be higher
    if last.spread < COLLAPSED_SPREAD:
        collapsed.append(f"the spread of z is {last.spread:.3f} (1 is healthy, below {COLLAPSED_SPREAD} is one point)")
    elif last.spread < LOW_SPREAD:
        partial.append(f"the spread of z is {last.spread:.2f} (a healthy run has {LOW_SPREAD} or more)")
    if last.rank_z < min(COLLAPSED_RANK, COLLAPSED_RANK_SHARE * most):
        collapsed.append(f"z varies along {last.rank_z:.2f} effective directions, of {most} possible")
    elif last.rank_z < min(LOW_RANK, LOW_RANK_SHARE * most):
        partial.append(f"z varies along {last.rank_z:.1f} effective directions only, of {most} possible")
    elif last.rank_z < RANK_LOSS * first.rank_z:
        partial.append(f"z varies along {last.rank_z:.1f} effective directions ({start}: {first.rank_z:.1f})")
    if last.rank_features < ONE_DIRECTION:
        partial.append(f"the backbone's features vary along {last.rank_features:.2f} effective directions")
    if last.alignment_random > SAME_IMAGES:
        collapsed.append(f"views of different images have cosine {last.alignment_random:.3f}: all look the same")
    if last.alignment_pairs > SOLVED and partial and last.view_recall <= first.view_recall:
        collapsed.append(
            f"two views of one image agree at cosine {last.alignment_pairs:.2f}, yet find each other no more often "
            f"than at the start ({last.view_recall:.1f} % of {last.candidates}; {start}: {first.view_recall:.1f} %)"
        )
    return collapsed, partial


def _losses(checks: Sequence[Check], start: str) -> list[str]:
    """What the network does clearly worse than at its start, and where the best weights are.

    A fall of kNN counts in any case, for labels are what a backbone is used for; one of view retrieval unless kNN rose.
    """
    first, last = checks[0], checks[-1]
    retrieval = _change(first.view_recall, last.view_recall, last.candidates)
    if first.knn is not None and last.knn is not None and last.queries:
        labelled = _change(first.knn, last.knn, last.queries)
        if labelled == "fell":
            return [_fall("kNN accuracy", "knn", checks, start)]
        if labelled == "rose":
            return []
    return [_fall("view retrieval", "view_recall", checks, start)] if retrieval == "fell" else []


def _change(before: float, now: float, images: int) -> Literal["fell", "rose", "unclear"]:
    """Whether a percentage of images has changed by more than chance."""
    interval = difference_interval(round(now * images / 100), round(before * images / 100), images)
    return "fell" if interval.high < 0 else "rose" if interval.low > 0 else "unclear"


def _fall(name: str, score: str, checks: Sequence[Check], start: str) -> str:
    first, last = (float(getattr(check, score)) for check in (checks[0], checks[-1]))
    best = max(checks[1:], key=lambda check: float(getattr(check, score)))
    kept = f"; the best weights since then are of epoch {best.epoch}: {getattr(best, score):.1f} %"
    return f"{name} is {last:.1f} %, down from {first:.1f} % of {start}{kept if best is not checks[-1] else ''}"


def _causes(recipe: Pretraining | None, images: int) -> list[Cause]:
    """Likely causes, the likeliest first, from what the recipe says."""
    if recipe is None:
        return [
            Cause(cause="the learning rate is too high", cure="a third of it, with a warm-up"),
            Cause(cause="batches of under 32 images are too few for BatchNorm", cure="batches of 64 or more"),
            *ALWAYS,
        ]
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
    if recipe.model.predictor == "fixed":
        causes.append(
            Cause(cause="the predictor is never trained (paper, Table 1: 1.5 % accuracy)", cure="--model.predictor mlp")
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
                cause=f"batch {recipe.batch_size}: SGD fails above 2,048 (paper, Table 2)",
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
    causes.append(
        Cause(
            cause="the rate is too high for this data set and network",
            cure=f"--base-lr {recipe.base_lr / 3:.3g}, and --warmup-epochs {max(1, recipe.epochs // 10)}",
        )
    )
    return [*causes, *ALWAYS]


ALWAYS = (
    Cause(
        cause="the views differ too little, so that constant features solve the task",
        cure="look at the views in the report; --views.min-scale 0.2 or less, colour jitter on",
    ),
    Cause(
        cause="many images are near-duplicates of each other",
        cure="look at the neighbours in the report and thin them out",
    ),
)


def from_json(raw: dict[str, Any]) -> Verdict:
    """The verdict that a result holds."""
    return Verdict(**{**raw, "causes": [Cause(**cause) for cause in raw["causes"]]})


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain JSON values."""
    return {
        "status": verdict.status,
        "summary": verdict.summary,
        "numbers": {key: round(value, 4) for key, value in verdict.numbers.items()},
        "evidence": list(verdict.evidence),
        "causes": [{"cause": cause.cause, "cure": cause.cure} for cause in verdict.causes],
    }
