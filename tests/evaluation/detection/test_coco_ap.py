"""COCO average precision against pycocotools on random predictions, with crowds, sizes and masks."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from simsiam.data.detection.boxes import Prediction
from simsiam.errors import UserError
from simsiam.evaluation.detection.average_precision import coco_scores
from tests.evaluation.detection.box_cases import Made, found, random_case, target

KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
@pytest.mark.parametrize("seed", range(6))
def test_against_pycocotools(seed: int, flag: str) -> None:
    source, predictions = random_case(seed, images=20, flag=flag)
    ours = coco_scores(predictions, source)
    for part, kind in (("box", "bbox"), ("mask", "segm")):
        theirs = oracle(source, predictions, kind)
        expected = {
            f"{part}_{key}": 100 * value for key, value in zip(KEYS, theirs.stats[:6], strict=True) if value > -1
        }
        assert {key: value for key, value in ours.metrics.items() if key.startswith(part)} == pytest.approx(expected)
        precision = theirs.eval["precision"][..., 0, 2]  # overlaps x recalls x classes
        for number, name in enumerate(source.classes):
            if name == "class4":  # no object
                assert name not in ours.per_class[f"{part}_ap"]
            else:
                assert ours.per_class[f"{part}_ap"][name] == pytest.approx(100 * precision[:, :, number].mean())
                assert ours.per_class[f"{part}_ap50"][name] == pytest.approx(100 * precision[0, :, number].mean())


def test_more_than_a_hundred_detections() -> None:
    source, _ = random_case(0, images=3)
    random = np.random.default_rng(0)
    corners = random.random((250, 2)) * 100
    boxes = [(x, y, x + 20 + 30 * random.random(), y + 20) for x, y in corners.tolist()]
    predictions = [
        found(image, boxes, random.random(250).tolist(), random.integers(1, 4, 250).tolist()) for image in range(3)
    ]
    ours = coco_scores(predictions, source)
    assert "mask_ap" not in ours.metrics
    expected = oracle(source, predictions, "bbox").stats[:3] * 100
    assert [ours.metrics[f"box_{key}"] for key in KEYS[:3]] == pytest.approx(expected.tolist())


def test_nothing_found_is_nought() -> None:
    source, _ = random_case(1)
    nothing = coco_scores([], source)
    assert nothing.metrics["box_ap"] == 0
    assert set(nothing.per_class["box_ap"].values()) == {0.0}


def test_no_object_to_score() -> None:
    with pytest.raises(UserError, match="nothing to score"):
        coco_scores([], Made([target([(0, 0, 9, 9)], crowd=[True])], ("one",)))


def oracle(source: Made, predictions: list[Prediction], kind: str) -> COCOeval:
    """pycocotools' own result."""
    annotations: list[dict[str, Any]] = []
    for index, one in enumerate(source.targets):
        assert one.masks is not None
        for row, (x1, y1, x2, y2) in enumerate(one.boxes.tolist()):
            rle = one.masks.encode()[row]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + index,
                    "category_id": 5 * int(one.labels[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(one.area[row]),
                    "iscrowd": int(one.crowd[row] or one.difficult[row]),
                    "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts},
                }
            )
    results = [
        {
            "image_id": 10 + each.image,
            "category_id": 5 * int(label),
            "score": float(score),
            **(
                {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                if kind == "bbox"
                else {"segmentation": {"size": [rle.height, rle.width], "counts": rle.counts}}
            ),
        }
        for each in predictions
        for (x1, y1, x2, y2), score, label, rle in zip(
            each.boxes.tolist(), each.scores, each.labels, each.masks or [None] * len(each.labels), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": 10 + index, "width": source.side, "height": source.side} for index in range(len(source))],
            "annotations": annotations,
            "categories": [{"id": 5 * number, "name": name} for number, name in enumerate(source.classes, 1)],
        }
        truth.createIndex()
        scoring = COCOeval(truth, truth.loadRes(results), kind)
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    return scoring
