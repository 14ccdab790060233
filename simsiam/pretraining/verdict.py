"""Is the training healthy, partly collapsed or collapsed, on which numbers, why, and what to do (no torch).

Thresholds were set on one half of a corpus of short runs, sound ones and others made to fail in many ways, and tried on
the other half: `benchmarks/verdict_corpus.py`, with the rates in `benchmarks/verdict_2-core-epyc_2026-11-26.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simsiam.config import Pretraining
from simsiam.evaluation.intervals import above_chance, difference_interval, sign_test
from simsiam.pretraining.causes import Cause, likely
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
RANK_LOSS, RANK_LOSS_AND_NO_GAIN = 0.35, 0.5  # of z's rank at the start; the milder where retrieval has not risen
ONE_DIRECTION = 1.5  # effective rank of the features
SAME_IMAGES = 0.85  # mean cosine between predictions and projections of different images
SOLVED = 0.9  # mean cosine for two views of one image: the training has nothing left to learn
NO_CLOSER = 0.02  # cosine; by so much two views of one image must agree more than views of different ones
EARLY_STEPS = 20
UNLIKELY = 0.01  # the p of a paired test that counts as a fall: a run is tested many times
TOO_EASY = 95.0  # view retrieval in percent at the start, from which the views have nothing left to teach


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
    # Images found now and not at the start, and the reverse, of the two measures above; None: not written down.
    view_recall_moved: Sequence[int] | None = None
    knn_moved: Sequence[int] | None = None
    chance: float = 0.0  # kNN of always naming the commonest class, percent; 0: not written down
    dim: int = 0  # channels of z; 0: not written down (earlier versions)

    @property
    def in_words(self) -> str:
        """What a run prints of it."""
        knn = "" if self.knn is None else f"kNN {self.knn:.1f} %, "
        return f"{knn}view retrieval {self.view_recall:.1f} %, spread {self.spread:.2f}, rank {self.rank_z:.1f}"


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

    def verdict(status: Status, evidence: list[str], *, summary: str = "") -> Verdict:
        causes = likely(recipe, images, _measured(first, last)) if status in SUMMARIES else []
        summary = summary or SUMMARIES[status]
        return Verdict(status=status, summary=summary, numbers=numbers, evidence=evidence, causes=causes)

    if diverged is not None or not all(math.isfinite(value) for value in numbers.values()):
        why = diverged or "a measured number is not finite"
        return verdict("collapsed", [why], summary=f"The training diverged: {why}.")
    if last is first or 0 < last.step < EARLY_STEPS:
        return verdict("too early to say", [], summary=f"Only {counted(last.step, 'step')} so far.")
    no_closer = _no_closer(first, last, recipe)
    if (distinct := last.scenes or last.candidates) < FEW_IMAGES:
        if last.spread < (ONE_POINT if last.candidates < FEW_IMAGES else ONE_POINT_OF_MANY):
            return verdict("collapsed", [f"the spread of z is {last.spread:.4f}: one point"])
        if no_closer and distinct == 1 and last.candidates >= FEW_IMAGES:
            return verdict("not learning", no_closer)
        few = f"The {last.candidates} held-out images show {counted(distinct, 'scene')}, too few to tell a collapse."
        return verdict("too few images to tell", [], summary=few)
    collapsed, partial = _evidence(first, last, start)
    to_chance, worse = _losses(checks, start)
    if (collapsed or to_chance) and _sudden(checks, start):
        partial = [*collapsed, *to_chance, "no check before showed it; the next one decides", *partial]
    elif collapsed or to_chance:
        return verdict("collapsed", collapsed + to_chance + partial + worse)
    if partial:
        return verdict("partial collapse", partial + worse)
    if worse:
        return verdict("worse than its start", worse)
    if no_closer:
        return verdict("not learning", no_closer)
    evidence = [
        f"the projections fill {last.spread:.0%} of the spread of a full sphere",
        f"they use {last.rank_z:.1f} effective directions ({start}: {first.rank_z:.1f})",
        f"two views of one image agree at cosine {last.alignment_pairs:.2f}, "
        f"views of different images at {last.alignment_random:.2f}",
    ]
    return verdict("healthy", evidence, summary="No sign of collapse.")


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
    gained = last.view_recall > first.view_recall
    most = min((last.scenes or last.candidates) - 1, last.dim or last.candidates)  # no rank can be higher
    if last.spread < COLLAPSED_SPREAD:
        collapsed.append(f"the spread of z is {last.spread:.3f} (1 is healthy, below {COLLAPSED_SPREAD} is one point)")
    elif last.spread < LOW_SPREAD:
        partial.append(f"the spread of z is {last.spread:.2f} (a healthy run has {LOW_SPREAD} or more)")
    if last.rank_z < min(COLLAPSED_RANK, COLLAPSED_RANK_SHARE * most):
        collapsed.append(f"z varies along {last.rank_z:.2f} effective directions, of {most} possible")
    elif last.rank_z < min(LOW_RANK, LOW_RANK_SHARE * most):
        partial.append(f"z varies along {last.rank_z:.1f} effective directions only, of {most} possible")
    elif last.rank_z < first.rank_z * (RANK_LOSS if gained else RANK_LOSS_AND_NO_GAIN):
        partial.append(f"z varies along {last.rank_z:.1f} effective directions ({start}: {first.rank_z:.1f})")
    if last.rank_features < ONE_DIRECTION:
        partial.append(f"the backbone's features vary along {last.rank_features:.2f} effective directions")
    if last.alignment_random > SAME_IMAGES:
        collapsed.append(f"views of different images have cosine {last.alignment_random:.3f}: all look the same")
    if last.alignment_pairs > SOLVED and partial and not gained:
        collapsed.append(
            f"two views of one image agree at cosine {last.alignment_pairs:.2f}, yet find each other no more often "
            f"than at the start ({last.view_recall:.1f} % of {last.candidates}; {start}: {first.view_recall:.1f} %)"
        )
    return collapsed, partial


def _sudden(checks: Sequence[Check], start: str) -> bool:
    """Whether the last check alone shows a collapse, short of one point: BatchNorm may stumble at high rates."""
    first, before, last = checks[0], checks[-2], checks[-1]
    if before is first or 0 < before.step < EARLY_STEPS or last.spread < ONE_POINT_OF_MANY:
        return False
    return not any((*_evidence(first, before, start), _losses(checks[:-1], start)[0]))


def _no_closer(first: Check, last: Check, recipe: Pretraining | None) -> list[str]:
    """What says that the views teach nothing: they are no closer than other images, or were found before the start."""
    if _alike(last):
        return [
            f"two views of one image agree at cosine {last.alignment_pairs:.2f}, views of different images at "
            f"{last.alignment_random:.2f}"
        ]
    weak = recipe is not None and recipe.views.min_scale > 0.6 and recipe.views.jitter_probability == 0
    if weak and first.view_recall >= TOO_EASY:
        return [
            f"the views are so alike that the start finds {first.view_recall:.0f} % of them: nothing is to be learnt"
        ]
    return []


def _alike(check: Check) -> bool:
    """Whether two views of one image are hardly closer to each other than views of different ones."""
    return check.alignment_pairs - check.alignment_random < NO_CLOSER


def _measured(first: Check, last: Check) -> list[Cause]:
    """Causes that the numbers themselves speak for."""
    found, distinct = [], last.scenes or last.candidates
    if last.spread >= LOW_SPREAD and last.candidates >= FEW_IMAGES and (distinct < FEW_IMAGES or _alike(last)):
        found.append(
            Cause(
                cause="the images hold too little to tell them apart: blank, repeated or noisy ones "
                f"(different pictures: {distinct} of {last.candidates} held out)",
                cure="look at the gallery in the report; leave such images out",
            )
        )
    if last.spread < LOW_SPREAD and last.rank_z >= first.rank_z:
        found.append(
            Cause(
                cause="the projections vary in all directions, but around one point: no BatchNorm in the heads, or "
                "one whose running statistics lag behind",
                cure="a projector that ends in BatchNorm without scale and shift, as published",
            )
        )
    return found


def _losses(checks: Sequence[Check], start: str) -> tuple[list[str], list[str]]:
    """What has fallen to chance, and what the network does clearly worse than at its start, with its best epoch.

    A fall of kNN counts in any case, for labels are what a backbone is used for; one of view retrieval unless kNN rose.
    """
    first, last = checks[0], checks[-1]
    retrieval = _change(first.view_recall, last.view_recall, last.view_recall_moved, last.candidates)
    labelled = "unclear"
    if first.knn is not None and last.knn is not None and last.queries:
        labelled = _change(first.knn, last.knn, last.knn_moved, last.queries)
    if labelled == "fell":
        name, score, now, images, chance = "kNN accuracy", "knn", last.knn or 0.0, last.queries, last.chance
    elif labelled == "unclear" and retrieval == "fell":
        name, score, now, images = "view retrieval", "view_recall", last.view_recall, last.candidates
        chance = 100 / images
    else:
        return [], []
    said = [_fall(name, score, checks, start)]
    if chance and not above_chance(round(now * images / 100), images, chance / 100):
        return [f"{said[0]}; chance is {chance:.1f} %"], []
    return [], said


def _change(before: float, now: float, moved: Sequence[int] | None, images: int) -> Literal["fell", "rose", "unclear"]:
    """Whether a percentage has changed by more than chance, tested on the same images where that is written down."""
    if moved is not None:
        gained, lost = moved
        return "unclear" if sign_test(gained, lost) >= UNLIKELY else "rose" if gained > lost else "fell"
    interval = difference_interval(round(now * images / 100), round(before * images / 100), images)
    return "fell" if interval.high < 0 else "rose" if interval.low > 0 else "unclear"


def _fall(name: str, score: str, checks: Sequence[Check], start: str) -> str:
    first, last = (float(getattr(check, score)) for check in (checks[0], checks[-1]))
    best = max(checks[1:], key=lambda check: float(getattr(check, score)))
    kept = f"; the best weights since then are of epoch {best.epoch}: {getattr(best, score):.1f} %"
    return f"{name} is {last:.1f} %, down from {first:.1f} % of {start}{kept if best is not checks[-1] else ''}"


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
