"""kNN against scikit-learn's brute force and the vote written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from simsiam.errors import UserError
from simsiam.evaluation.classification.knn import knn_scores
from simsiam.features.neighbours import nearest, vote
from simsiam.recipes import classification
from simsiam.results import Result
from tests.evaluation.classification.labelled_subjects import machine, splits, subject


def features(rows: int, *, seed: int, channels: int = 24) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, channels)) + 0.5).astype(np.float32)


@pytest.mark.parametrize(("reference_rows", "query_rows"), [(7, 5), (64, 16), (1000, 1000)])
def test_neighbours_are_those_of_scikit_learn(reference_rows: int, query_rows: int) -> None:
    queries, references = features(40, seed=0), features(500, seed=1)
    oracle = NearestNeighbors(n_neighbors=30, metric="cosine", algorithm="brute").fit(references.astype(np.float64))
    distance, index = oracle.kneighbors(queries.astype(np.float64))
    found = nearest(queries, references, k=30, device="cpu", reference_rows=reference_rows, query_rows=query_rows)
    np.testing.assert_array_equal(found.index.numpy(), index)
    np.testing.assert_allclose(found.similarity.numpy(), 1 - distance, atol=1e-6)


def test_a_row_can_be_kept_from_finding_itself() -> None:
    rows = features(90, seed=2)
    oracle = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(rows).kneighbors(rows)[1]
    found = nearest(rows, rows, k=10, device="cpu", own_row="skip", reference_rows=16, query_rows=7)
    np.testing.assert_array_equal(found.index.numpy(), oracle[:, 1:])
    itself = nearest(rows, rows, k=1, device="cpu", reference_rows=16, query_rows=7)
    np.testing.assert_array_equal(itself.index[:, 0].numpy(), np.arange(90))


def test_half_precision_and_memory_mapped_references(tmp_path: Path) -> None:
    queries, references = features(20, seed=3), features(300, seed=4).astype(np.float16)
    np.save(tmp_path / "references.npy", references)
    mapped = np.load(tmp_path / "references.npy", mmap_mode="r")
    found = nearest(queries, mapped, k=5, device="cpu", reference_rows=50)
    whole = nearest(queries, references.astype(np.float32), k=5, device="cpu")
    assert torch.equal(found.index, whole.index)
    brain = torch.from_numpy(queries).bfloat16()
    assert torch.equal(
        nearest(brain, mapped, k=5, device="cpu").index, nearest(brain.float(), mapped, k=5, device="cpu").index
    )


def test_scores_are_the_weighted_vote_written_out() -> None:
    queries, references = features(60, seed=5), features(400, seed=6)
    random = np.random.default_rng(7)
    labels, truth = random.integers(0, 7, 400), random.integers(0, 7, 60)
    distance, index = (
        NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(references).kneighbors(queries)
    )
    for k in (1, 5, 20):
        score = next(
            s
            for s in knn_scores(
                queries, truth, references, labels, k=(1, 5, 20), temperature=0.07, classes=7, device="cpu"
            )
            if s.k == k
        )
        top1 = top5 = 0
        for row in range(60):
            votes = np.zeros(7)
            for neighbour in range(k):
                votes[labels[index[row, neighbour]]] += np.exp((1 - distance[row, neighbour]) / 0.07)
            ranked = [c for c in np.argsort(-votes)[:5] if votes[c] > 0]
            assert score.predictions[row] == ranked[0]
            top1 += ranked[0] == truth[row]
            top5 += truth[row] in ranked
        assert score.top1 == pytest.approx(100 * top1 / 60)
        assert score.top5 == pytest.approx(100 * top5 / 60)


def test_votes_add_up_per_class() -> None:
    found = nearest(features(3, seed=8), features(9, seed=9), k=4, device="cpu")
    scores = vote(found, torch.tensor([0, 1, 2] * 3), k=4, temperature=0.5, classes=3)
    torch.testing.assert_close(scores.sum(1), (found.similarity / 0.5).exp().sum(1))


def test_mistakes_are_told() -> None:
    rows = features(10, seed=10)
    with pytest.raises(UserError, match="k = 11 neighbours were asked of 10"):
        nearest(rows, rows, k=11, device="cpu")
    with pytest.raises(UserError, match="k <= 9"):
        nearest(rows, rows, k=10, device="cpu", own_row="skip")
    with pytest.raises(UserError, match="24 channels and references 8"):
        nearest(rows, features(10, seed=0, channels=8), k=1, device="cpu")
    broken = rows.copy()
    broken[7, 3] = np.nan
    with pytest.raises(UserError, match=r"reference features hold a NaN .*row 7"):
        nearest(rows, broken, k=1, device="cpu", reference_rows=4)
    with pytest.raises(UserError, match="query features hold a NaN"):
        nearest(broken, rows, k=1, device="cpu")
    with pytest.raises(UserError, match=r"labels must lie in 0 \.\.\. 1"):
        knn_scores(rows, np.full(10, 2), rows, np.zeros(10, int), k=(1,), temperature=1.0, classes=2, device="cpu")


def test_protocol_from_images_to_result(tmp_path: Path) -> None:
    from dataclasses import replace

    protocol = replace(classification.knn(32), k=(5, 20, 80), quoted_k=20)
    data = splits(train=90, test=41)
    result = protocol.run(subject(), data, machine=machine(tmp_path / "out", cache=tmp_path / "cache"))
    assert Result.read(tmp_path / "out" / "result.json").metrics == result.metrics
    assert result.protocol == "knn"
    assert set(result.metrics) == {f"top{top}_k{k}" for top in (1, 5) for k in (5, 20, 80)}
    assert result.metrics["top1_k20"] > 60  # six tints; chance is 17
    confusion = np.array(result.detail["confusion"])
    assert confusion.sum() == 41
    assert 100 * np.trace(confusion) / 41 == pytest.approx(result.metrics["top1_k20"])
    assert len({result.metrics[f"top1_k{k}"] for k in (5, 20, 80)}) == 3  # so that the line above tells them apart
    assert result.recipe["temperature"] == 0.07
    assert result.data.images == 131
    again = protocol.run(subject(), data, machine=machine(cache=tmp_path / "cache"))
    assert again.metrics == result.metrics
    with pytest.raises(UserError, match="k = 200 neighbours were asked of 90"):
        classification.knn(32).run(subject(), data, machine=machine(cache=tmp_path / "cache"))
