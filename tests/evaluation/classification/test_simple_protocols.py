"""Few labels, clustering and retrieval, from images to results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simsiam.data.classification.labels import csv_source
from simsiam.data.sources import ArraySource
from simsiam.errors import UserError
from simsiam.evaluation.classification.few_labels import INNER_FOLDS
from simsiam.evaluation.intervals import wilson_interval
from simsiam.features.store import features_of
from simsiam.recipes import classification
from tests import tiny
from tests.evaluation.classification.labelled_subjects import machine, splits, subject
from tests.features.test_features import EXTRACTION


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_few_labels_from_images(tmp_path: Path, classifier: str) -> None:
    source = splits(train=48, test=6).train
    protocol = replace(classification.few_labels(32), classifier=classifier, repeats=2, costs=(0.01, 1.0))
    result = protocol.run(subject(), source, machine=machine(tmp_path / "out", cache=tmp_path / "cache"))
    metrics = result.metrics
    assert result.protocol == "few_labels"
    assert metrics["top1_low"] <= metrics["top1"] <= metrics["top1_high"]
    assert metrics["top1"] > 55  # six tints; chance is 17
    assert metrics["commonest_class"] == pytest.approx(100 / 6)
    assert np.mean(result.detail["by_repeat"]) == pytest.approx(metrics["top1"])
    assert np.array(result.detail["confusion"]).sum() == 48
    assert protocol.run(subject(), source, machine=machine(cache=tmp_path / "cache")).metrics == metrics


def test_few_labels_cannot_be_learnt_from_noise(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    source = ArraySource(pixels, np.arange(60) % 2, name="noise", classes=("a", "b"))
    protocol = replace(classification.few_labels(32), repeats=2, costs=(0.01, 1.0))
    metrics = protocol.run(subject(), source, machine=machine(cache=tmp_path)).metrics
    assert metrics["top1_low"] < 50 < metrics["top1_high"]
    found = wilson_interval(metrics["top1"] / 100 * 60, 60)
    assert (metrics["top1_low"], metrics["top1_high"]) == pytest.approx((100 * found.low, 100 * found.high))


def test_a_few_images_that_are_all_guessed_rightly_do_not_make_it_certain(tmp_path: Path) -> None:
    pixels = np.stack([np.full((32, 32, 3), 250 * (n % 2), np.uint8) for n in range(12)])
    source = ArraySource(pixels, np.arange(12) % 2, name="black and white", classes=("a", "b"))
    protocol = replace(classification.few_labels(32), repeats=2, costs=(1.0,))
    metrics = protocol.run(subject(), source, machine=machine(cache=tmp_path)).metrics
    assert metrics["top1"] == metrics["top1_high"] == 100
    assert metrics["top1_low"] == pytest.approx(100 * 12 / (12 + 1.96**2), abs=0.1)  # Wilson's, not 100


def test_few_labels_from_a_csv_with_as_little_as_two_of_each(tmp_path: Path) -> None:
    tiny.folder(tmp_path, classes=2, images=3)
    rows = [f"{kind}/{number:03d}.jpg,{kind}" for kind in ("circle", "square") for number in range(2)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    protocol = replace(classification.few_labels(32), repeats=2)
    result = protocol.run(subject(), csv_source(tmp_path / "labels.csv"), machine=machine(cache=tmp_path / "cache"))
    assert result.detail["folds"] == 2
    assert result.detail["images"] == 4
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows[:3]]))
    with pytest.raises(UserError, match="one labelled image only of square"):
        protocol.run(subject(), csv_source(tmp_path / "labels.csv"), machine=machine(cache=tmp_path / "cache"))


def test_clustering_finds_the_tints(tmp_path: Path) -> None:
    source = splits(train=60, test=6).train
    result = classification.clustering(32).run(subject(), source, machine=machine(cache=tmp_path))
    assert result.detail["clusters"] == 6
    assert 0.4 < result.metrics["nmi"] <= 1
    assert -0.5 < result.metrics["ari"] <= 1
    shuffled = ArraySource(
        source.pixels, np.random.default_rng(0).permutation(source.labels), name="x", classes=source.classes
    )
    unrelated = classification.clustering(32).run(subject(), shuffled, machine=machine(cache=tmp_path))
    assert unrelated.metrics["nmi"] < result.metrics["nmi"]
    assert abs(unrelated.metrics["ari"]) < 0.1
    assert normalized_mutual_info_score([0, 0, 1, 1], [5, 5, 3, 3]) == 1  # the convention that nmi is printed in
    with pytest.raises(UserError, match="61 clusters of 60 images"):
        replace(classification.clustering(32), clusters=61).run(subject(), source, machine=machine(cache=tmp_path))


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_retrieval_is_recall_written_out(tmp_path: Path, gallery: str) -> None:
    data = splits(train=50, test=41)
    run = machine(cache=tmp_path)
    result = replace(classification.retrieval(32), gallery=gallery).run(subject(), data, machine=run)
    unit = {
        name: (lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True))(
            np.asarray(features_of(subject(), source, EXTRACTION, machine=run).pooled, np.float64)
        )
        for name, source in (("train", data.train), ("test", data.test))
    }
    labels = {"train": data.train.labels, "test": data.test.labels}
    for k in (1, 5, 10):
        found = 0
        for query in range(41):
            similarity = unit[gallery] @ unit["test"][query]
            if gallery == "test":
                similarity[query] = -np.inf
            nearest = np.argsort(-similarity)[:k]
            found += labels["test"][query] in labels[gallery][nearest]
        assert result.metrics[f"recall_at_{k}"] == pytest.approx(100 * found / 41)
    assert result.data.images == (91 if gallery == "train" else 41)


def test_unlabelled_images_are_told(tmp_path: Path) -> None:
    source = ArraySource(tiny.pixels(12), None, name="photos")
    for protocol in (classification.few_labels(32), classification.clustering(32)):
        with pytest.raises(UserError, match="photos"):
            protocol.run(subject(), source, machine=machine(cache=tmp_path))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cost_is_chosen_as_by_scikit_learns_grid(seed: int) -> None:
    recipe = replace(classification.few_labels(32), costs=(0.0001, 0.01, 1.0))
    random = np.random.default_rng(seed)
    labels = np.arange(24) % 3
    rows = random.normal(size=(24, 8)).astype(np.float32) + random.normal(size=(3, 8)).astype(np.float32)[labels]
    asked = random.normal(size=(200, 8)).astype(np.float32)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": list(recipe.costs)},
        cv=StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed),
    )
    expected = grid.fit(rows, labels).predict(asked)
    np.testing.assert_array_equal(recipe._logistic(rows, labels, asked, seed), expected)
