"""mIoU against scikit-learn, the sliding test against a hand-made average, the rate against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from simsiam.evaluation.segmentation.metrics import PixelCounts, Window, slide, windows
from simsiam.recipes import segmentation as recipes

CPU = torch.device("cpu")


def counted(truth: np.ndarray, found: np.ndarray, classes: int) -> PixelCounts:
    counts = PixelCounts(classes, CPU)
    for one, other in zip(truth, found, strict=True):
        counts.add(torch.from_numpy(other), torch.from_numpy(one))
    counts.total()
    return counts


def test_figures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 6, (7, 20, 30))
    found = np.where(random.random(truth.shape) < 0.6, truth, random.integers(0, 6, truth.shape))
    truth[random.random(truth.shape) < 0.1] = 255
    counts = counted(truth, found, 6)
    kept = truth != 255
    one, other = truth[kept], found[kept]
    assert (counts.counts.numpy() == confusion_matrix(one, other, labels=range(6))).all()
    assert counts.iou == pytest.approx((100 * jaccard_score(one, other, average=None)).tolist())
    assert counts.accuracy == pytest.approx((100 * recall_score(one, other, average=None)).tolist())
    figures = counts.figures()
    assert figures["miou"] == pytest.approx(100 * jaccard_score(one, other, average="macro"))
    assert figures["pixel_accuracy"] == pytest.approx(100 * accuracy_score(one, other))
    assert figures["mean_accuracy"] == pytest.approx(100 * recall_score(one, other, average="macro"))


def test_an_absent_class_is_left_out_and_an_invented_one_counts_as_zero() -> None:
    truth = np.array([[[0, 0, 1, 1]]])
    absent = counted(truth, np.array([[[0, 0, 1, 0]]]), 3)
    assert absent.iou[:2] == pytest.approx([100 * 2 / 3, 50.0])
    assert math.isnan(absent.iou[2])
    assert absent.figures()["miou"] == pytest.approx((200 / 3 + 50) / 2)
    invented = counted(truth, np.array([[[0, 0, 1, 2]]]), 3)
    assert invented.iou == pytest.approx([100.0, 50.0, 0.0])
    assert invented.figures()["miou"] == pytest.approx(50.0)
    assert math.isnan(invented.accuracy[2])


def test_a_set_without_a_labelled_pixel_has_no_figure() -> None:
    counts = counted(np.full((1, 2, 2), 255), np.zeros((1, 2, 2), int), 2)
    assert math.isnan(counts.figures()["miou"])


def test_windows_of_the_published_cityscapes_test() -> None:
    places = windows(1025, 2049, crop=769, stride=513)
    assert {place.top for place in places} == {0, 256}
    assert {place.left for place in places} == {0, 513, 1026, 1280}
    assert len(places) == 8
    assert all((place.bottom - place.top, place.right - place.left) == (769, 769) for place in places)
    assert max(place.right for place in places) == 2049
    assert max(place.bottom for place in places) == 1025


def test_a_small_image_is_one_window() -> None:
    assert windows(30, 40, crop=64, stride=20) == [Window(top=0, left=0, bottom=30, right=40)]
    assert len(windows(64, 64, crop=64, stride=20)) == 1
    assert [place.left for place in windows(10, 65, crop=64, stride=20)] == [0, 1]


def test_the_slide_is_the_mean_of_the_windows() -> None:
    """Each window is scored by something that depends on what it alone sees: its own mean."""
    image = torch.arange(2 * 7, dtype=torch.float32).view(1, 1, 2, 7).repeat(1, 3, 1, 1)

    def score(parts: torch.Tensor) -> torch.Tensor:
        return parts[:, :2] + parts.mean((1, 2, 3))[:, None, None, None]

    found = slide(image, score, crop=4, stride=2, batch=2)
    expected = torch.zeros(2, 7)
    seen = torch.zeros(2, 7)
    row = image[0, 0]
    for left in (0, 2, 3):  # 0, 2, and 4 moved back to the edge
        expected[:, left : left + 4] += row[:, left : left + 4] + row[:, left : left + 4].mean()
        seen[:, left : left + 4] += 1
    assert torch.allclose(found[0], (expected / seen).expand(2, 2, 7))


@pytest.mark.parametrize("iteration", [0, 1, 5000, 19_999])
def test_the_rate_follows_the_published_polynomial(iteration: int) -> None:
    course = recipes.fcn_r50_d8_512x512_20k_voc12aug().segmentation.course
    expected = (0.01 - 1e-4) * (1 - iteration / 20_000) ** 0.9 + 1e-4
    assert course.scaled_lr * course.factor(iteration) == pytest.approx(expected, rel=1e-12)


def test_recipes_as_published() -> None:
    voc, city = (
        recipes.fcn_r50_d8_512x512_20k_voc12aug().segmentation,
        recipes.fcn_r50_d8_769x769_40k_cityscapes().segmentation,
    )
    for settings, length, batch in ((voc, 20_000, 16), (city, 40_000, 8)):
        course = settings.course
        assert (course.iterations, course.batch_size, course.scaled_lr) == (length, batch, 0.01)
        assert (course.momentum, course.weight_decay, course.auxiliary_weight) == (0.9, 5e-4, 0.4)
        assert settings.notes == []
    assert (city.augmentation.scale_long, city.augmentation.scale_short, city.augmentation.crop) == (2049, 1025, 769)
    assert (city.testing.windows, city.testing.window, city.testing.window_stride) == ("slide", 769, 513)
    assert (voc.testing.windows, voc.testing.test_long, voc.testing.test_short) == ("whole", 2048, 512)
