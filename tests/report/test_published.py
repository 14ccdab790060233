"""The published figures, against rows typed here from the page once more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simsiam.evaluation.detection.average_precision import voc_scores
from simsiam.published import (
    FIGURES,
    MODEL_100E,
    MODEL_200E,
    OFFICIAL,
    PAGE,
    PAPER,
    VERSIONS,
    figures,
    page_figure,
)
from tests.evaluation.detection.box_cases import random_case
from tests.evaluation.detection.test_voc_ap import devkit

PAGE_ROWS = {  # the page's tables, line by line
    MODEL_100E: {
        "low_shot_voc07": "39.71 49.65 62.79 69.97 74.73 78.30 81.06 82.44",
        "svm_voc07": "84.21",
        "linear_mhead": "15.85 34.02 46.00 60.90 67.92",
        "linear_avgpool": "67.88",
        "detection_voc0712": "79.97",
        "detection_coco": "38.3 57.6 41.7 34.4 54.8 36.9",
        "segmentation_voc12aug": "46.11",
    },
    MODEL_200E: {
        "low_shot_voc07": "39.85 50.44 63.73 70.93 75.74 79.42 82.02 83.44",
        "svm_voc07": "85.20",
        "linear_mhead": "15.57 37.21 47.28 62.21 69.85",
        "linear_avgpool": "69.80",
        "detection_voc0712": "79.85",
        "detection_coco": "38.8 58.0 42.3 34.9 55.3 37.6",
        "segmentation_voc12aug": "46.27",
    },
}


@pytest.mark.parametrize("model", PAGE_ROWS)
def test_the_page_as_published(model: str) -> None:
    for protocol, row in PAGE_ROWS[model].items():
        made = figures(model=model, protocol=protocol, version="v0.5.0", source=PAGE)
        assert [one.value for one in made] == [float(value) for value in row.split()], protocol


def test_a_later_page_keeps_what_was_not_measured_again() -> None:
    assert _value(MODEL_200E, "svm_voc07", "feature5", "v0.8.0") == 85.20
    assert _value(MODEL_100E, "svm_voc07", "feature5", "v0.7.0") == 84.64
    assert _value(MODEL_100E, "linear_avgpool", "top1", "v0.6.0") == 68.20
    assert _value(MODEL_100E, "linear_avgpool", "top1", "v0.7.0") == 68.28
    latest = page_figure(MODEL_200E, "linear_avgpool", "top1", version=VERSIONS[-1])
    assert latest is not None
    assert (latest.value, latest.version) == (69.84, "v0.7.0")


def test_what_the_first_page_did_not_have() -> None:
    assert page_figure(MODEL_100E, "knn", "top1_k20") is None
    assert _value(MODEL_100E, "knn", "top1_k20", "v0.8.0") == 57.6
    assert _value(MODEL_200E, "places205", "feature5", "v0.7.0") == 54.10
    assert page_figure(MODEL_100E, "inaturalist2018", "feature5", version=VERSIONS[-1]) is None
    assert page_figure(MODEL_100E, "segmentation_cityscapes", "miou", version=VERSIONS[-1]) is None


def test_how_sure_the_figures_are() -> None:
    assert {one.certainty for one in figures(source=PAPER)} == {"read"}
    assert {one.certainty for one in figures(source=PAGE)} == {"read"}
    assert [(one.value, one.certainty) for one in figures(source=OFFICIAL)] == [
        (68.1, "read"),
        (68.3, "read"),
        (69.8, "said in a thread"),
    ]


def test_table_5_reads_in_the_right_order() -> None:
    row = {one.metric: one.value for one in figures(model="SimSiam, optimal", protocol="detection_coco_c4")}
    assert row == {
        "box_ap50": 59.3,
        "box_ap": 39.2,
        "box_ap75": 42.1,
        "mask_ap50": 56.0,
        "mask_ap": 34.4,
        "mask_ap75": 36.7,
    }


@pytest.mark.parametrize(("protocol", "row"), [("voc07", (77.3, 48.5, 52.5)), ("voc0712", (82.4, 57.0, 63.7))])
def test_the_papers_voc_columns_go_with_our_figures_by_the_same_rule(protocol: str, row: tuple[float, ...]) -> None:
    """Detectron2's evaluator: on VOC2007 the 11-point rule at each overlap, "AP" the mean over ten of them."""
    source, predictions = random_case(3, flag="difficult")
    by_overlap = [
        np.nanmean([devkit(predictions, source.targets, label, iou / 100, "11point") for label in range(1, 5)])
        for iou in range(50, 100, 5)
    ]
    printed = {row[0]: by_overlap[0], row[1]: np.mean(by_overlap), row[2]: by_overlap[5]}
    ours = voc_scores(predictions, source).metrics
    found = figures(model="SimSiam, optimal", protocol=f"detection_{protocol}")
    assert sorted(one.value for one in found) == sorted(row)
    assert {one.value: ours[one.metric] for one in found} == pytest.approx({key: 100 * v for key, v in printed.items()})


def test_each_figure_stands_once_and_is_a_number() -> None:
    keys = [(one.model, one.protocol, one.metric, one.version, one.source, one.data) for one in FIGURES]
    assert len(keys) == len(set(keys))
    assert all(math.isfinite(one.value) and 0 < one.value < 100 for one in FIGURES)


def _value(model: str, protocol: str, metric: str, version: str) -> float:
    found = page_figure(model, protocol, metric, version=version)
    assert found is not None
    return found.value
