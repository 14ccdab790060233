"""Low-shot: the counts of the samples, the two ways to choose a cost, sample files, and scikit-learn as oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from simsiam.data.classification.voc import voc_splits
from simsiam.errors import UserError
from simsiam.evaluation.classification.low_shot import LowShot, class_weights, generator_of, read_sample, sample_targets
from simsiam.evaluation.classification.settings import normalised
from simsiam.evaluation.classification.svm_kernel import Kernel
from simsiam.recipes import classification
from tests import tiny_voc
from tests.evaluation.classification.labelled_subjects import machine, subject

CLASSES = tuple(f"class{number:02d}" for number in range(20))


def voc_like_targets() -> np.ndarray:
    random = np.random.default_rng(0)
    targets = (random.random((3000, 20)) < 0.06).astype(np.int8)
    targets[random.random(targets.shape) < 0.01] = -1
    return targets


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 32, 64, 96])
def test_a_sample_has_k_positives_and_19_k_negatives_of_each_class(k: int) -> None:
    targets = voc_like_targets()
    sample = sample_targets(targets, k=k, generator=np.random.default_rng(k), classes=CLASSES)
    assert (sample == 1).sum(0).tolist() == [k] * 20
    assert (sample == 0).sum(0).tolist() == [19 * k] * 20
    taken = sample != -1
    np.testing.assert_array_equal(sample[taken], targets[taken])


def test_seeded_samples_repeat_and_unseeded_ones_do_not() -> None:
    targets = voc_like_targets()

    def draw(sampling: str, *, seed: int = 3, number: int = 1) -> list[int]:
        generator = generator_of(sampling, seed=seed, k=4, number=number)  # type: ignore[arg-type]
        return np.flatnonzero(sample_targets(targets, k=4, generator=generator, classes=CLASSES)[:, 0] == 1).tolist()

    assert draw("seeded") == draw("seeded")
    assert draw("seeded") != draw("seeded", number=2)
    assert draw("seeded") != draw("seeded", seed=4)
    assert draw("unseeded") != draw("unseeded")


def test_too_few_images_are_told() -> None:
    targets = voc_like_targets()
    targets[:, 3] = 0
    targets[:5, 3] = 1
    with pytest.raises(UserError, match="k = 8: class class03 has 5 positive training images and 8 are"):
        sample_targets(targets, k=8, generator=np.random.default_rng(0), classes=CLASSES)
    with pytest.raises(UserError, match="negative training images and 3800 are"):
        sample_targets(np.abs(voc_like_targets()), k=200, generator=np.random.default_rng(0), classes=CLASSES)


def test_sample_files_are_read_and_checked(tmp_path: Path) -> None:
    targets = voc_like_targets()
    sample = sample_targets(targets, k=2, generator=np.random.default_rng(0), classes=CLASSES)
    file = tmp_path / "train_targets_sample3_k2.npy"
    np.save(file, sample.astype(np.int64))
    np.testing.assert_array_equal(read_sample(tmp_path, targets, k=2, number=3, classes=CLASSES), sample)
    with pytest.raises(UserError, match=r"train_targets_sample1_k2.npy: no such sample file"):
        read_sample(tmp_path, targets, k=2, number=1, classes=CLASSES)
    np.save(file, sample[::-1])
    with pytest.raises(UserError, match="in another order"):
        read_sample(tmp_path, targets, k=2, number=3, classes=CLASSES)
    np.save(file, sample[:10])
    with pytest.raises(UserError, match=r"an array of \(10, 20\)"):
        read_sample(tmp_path, targets, k=2, number=3, classes=CLASSES)
    np.save(tmp_path / "train_targets_sample3_k4.npy", sample)
    with pytest.raises(UserError, match="class00 has 2 labels of 1; expected 4"):
        read_sample(tmp_path, targets, k=4, number=3, classes=CLASSES)
    file.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"not a plain \.npy array"):
        read_sample(tmp_path, targets, k=2, number=3, classes=CLASSES)


def test_each_class_is_trained_on_its_own_images_as_scikit_learn_would() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((300, 3)) < 0.3).astype(np.int8)
    features = normalised(np.abs(random.standard_normal((300, 150)) + 0.3 * targets @ random.standard_normal((3, 150))))
    sample = sample_targets(targets, k=6, generator=random, classes=("a", "b", "c"))
    costs = (1.0, 100.0, 2.0**-9)
    weights = class_weights(Kernel(torch.from_numpy(features)), sample, costs=costs, positive_weight=2.0)
    for column in range(3):
        rows = sample[:, column] != -1
        assert rows.sum() == 18
        for place, cost in enumerate(costs):
            oracle = LinearSVC(C=cost, dual=True, class_weight={1: 2, -1: 1}, tol=1e-10, max_iter=1_000_000)
            oracle.fit(features[rows], np.where(sample[rows, column] == 1, 1, -1))
            found = features @ weights[:-1, column, place] + weights[-1, column, place]
            np.testing.assert_allclose(found, oracle.decision_function(features), atol=1e-4)


def recipe(**changes: object) -> LowShot:
    return replace(classification.low_shot_voc07(32), k=(1, 4), samples=3, costs=(1.0, 0.01, 2.0**-12), **changes)


def test_from_a_voc_tree_to_the_table_row(tmp_path: Path) -> None:
    data = voc_splits(tiny_voc.tree(tmp_path, train=60, test=40))
    run = machine(tmp_path / "out", cache=tmp_path / "cache")
    result = recipe().run(subject(), data, machine=run)
    assert set(result.metrics) == {"k1", "k4"}
    assert result.protocol == "low_shot_voc07"
    assert result.detail["cost_selection"] == "unused training images"
    for k in ("k1", "k4"):
        maps = result.detail["by_sample"][k]
        assert len(maps) == 3
        assert result.metrics[k] == pytest.approx(np.mean(maps))
        assert result.detail["std"][k] == pytest.approx(np.std(maps))
        assert result.detail["min"][k] == min(maps)
        assert result.detail["cost"][k] in (1.0, 0.01, 2.0**-12)
    assert recipe().run(subject(), data, machine=run).metrics == result.metrics
    other = recipe().run(replace(subject(), seed=1), data, machine=run)
    assert other.metrics != result.metrics
    # with the same samples, the cost that is best on the test set can only do better there
    on_test = recipe(selection="test").run(subject(), data, machine=run)
    assert all(on_test.metrics[k] >= result.metrics[k] for k in ("k1", "k4"))
    assert "optimistic" in " ".join(on_test.notes)
    published = replace(
        classification.low_shot_voc07_published(32), k=(1, 2), samples=2, costs=(1.0, 0.01), layer="feature3"
    )
    assert published.run(subject(), data, machine=run).detail["sampling"] == "unseeded"
    with pytest.raises(UserError, match="no layer 'feature9'; this backbone gives feature1"):
        recipe(layer="feature9").run(subject(), data, machine=run)


def test_sample_files_from_end_to_end(tmp_path: Path) -> None:
    data = voc_splits(tiny_voc.tree(tmp_path, train=60, test=40))
    for number in (1, 2, 3):
        for k in (1, 4):
            sample = sample_targets(
                data.train.targets, k=k, generator=np.random.default_rng([0, k, number]), classes=data.train.classes
            )
            np.save(tmp_path / f"train_targets_sample{number}_k{k}.npy", sample)
    run = machine(cache=tmp_path / "cache")
    seeded = recipe().run(subject(), data, machine=run)
    from_files = recipe(sampling="files", sample_files=tmp_path).run(subject(), data, machine=run)
    assert from_files.metrics == seeded.metrics  # the files hold what the seed draws
    assert from_files.recipe["sample_files"] == str(tmp_path)
