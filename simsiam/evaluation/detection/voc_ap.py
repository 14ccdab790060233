"""Average precision of boxes as Pascal VOC counts it (Everingham et al. 2010, section 4; VOC devkit, VOCevaldet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchvision.ops import box_iou

from simsiam.data.detection.boxes import BoxSource, Prediction, Target
from simsiam.errors import UserError

Rule = Literal["11point", "area"]  # VOC2007: mean precision at recalls 0, 0.1, ..., 1; VOC2010 on: the area

OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True, kw_only=True)
class VocScores:
    """Average precisions in percent."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]  # metric -> class -> value; classes without an object are left out


def voc_scores(predictions: Sequence[Prediction], source: BoxSource) -> VocScores:
    """All of VOC's figures for one set of predictions.

    `ap50` is by the 11-point rule, as the model zoo prints it, and `ap50_area` by the area; `ap` (mean over overlaps
    0.5 to 0.95) and `ap75` by the area, and with `_11point` by that rule, which is what detectron2 prints on VOC2007.
    Raises UserError where the set has no object to score, or a prediction no image.
    """
    matches = match(predictions, [source.target(index) for index in range(len(source))], len(source.classes))
    table = {
        rule: np.array([average_precisions(matches, iou=iou, rule=rule) for iou in OVERLAPS])
        for rule in ("11point", "area")
    }  # overlaps x C
    scored = [number for number, each in enumerate(matches) if each.objects]
    if not scored:
        raise UserError(f"{source.name}: no object that is not difficult, so there is no average precision.")
    places = {"ap50": slice(0, 1), "ap75": slice(5, 6), "ap": slice(None)}
    keys: dict[str, tuple[Rule, str]] = {
        "ap50": ("11point", "ap50"),
        "ap50_area": ("area", "ap50"),
        "ap75": ("area", "ap75"),
        "ap75_11point": ("11point", "ap75"),
        "ap": ("area", "ap"),
        "ap_11point": ("11point", "ap"),
    }
    values = {key: 100 * table[rule][places[which]].mean(0)[scored] for key, (rule, which) in keys.items()}
    names = [source.classes[number] for number in scored]
    return VocScores(
        metrics={key: float(value.mean()) for key, value in values.items()},
        per_class={
            key: dict(zip(names, values[key].tolist(), strict=True)) for key in ("ap50", "ap50_area", "ap75", "ap")
        },
    )


def voc_ap(
    predictions: Sequence[Prediction], targets: Sequence[Target], *, classes: int, iou: float, rule: Rule
) -> np.ndarray:
    """C average precisions in [0, 1], NaN for a class without an object; `targets` are all images', in order."""
    return np.array(average_precisions(match(predictions, targets, classes), iou=iou, rule=rule))


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The D detections of one class over all images, by falling score, each with the object it overlaps most."""

    overlap: np.ndarray  # D float64; 0 where the image has no object of the class
    nearest: np.ndarray  # D int64, a number of the object that is unique over all images; -1: none
    difficult: np.ndarray  # D bool, of that object
    objects: int  # of the class, without the difficult ones


def match(predictions: Sequence[Prediction], targets: Sequence[Target], classes: int) -> list[Matches]:
    """For each class 1..C its detections and what they overlap; raises UserError for a prediction without an image."""
    first = np.cumsum([0, *(len(target) for target in targets)])
    found = [_nearest(each, _target(targets, each.image), int(first[each.image])) for each in predictions]
    scores, labels, overlap, nearest, difficult = (
        np.concatenate([each[part] for each in found]) if found else np.empty(0) for part in range(5)
    )
    order = np.argsort(-scores, kind="stable")
    labels = labels[order]
    ordinary = np.concatenate([target.labels[~target.difficult].numpy() for target in targets])
    made = []
    for label in range(1, classes + 1):
        rows = order[labels == label]
        made.append(
            Matches(
                overlap=overlap[rows],
                nearest=nearest[rows],
                difficult=difficult[rows].astype(bool),
                objects=int((ordinary == label).sum()),
            )
        )
    return made


def average_precisions(matches: Sequence[Matches], *, iou: float, rule: Rule) -> list[float]:
    """For each class the average precision in [0, 1] at one overlap; NaN where it has no object."""
    return [_average_precision(_hits(each, iou), each.objects, rule) if each.objects else np.nan for each in matches]


def _target(targets: Sequence[Target], image: int) -> Target:
    if not 0 <= image < len(targets):
        raise UserError(f"a prediction is for image {image}, but the set has {len(targets)}.")
    return targets[image]


def _nearest(found: Prediction, target: Target, first: int) -> tuple[np.ndarray, ...]:
    """Scores, labels, overlap, number and difficulty of the object of the same class that overlaps most."""
    count = len(found.labels)
    scores, labels = found.scores.double().cpu().numpy(), found.labels.cpu().numpy()
    if not len(target) or not count:
        nothing = np.zeros(count)
        return scores, labels, nothing, np.full(count, -1), nothing.astype(bool)
    overlaps = box_iou(found.boxes.double().cpu(), target.boxes.double())  # D x N
    overlaps[found.labels.cpu()[:, None] != target.labels] = -1.0
    best, which = overlaps.max(1)
    same = best >= 0
    return (
        scores,
        labels,
        best.clamp(min=0).numpy(),
        torch.where(same, which + first, -1).numpy(),
        (target.difficult[which] & same).numpy(),
    )


def _hits(matches: Matches, iou: float) -> np.ndarray:
    """Whether each detection counts as right, by falling score; those of difficult objects are left out.

    The first detection of an object is right, every later one wrong.
    """
    near = (matches.overlap >= iou) & (matches.nearest >= 0)
    counted = ~(near & matches.difficult)
    near, nearest = near[counted], matches.nearest[counted]
    rows = np.flatnonzero(near)
    _, first = np.unique(nearest[rows], return_index=True)
    hits = np.zeros(len(near), bool)
    hits[rows[first]] = True
    return hits


def _average_precision(hits: np.ndarray, objects: int, rule: Rule) -> float:
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    if rule == "11point":  # in whole numbers: 0.3 as a float is not 3/10
        reached = [np.flatnonzero(10 * right >= point * objects) for point in range(11)]
        return float(sum(envelope[rows[0]] for rows in reached if len(rows)) / 11)
    return float(envelope[hits].sum() / objects)
