"""The SVM protocol against scikit-learn: solutions, costs, average precision, the whole from images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from simsiam.data.classification.voc import MultiLabelSplits, one_against_rest, voc_splits
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import normalised
from simsiam.evaluation.classification.svm import svm_layer
from simsiam.evaluation.classification.svm_kernel import Kernel
from simsiam.evaluation.classification.svm_solver import ACCURACY, solve, solve_path
from simsiam.evaluation.intervals import area_average_precision
from simsiam.recipes import classification
from tests import tiny_voc
from tests.evaluation.classification.labelled_subjects import machine, splits, subject


def problem(rows: int, channels: int, *, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that classes shift a little, and targets n x C of 1, 0 and, rarely, -1."""
    random = np.random.default_rng(seed)
    targets = (random.random((rows, classes)) < 0.3).astype(np.int8)
    # the same shifts for every seed, so that training and test agree
    shifts = np.random.default_rng(99).standard_normal((classes, channels))
    features = np.maximum(0, random.standard_normal((rows, channels)) + 0.4 * targets @ shifts + 0.3)
    targets[(random.random(targets.shape) < 0.05) & (targets == 1)] = -1
    return features, targets


def linear_svc(cost: float, **changes: object) -> LinearSVC:
    settings = {"tol": 1e-4, "max_iter": 2000, **changes}
    return LinearSVC(
        C=cost,
        penalty="l2",
        loss="squared_hinge",
        dual=True,
        intercept_scaling=1.0,
        class_weight={1: 2, -1: 1},
        **settings,
    )


@pytest.mark.parametrize(
    ("rows", "channels"),
    [(90, 300), (260, 400), (300, 12), (300, 90)],  # with and without the Gram matrix
)
@pytest.mark.parametrize("cost", [2.0**-19, 2.0**-7, 1.0, 100.0])
def test_solutions_are_those_of_liblinear_run_to_the_end(rows: int, channels: int, cost: float) -> None:
    features, targets = problem(rows, channels)
    features = normalised(features)
    test = normalised(problem(40, channels, seed=1)[0])
    y = np.where(targets == 1, 1.0, -1.0)
    kernel = Kernel(torch.from_numpy(features))
    solution = solve(kernel, torch.from_numpy(y), cost * torch.from_numpy(np.where(y > 0, 2.0, 1.0)))
    assert solution.accuracy <= ACCURACY
    weights = kernel.weights(solution.combinations).numpy()
    for column in range(y.shape[1]):
        oracle = linear_svc(cost, tol=1e-10, max_iter=2_000_000, random_state=0).fit(features, y[:, column])
        for rows_seen, values in (
            (features, solution.decisions[:, column].numpy()),
            (test, test @ weights[:-1, column] + weights[-1, column]),
        ):
            expected = oracle.decision_function(rows_seen)
            np.testing.assert_allclose(values, expected, atol=1e-3 * max(1e-3, np.abs(expected).max()))


def test_conjugate_gradients_and_left_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from simsiam.evaluation.classification import svm_solver

    features, targets = problem(260, 300)
    features = normalised(features)
    y = torch.from_numpy(np.where(targets == 1, 1.0, -1.0))
    weights = torch.where(y > 0, 2.0, 1.0).double()
    weights[:130, 0] = 0  # the first class learns from the second half alone
    direct = list(solve_path(Kernel(torch.from_numpy(features)), y, weights, (0.01, 10.0)))
    monkeypatch.setattr(svm_solver, "DIRECT_ROWS", ())
    iterative = list(solve_path(Kernel(torch.from_numpy(features)), y, weights, (0.01, 10.0)))
    for one, other, cost in zip(direct, iterative, (0.01, 10.0), strict=True):
        assert max(one.accuracy, other.accuracy) <= ACCURACY
        torch.testing.assert_close(one.decisions, other.decisions, atol=2e-4, rtol=0)
        oracle = linear_svc(cost, tol=1e-10, max_iter=2_000_000).fit(features[130:], y[130:, 0])
        np.testing.assert_allclose(one.decisions[:, 0], oracle.decision_function(features), atol=1e-4)
        assert one.combinations[:130, 0].abs().max() < 1e-6 < one.combinations[130:, 0].abs().max()


def test_threads_give_what_one_thread_gives() -> None:
    features, targets = problem(200, 260, classes=12)
    y = torch.from_numpy(np.where(targets == 1, 1.0, -1.0))
    kernel = Kernel(torch.from_numpy(normalised(features)))
    before = torch.get_num_threads()
    alone = solve(kernel, y, torch.ones_like(y))
    try:
        torch.set_num_threads(3)
        together = solve(kernel, y, torch.ones_like(y))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(alone.decisions, together.decisions, atol=1e-4, rtol=0)


def test_weights_that_overflow_are_told() -> None:
    features, targets = problem(90, 300)
    y = torch.from_numpy(np.where(targets == 1, 1.0, -1.0))
    with pytest.raises(UserError, match="features are too large, or --costs"):
        solve(Kernel(torch.from_numpy(normalised(features))), y, 1e300 * torch.ones_like(y))


def test_area_average_precision_by_hand() -> None:
    # ranked: hit, miss, miss, hit, hit -> precisions 1, 1/2, 1/3, 2/4, 3/5; from the right 1, .6, .6, .6, .6
    scores = np.array([0.1, 0.9, 0.5, 0.3, 0.7])
    positive = np.array([True, True, False, True, False])
    assert area_average_precision(scores, positive) == pytest.approx((1 + 0.6 + 0.6) / 3)
    # scikit-learn takes the same area without the envelope
    assert average_precision_score(positive, scores) == pytest.approx((1 + 0.5 + 0.6) / 3)
    with pytest.raises(UserError, match="0 of 5 are positive"):
        area_average_precision(scores, np.zeros(5, bool))
    with pytest.raises(UserError, match="NaN"):
        area_average_precision(np.full(5, np.nan), positive)


def test_the_whole_layer_is_scikit_learns_to_a_twentieth_of_a_point() -> None:
    """The published procedure written out with LinearSVC at the published settings."""
    train, targets = problem(180, 260, classes=3, seed=2)
    test, test_targets = problem(150, 260, classes=3, seed=3)
    costs = classification.PUBLISHED_COSTS
    found = svm_layer(
        train, targets, test, test_targets, classes=("a", "b", "c"), costs=costs, positive_weight=2.0, folds=3
    )
    train = train / (np.linalg.norm(train, axis=1, keepdims=True) + 1e-5)
    test = test / (np.linalg.norm(test, axis=1, keepdims=True) + 1e-5)
    for column, name in enumerate("abc"):
        y = np.where(targets[:, column] == 1, 1, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged in 2,000 passes at the highest costs, as published
            folds = [cross_val_score(linear_svc(c), train, y, cv=3, scoring="average_precision").mean() for c in costs]
            chosen = costs[int(np.argmax(folds))]
            scores = linear_svc(chosen).fit(train, y).decision_function(test)
        counted = test_targets[:, column] != -1
        truth = test_targets[counted, column] == 1
        order = np.argsort(-scores[counted])
        recall = np.cumsum(truth[order]) / truth.sum()
        precision = np.cumsum(truth[order]) / np.arange(1, len(order) + 1)
        area, last = 0.0, 0.0
        for position in range(len(order)):  # the curve's area, each step under the best precision still to come
            area += (recall[position] - last) * precision[position:].max()
            last = recall[position]
        assert found.costs[name] == chosen
        assert found.per_class[name] == pytest.approx(100 * area, abs=0.05)
        assert found.cross_validation[name] == pytest.approx(100 * max(folds), abs=0.05)


def recipe() -> classification.Svm:
    whole = classification.svm_voc07(32)
    return replace(whole, costs=(1.0, 0.125, 2.0**-8), features=replace(whole.features, precision="fp32"))


def test_from_a_voc_tree_to_the_table_row(tmp_path: Path) -> None:
    data = voc_splits(tiny_voc.tree(tmp_path, train=60, test=40))
    result = recipe().run(subject(), data, machine=machine(tmp_path / "out", cache=tmp_path / "cache"))
    assert (tmp_path / "out" / "result.json").is_file()
    assert set(result.metrics) == {"feature1", "feature2", "feature3", "feature4", "feature5", "best"}
    best = result.detail["best_layer"]
    assert result.metrics["best"] == result.metrics[best] == max(result.metrics.values())
    assert result.metrics["best"] > 65  # squares of three colours; the classes' shares, and so chance, are about 40
    assert set(result.detail["per_class"][best]) == set(tiny_voc.CLASSES)
    assert result.protocol == "svm_voc07"
    assert result.data.images == 100


def test_any_labelled_set_one_against_rest(tmp_path: Path) -> None:
    data = splits(train=60, test=36)
    whole = recipe()
    pooled = replace(whole, features=replace(whole.features, layers="pooled", kind="center"))
    result = pooled.run(subject(), one_against_rest(data.train, data.test), machine=machine(cache=tmp_path))
    assert set(result.metrics) == {"pooled", "best"}
    assert result.metrics["best"] > 60


def test_mistakes_are_told() -> None:
    features, targets = problem(60, 20, classes=2)
    settings = {"classes": ("cat", "dog"), "costs": (1.0,), "positive_weight": 2.0, "folds": 3}
    few = targets.copy()
    few[:, 1] = 0
    few[:2, 1] = 1
    with pytest.raises(UserError, match="dog: fewer than 3 positive training images"):
        svm_layer(features, few, features, targets, **settings)
    broken = features.copy()
    broken[5, 2] = np.nan
    with pytest.raises(UserError, match=r"NaN or an infinity \(first in row 5"):
        svm_layer(broken, targets, features, targets, **settings)
    with pytest.raises(UserError, match="NaN or an infinity"):
        svm_layer(features, targets, broken, targets, **settings)
    only = np.ones_like(targets)
    with pytest.raises(UserError, match="cat: the readable test images are all of one kind"):
        svm_layer(features, targets, features, only, **settings)


def test_splits_have_one_type() -> None:
    data = splits(train=60, test=36)
    assert isinstance(one_against_rest(data.train, data.test), MultiLabelSplits)
