"""Average precision as Pascal VOC counts it, and as COCO does, by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torchvision.ops import box_iou

from simsiam.data.detection.boxes import BoxSource, Prediction, Target
from simsiam.errors import UserError

Rule = Literal["11point", "area"]  # VOC2007: mean precision at recalls 0, 0.1, ..., 1; VOC2010 on: the area

OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Average precisions in percent; what no object has (a class, or a size of COCO's) is left out."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]  # metric -> class -> value


def score(metric: Literal["voc", "coco"], predictions: Sequence[Prediction], source: BoxSource) -> Scores:
    """By VOC's rules or by COCO's; raises UserError where the set has no object, or a prediction no image."""
    return (voc_scores if metric == "voc" else coco_scores)(predictions, source)


def voc_scores(predictions: Sequence[Prediction], source: BoxSource) -> Scores:
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
    return Scores(
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
    scores: np.ndarray  # D float64
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
                scores=scores[rows],
                objects=int((ordinary == label).sum()),
            )
        )
    return made


def average_precisions(matches: Sequence[Matches], *, iou: float, rule: Rule) -> list[float]:
    """For each class the average precision in [0, 1] at one overlap; NaN where it has no object."""
    return [_average_precision(_hits(each, iou)[0], each.objects, rule) if each.objects else np.nan for each in matches]


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


def best_threshold(predictions: Sequence[Prediction], source: BoxSource) -> dict[str, float] | None:
    """The `score`, in hundredths, with the best F1 at an overlap of 0.5; of its like neighbours the middle one.

    With f1, precision and recall there, percent, over the objects of all classes. None where no detection is right.
    """
    targets = [source.target(index) for index in range(len(source))]
    matches = match(predictions, [replace(each, difficult=~each.ordinary) for each in targets], len(source.classes))
    found = [(*_hits(each, 0.5), each) for each in matches]
    objects = sum(each.objects for each in matches)
    hits = np.concatenate([hits for hits, _, _ in found])
    scores = np.concatenate([each.scores[counted] for _, counted, each in found])
    if not hits.any():
        return None
    grid = np.arange(5, 100) / 100
    shown, right = ((part[:, None] >= grid).sum(0) for part in (scores, scores[hits]))
    f1 = 2 * right / (shown + objects)
    first = int(f1.argmax())
    at = first + (int(np.argmin([*(f1[first:] == f1[first]), False])) - 1) // 2
    figures = {"f1": f1[at], "precision": right[at] / shown[at], "recall": right[at] / objects}
    return {"score": float(grid[at]), **{name: 100 * float(value) for name, value in figures.items()}}


def _hits(matches: Matches, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each detection is right, by falling score, of those that count: all but those of difficult objects.

    The first detection of an object is right, every later one wrong.
    """
    near = (matches.overlap >= iou) & (matches.nearest >= 0)
    counted = ~(near & matches.difficult)
    near, nearest = near[counted], matches.nearest[counted]
    rows = np.flatnonzero(near)
    _, first = np.unique(nearest[rows], return_index=True)
    hits = np.zeros(len(near), bool)
    hits[rows[first]] = True
    return hits, counted


def _average_precision(hits: np.ndarray, objects: int, rule: Rule) -> float:
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    if rule == "11point":  # in whole numbers: 0.3 as a float is not 3/10
        reached = [np.flatnonzero(10 * right >= point * objects) for point in range(11)]
        return float(sum(envelope[rows[0]] for rows in reached if len(rows)) / 11)
    return float(envelope[hits].sum() / objects)


Part = Literal["box", "mask"]

_TYPES: dict[Part, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}
_SIZES = ("all", "small", "medium", "large")  # of an object: under 32 x 32, under 96 x 96, above
_DETECTIONS = 100  # the best of an image


def coco_scores(predictions: Sequence[Prediction], source: BoxSource) -> Scores:
    """COCO's figures (`box_ap`, `box_ap50`, `box_ap75`, `box_ap_small` and so on; `mask_*` where there are masks).

    Difficult objects (VOC) are treated as crowds: detections on them do not count. Raises UserError where the set has
    no object to score, or a prediction no image.
    """
    _same_images(predictions, source)
    with_masks = source.has_masks and any(each.masks is not None for each in predictions)
    truth = truth_of(source, masks=with_masks)
    if all(one["iscrowd"] for one in truth["annotations"]):
        raise UserError(
            f"{source.name}: no object that is neither a crowd nor difficult, so there is nothing to score."
        )
    parts: tuple[Part, ...] = ("box", "mask") if with_masks else ("box",)
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    for part in parts:
        precision = _precision(truth, found_of(predictions, part), part, len(source))  # T x R x C x sizes
        one = _summary(precision, part, source.classes)
        metrics |= one.metrics
        per_class |= one.per_class
    return Scores(metrics=metrics, per_class=per_class)


def _summary(precision: np.ndarray, part: Part, classes: tuple[str, ...]) -> Scores:
    """The means over overlaps, recalls and classes; COCO marks what has no object by -1."""
    metrics = {}
    picked = {"ap": (slice(None), 0), "ap50": (slice(0, 1), 0), "ap75": (slice(5, 6), 0)}
    picked |= {f"ap_{size}": (slice(None), place) for place, size in enumerate(_SIZES) if place}
    for key, (overlaps, size) in picked.items():
        values = precision[overlaps, :, :, size]
        if (values > -1).any():
            metrics[f"{part}_{key}"] = 100 * float(values[values > -1].mean())
    per_class: dict[str, dict[str, float]] = {}
    for key in ("ap", "ap50"):
        values = precision[picked[key][0], :, :, 0]
        per_class[f"{part}_{key}"] = {
            name: 100 * float(values[:, :, number].mean())
            for number, name in enumerate(classes)
            if (values[:, :, number] > -1).all()
        }
    return Scores(metrics=metrics, per_class=per_class)


def _precision(truth: dict[str, Any], found: list[dict[str, Any]], part: Part, images: int) -> np.ndarray:
    """Interpolated precision, overlaps x recalls x classes x sizes, of the best 100 detections of each image."""
    from faster_coco_eval import COCO, COCOeval_faster

    known = COCO(truth)
    results = known.loadRes(found) if found else COCO({**truth, "annotations": []})
    scoring: Any = COCOeval_faster(known, results, iouType=_TYPES[part])
    scoring.params.maxDets = [1, 10, _DETECTIONS]
    scoring.evaluate()
    scoring.accumulate()
    return np.asarray(scoring.eval["precision"])[..., -1]


def truth_of(source: BoxSource, *, masks: bool) -> dict[str, Any]:
    """The set as COCO's json has it; image and category ids count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(source)):
        image, target = source.image(index), source.target(index)
        images.append({"id": index + 1, "width": image.width, "height": image.height})
        encoded = target.masks.encode() if masks and target.masks is not None else None
        for row in range(len(target)):
            x1, y1, x2, y2 = target.boxes[row].tolist()
            annotation = {
                "id": len(annotations) + 1,
                "image_id": index + 1,
                "category_id": int(target.labels[row]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(target.area[row]),
                "iscrowd": int(target.crowd[row] | target.difficult[row]),
            }
            if encoded is not None:
                annotation["segmentation"] = encoded[row].as_coco()
            annotations.append(annotation)
    categories = [{"id": number, "name": name} for number, name in enumerate(source.classes, 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def found_of(predictions: Sequence[Prediction], part: Part) -> list[dict[str, Any]]:
    """The predictions as COCO's results file has them."""
    found = []
    for each in predictions:
        boxes, scores, labels = each.boxes.tolist(), each.scores.tolist(), each.labels.tolist()
        for row, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
            entry: dict[str, Any] = {"image_id": each.image + 1, "category_id": label, "score": score}
            if part == "box":
                entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            elif each.masks is not None:
                entry["segmentation"] = each.masks[row].as_coco()
            else:
                continue
            found.append(entry)
    return found


def _same_images(predictions: Sequence[Prediction], source: BoxSource) -> None:
    for each in predictions:
        if not 0 <= each.image < len(source):
            raise UserError(f"a prediction is for image {each.image}, but {source.name} has {len(source)}.")
