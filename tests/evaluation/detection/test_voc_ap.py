"""VOC average precision against cases counted by hand, and against a literal reading of the devkit's loop."""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.ops import box_iou

from simsiam.data.detection.boxes import Prediction, Target
from simsiam.errors import UserError
from simsiam.evaluation.detection.average_precision import best_threshold, voc_ap, voc_scores
from tests.evaluation.detection.box_cases import Made, found, random_case, target

BOX, FAR = (10.0, 10.0, 30.0, 30.0), (60.0, 60.0, 80.0, 80.0)


def ap(predictions: list[Prediction], targets: list[Target], *, iou: float = 0.5) -> tuple[float, float]:
    """11-point and area, of one class."""
    eleven = voc_ap(predictions, targets, classes=1, iou=iou, rule="11point")
    area = voc_ap(predictions, targets, classes=1, iou=iou, rule="area")
    return float(eleven[0]), float(area[0])


def test_one_object_found() -> None:
    assert ap([found(0, [BOX], [0.9])], [target([BOX])]) == (1.0, 1.0)


def test_nothing_found() -> None:
    assert ap([found(0, [], [])], [target([BOX])]) == (0.0, 0.0)
    assert ap([], [target([BOX])]) == (0.0, 0.0)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    # precision 1 at recall 1/2, then a duplicate, then 2/3 at recall 1
    predictions = [found(0, [BOX, BOX, FAR], [0.9, 0.8, 0.7])]
    eleven, area = ap(predictions, [target([BOX, FAR])])
    assert area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert eleven == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)  # recalls 0 to 0.5, and 0.6 to 1


def test_difficult_objects_and_what_lies_on_them_do_not_count() -> None:
    targets = [target([BOX, FAR], difficult=[False, True])]
    assert ap([found(0, [FAR, FAR, BOX], [0.9, 0.8, 0.7])], targets) == (1.0, 1.0)
    assert ap([found(0, [FAR], [0.9])], targets) == (0.0, 0.0)


def test_a_detection_goes_to_the_object_it_overlaps_most_even_where_that_is_taken() -> None:
    near = (12.0, 10.0, 32.0, 30.0)  # overlaps BOX by 18/22
    third = (10.5, 10.0, 30.5, 30.0)
    predictions = [found(0, [BOX, third], [0.9, 0.8])]  # `third` lies nearest to BOX, which is taken
    eleven, area = ap(predictions, [target([BOX, near])])
    assert area == pytest.approx(0.5)
    assert eleven == pytest.approx(6 / 11)


def test_the_overlap_itself_is_enough() -> None:
    half = (10.0, 10.0, 30.0, 20.0)  # exactly half of BOX
    assert ap([found(0, [half], [0.9])], [target([BOX])]) == (1.0, 1.0)
    assert ap([found(0, [half], [0.9])], [target([BOX])], iou=0.55) == (0.0, 0.0)


def test_scores_are_ranked_over_all_images() -> None:
    predictions = [found(1, [FAR], [0.95]), found(0, [BOX], [0.9])]
    eleven, area = ap(predictions, [target([BOX]), target([BOX])])  # wrong first, then right: precision 1/2
    assert area == pytest.approx(0.5 * 0.5)
    assert eleven == pytest.approx(6 * 0.5 / 11)


def test_recalls_of_the_eleven_points_are_exact() -> None:
    """3 of 10 objects reach recall 0.3, which 0.1 + 0.2 as a float overshoots."""
    targets = [target([BOX]) for _ in range(10)]
    eleven, area = ap([found(image, [BOX], [0.9]) for image in range(3)], targets)
    assert eleven == pytest.approx(4 / 11)
    assert area == pytest.approx(0.3)


def test_another_class_does_not_match() -> None:
    both = voc_ap([found(0, [BOX], [0.9], [2])], [target([BOX, FAR], [1, 2])], classes=3, iou=0.5, rule="area")
    assert both[:2].tolist() == [0, 0]
    assert np.isnan(both[2])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_against_the_devkits_loop(seed: int, iou: float) -> None:
    source, predictions = random_case(seed, flag="difficult")
    for rule in ("11point", "area"):
        ours = voc_ap(predictions, source.targets, classes=4, iou=iou, rule=rule)
        for label in range(1, 5):
            assert ours[label - 1] == pytest.approx(devkit(predictions, source.targets, label, iou, rule), nan_ok=True)


def test_the_figures_of_a_set() -> None:
    source, predictions = random_case(3, flag="difficult")
    scores = voc_scores(predictions, source)
    overlaps = np.arange(0.5, 0.96, 0.05)
    area = [[devkit(predictions, source.targets, label, iou, "area") for label in (1, 2, 3)] for iou in overlaps]
    eleven = [[devkit(predictions, source.targets, label, iou, "11point") for label in (1, 2, 3)] for iou in overlaps]
    assert scores.metrics == pytest.approx(
        {
            "ap50": 100 * np.mean(eleven[0]),
            "ap50_area": 100 * np.mean(area[0]),
            "ap75": 100 * np.mean(area[5]),
            "ap75_11point": 100 * np.mean(eleven[5]),
            "ap": 100 * np.mean(area),
            "ap_11point": 100 * np.mean(eleven),
        }
    )
    assert scores.per_class["ap50"] == pytest.approx(
        {name: 100 * value for name, value in zip(source.classes, eleven[0], strict=False)}
    )
    assert "class4" not in scores.per_class["ap"]  # it has no object


def test_no_object_to_score() -> None:
    with pytest.raises(UserError, match="no object that is not difficult"):
        voc_scores([], Made([target([BOX], difficult=[True])], ("one",)))


def test_a_prediction_without_an_image() -> None:
    with pytest.raises(UserError, match="image 5, but the set has 1"):
        voc_scores([found(5, [BOX], [0.9])], Made([target([BOX])], ("one",)))


def devkit(predictions: list[Prediction], targets: list[Target], label: int, iou: float, rule: str) -> float:
    """VOCevaldet read literally: one detection after the other, then the precision-recall curve."""
    boxes = {
        image: [
            (box.tolist(), bool(hard))
            for box, of, hard in zip(one.boxes, one.labels, one.difficult, strict=True)
            if of == label
        ]
        for image, one in enumerate(targets)
    }
    objects = sum(not hard for of_image in boxes.values() for _, hard in of_image)
    if not objects:
        return float("nan")
    detections = [
        (float(score), each.image, box.tolist())
        for each in predictions
        for box, score, of in zip(each.boxes, each.scores, each.labels, strict=True)
        if of == label
    ]
    taken: set[tuple[int, int]] = set()
    right = []
    for _, image, box in sorted(detections, key=lambda one: -one[0]):
        overlaps = [overlap(box, other) for other, _ in boxes[image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= iou:
            if boxes[image][best][1]:
                continue
            right.append(int((image, best) not in taken))
            taken.add((image, best))
        else:
            right.append(0)
    wrong = [1 - one for one in right]
    recall = np.cumsum(right) / objects
    precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1)
    if rule == "11point":
        points = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= k / 10 - 1e-9), default=0.0)
            for k in range(11)
        ]
        return float(np.mean(points))
    total, before = 0.0, 0.0
    for place, at in enumerate(recall):
        total += (at - before) * max(precision[place:])
        before = at
    return total


def overlap(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def f1_at(score: float, predictions: list[Prediction], source: Made) -> float:
    """Counted one by one: of each class the surest detection of an object is right, what lies on difficult ones out."""
    right = wrong = objects = 0
    for image, truth in enumerate(source.targets):
        objects += int(truth.ordinary.sum())
        taken: set[int] = set()
        shown = [
            (float(s), box, int(k))
            for each in predictions
            if each.image == image
            for box, s, k in zip(each.boxes, each.scores.double(), each.labels, strict=True)
            if float(s) >= score
        ]
        for _, box, label in sorted(shown, key=lambda one: -one[0]):
            rows = [row for row in range(len(truth)) if int(truth.labels[row]) == label]
            overlaps = [float(box_iou(box[None].double(), truth.boxes[row][None].double())) for row in rows]
            best = rows[int(np.argmax(overlaps))] if rows else -1
            if best >= 0 and max(overlaps) >= 0.5 and not truth.ordinary[best]:
                continue
            hit = best >= 0 and max(overlaps) >= 0.5 and best not in taken
            taken.add(best if hit else -1)
            right, wrong = right + hit, wrong + (not hit)
    return 2 * right / (right + wrong + objects)


def test_the_threshold_has_the_best_f1() -> None:
    for seed in range(2):
        source, predictions = random_case(seed, images=6)
        chosen = best_threshold(predictions, source)
        assert chosen is not None
        every = {step / 100: f1_at(step / 100, predictions, source) for step in range(5, 100)}
        assert chosen["f1"] == pytest.approx(100 * max(every.values()))
        assert every[chosen["score"]] == max(every.values())
    assert best_threshold([], source) is None
    sure = [found(0, [BOX], [0.9])]
    assert best_threshold(sure, Made([target([BOX])], ("a",)))["score"] == 0.47  # type: ignore[index]  # of 0.05 to 0.9
