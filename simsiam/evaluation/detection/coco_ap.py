"""Average precision of boxes and masks as COCO counts it, by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from simsiam.data.detection.boxes import BoxSource, Prediction
from simsiam.errors import UserError

Part = Literal["box", "mask"]

_TYPES: dict[Part, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}
_SIZES = ("all", "small", "medium", "large")  # of an object: under 32 x 32, under 96 x 96, above
_DETECTIONS = 100  # the best of an image


@dataclass(frozen=True, kw_only=True)
class CocoScores:
    """Average precisions in percent: `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small` and so on, `mask_*` likewise."""

    metrics: dict[str, float]  # sizes that no object has are left out
    per_class: dict[str, dict[str, float]]  # metric -> class -> value; classes without an object are left out


def coco_scores(predictions: Sequence[Prediction], source: BoxSource) -> CocoScores:
    """COCO's figures, of masks too where the set and the predictions have them.

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
    return CocoScores(metrics=metrics, per_class=per_class)


def _summary(precision: np.ndarray, part: Part, classes: tuple[str, ...]) -> CocoScores:
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
    return CocoScores(metrics=metrics, per_class=per_class)


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
