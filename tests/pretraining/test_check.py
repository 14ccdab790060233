"""`Monitor.check` against every measure's formula, written out in numpy on the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from simsiam.config import Model
from simsiam.data.preprocess import Preprocess
from simsiam.data.source import ArraySource
from simsiam.model import SimSiam
from simsiam.pretraining.measures import Labelled, distinct_scenes, mean_cosine_of_others, view_hits
from simsiam.pretraining.monitor import Monitor
from simsiam.pretraining.verdict import Check
from tests import tiny
from tests.data.published import views

IMAGES = 40
VIEWS = views(size=16)
PLAIN = Preprocess(kind="center", resize=16, size=16, mean=VIEWS.mean, std=VIEWS.std)
Arrays = dict[str, np.ndarray]


def network(seed: int = 0) -> SimSiam:
    """A network whose running statistics are those of some training, so that the modes differ."""
    torch.manual_seed(seed)
    made = SimSiam(
        Model(
            backbone="resnet8",
            width=8,
            stem="small",
            projector_layers=2,
            projector_hidden=24,
            projector_dim=16,
            predictor="mlp",
            predictor_dim=8,
            stop_gradient="on",
            heads_norm="default",
        )
    )
    for _ in range(3):
        made(torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16))
    return made


@pytest.fixture
def source() -> ArraySource:
    return ArraySource(tiny.pixels(IMAGES, size=16), np.arange(IMAGES) % 3, name="pictures")


@pytest.fixture
def monitor(source: ArraySource) -> Monitor:
    labelled = Labelled(references=source, queries=source, own_row="skip")
    return Monitor(source, labelled, views=VIEWS, seed=3, device=torch.device("cpu"))


def outputs(monitor: Monitor, model: SimSiam) -> Arrays:
    """Features, projections and predictions in evaluation mode, and the features of the plain images."""
    model.eval()
    with torch.no_grad():
        x1, x2 = (torch.cat(column) for column in zip(*monitor.pairs(), strict=True))
        f1, f2 = model.backbone(x1), model.backbone(x2)
        z1, z2 = model.projector(f1), model.projector(f2)
        named: dict[str, Tensor] = {"f1": f1, "f2": f2, "z1": z1, "z2": z2, "p1": model.predictor(z1)}
        assert monitor.held_out.pixels is not None
        named["plain"] = model.backbone(PLAIN.apply_pixels(monitor.held_out.pixels, torch.device("cpu")))
    model.train()
    return {name: value.double().numpy() for name, value in named.items()}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def entropy_rank(rows: np.ndarray) -> float:
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    share = values[values > 1e-9] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def neighbours(rows: np.ndarray, k: int) -> list[set[int]]:
    """The k nearest of every row, itself left out."""
    similarity = unit(rows) @ unit(rows).T
    np.fill_diagonal(similarity, -np.inf)
    return [set(np.argsort(-line)[:k].tolist()) for line in similarity]


def test_every_number_is_its_formula(monitor: Monitor, source: ArraySource) -> None:
    model = network()
    found = monitor.check(model, epoch=4, step=321)
    out = outputs(monitor, model)
    assert isinstance(found, Check)
    assert (found.epoch, found.step, found.candidates) == (4, 321, IMAGES)
    assert found.spread == pytest.approx(unit(out["z1"]).std(0, ddof=1).mean() * 16**0.5, rel=1e-4)
    assert found.rank_z == pytest.approx(entropy_rank(unit(out["z1"])), rel=1e-3)
    assert found.rank_features == pytest.approx(entropy_rank(out["f1"]), rel=1e-3)
    cosines = unit(out["p1"]) @ unit(out["z2"]).T
    assert found.alignment_pairs == pytest.approx(np.diag(cosines).mean(), abs=1e-5)
    others = cosines[~np.eye(IMAGES, dtype=bool)]  # every pair of different images
    assert found.alignment_random == pytest.approx(others.mean(), abs=1e-5)
    nearest = (unit(out["f1"]) @ unit(out["f2"]).T).argmax(1)
    assert found.view_recall == pytest.approx(100 * (nearest == np.arange(IMAGES)).mean())
    assert found.neighbour_stability is None
    assert source.labels is not None
    assert found.knn == pytest.approx(literal_knn(out["plain"], source.labels))


def test_the_formulae_tell_what_they_might_be_confused_with(monitor: Monitor) -> None:
    """Else the test above could not fail: on this network the near misses are other numbers."""
    model = network()
    found, out = monitor.check(model, epoch=0, step=0), outputs(monitor, model)
    assert found.spread != pytest.approx(unit(out["f1"]).std(0, ddof=1).mean() * out["f1"].shape[1] ** 0.5, rel=0.01)
    assert found.rank_z != pytest.approx(entropy_rank(out["z1"]), rel=0.01)
    assert found.rank_features != pytest.approx(entropy_rank(unit(out["f1"])), rel=0.01)
    assert found.alignment_pairs != pytest.approx((unit(out["z1"]) * unit(out["z2"])).sum(1).mean(), abs=0.01)
    labels = np.arange(IMAGES) % 3
    right = literal_knn(out["plain"], labels)
    assert right != pytest.approx(literal_knn(out["plain"], labels, temperature=0.7))
    assert right != pytest.approx(literal_knn(out["plain"], labels, own_row=True))


def literal_knn(rows: np.ndarray, labels: np.ndarray, *, temperature: float = 0.07, own_row: bool = False) -> float:
    """Wu et al. 2018, section 3.4: the 20 nearest vote with weight exp(cosine / T)."""
    similarity, right = unit(rows) @ unit(rows).T, 0
    for query, line in enumerate(similarity):
        others = [n for n in np.argsort(-line) if own_row or n != query][:20]
        votes = np.zeros(3)
        for n in others:
            votes[labels[n]] += np.exp(line[n] / temperature)
        right += int(votes.argmax() == labels[query])
    return 100 * right / len(rows)


def test_the_network_is_measured_in_evaluation_mode_and_left_as_it_was(monitor: Monitor) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = monitor.check(model, epoch=0, step=0)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    second = monitor.check(model, epoch=0, step=0)
    assert not model.training
    assert (first.spread, first.knn, first.alignment_pairs) == (second.spread, second.knn, second.alignment_pairs)


def test_neighbours_in_the_order_of_files_are_not_other_images() -> None:
    """Five cameras with frames in the order of time: the next image is nearly the same one, a random one is not."""
    scenes = torch.eye(5, 64).repeat_interleave(48, 0) - 0.2 * torch.eye(5, 64).sum(0)
    p = scenes + 0.01 * torch.randn(240, 64, generator=torch.Generator().manual_seed(0))
    assert float(torch.nn.functional.cosine_similarity(p, p.roll(1, 0)).mean()) > 0.94
    assert abs(mean_cosine_of_others(p, p)) < 0.01


def test_fewer_images_than_neighbours_and_no_labels(source: ArraySource) -> None:
    few = Monitor(source.subset(np.arange(6)), views=VIEWS, seed=3)
    first, second = few.check(network(0)), few.check(network(1))
    assert few.neighbours is not None
    assert few.neighbours.shape == (6, 5)  # all the others
    assert second.neighbour_stability == 1.0
    assert (first.knn, first.queries, first.dim, first.epoch, second.epoch) == (None, 0, 16, 0, 1)


def test_near_duplicates_count_as_one_scene() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (5, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    frames = np.clip(scenes.repeat(12, 0) + rng.integers(-12, 13, (60, 64, 64, 3)), 0, 255).astype(np.uint8)
    assert distinct_scenes(ArraySource(frames, name="video")) == 5
    assert distinct_scenes(ArraySource(tiny.pixels(40), name="shapes")) == 40
    watch = Monitor(frames, size=16)
    assert watch.about == "every measure is of 60 images, of about 5 distinct scenes: the others are near-duplicates"
    assert watch.check(network()).scenes == 5


def test_moves_since_the_start_are_counted_image_by_image(monitor: Monitor, source: ArraySource) -> None:
    checks = [monitor.check(network(seed)) for seed in (0, 1)]
    hits = [
        view_hits(*(torch.from_numpy(outputs(monitor, network(seed))[name]) for name in ("f1", "f2")))
        for seed in (0, 1)
    ]
    assert checks[0].view_recall_moved == checks[0].knn_moved == (0, 0)
    wanted = (int((hits[1] > hits[0]).sum()), int((hits[1] < hits[0]).sum()))
    assert checks[1].view_recall_moved == wanted
    assert sum(wanted) > 0
    assert checks[1].knn_moved is not None
    gained, lost = checks[1].knn_moved
    assert (gained - lost) / IMAGES * 100 == pytest.approx((checks[1].knn or 0) - (checks[0].knn or 0))
    assert checks[1].chance == 100 * 14 / 40  # of three classes in turns
    later = Monitor(source, monitor.labelled, views=VIEWS, seed=3, device=torch.device("cpu"))
    later.checks = [checks[0]]  # a run of an earlier version, whose checkpoint holds no hits
    assert later.check(network(1)).view_recall_moved is None


def test_a_network_of_nans_is_measured_as_that_and_judged_as_diverged(monitor: Monitor) -> None:
    model = network()
    with torch.no_grad():
        model.backbone.get_submodule("conv1").weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    found = monitor.check(model, epoch=1, step=50)
    assert np.isnan(found.spread)
    assert monitor.verdict.status == "collapsed"
    assert "diverged" in monitor.verdict.summary


def test_stability_survives_a_resume(monitor: Monitor, source: ArraySource) -> None:
    monitor.check(network(0), epoch=0, step=0)
    wanted = monitor.check(network(1), epoch=1, step=9).neighbour_stability
    later = Monitor(source, monitor.labelled, views=VIEWS, seed=3, device=torch.device("cpu"))
    first = Monitor(source, monitor.labelled, views=VIEWS, seed=3, device=torch.device("cpu"))
    first.check(network(0), epoch=0, step=0)
    later.neighbours = first.neighbours
    assert later.check(network(1), epoch=1, step=9).neighbour_stability == wanted


def test_stability_is_the_share_of_neighbours_kept_since_the_check_before(monitor: Monitor) -> None:
    models = [network(seed) for seed in (0, 1, 2)]
    checks = [monitor.check(model, epoch=n, step=n) for n, model in enumerate(models)]
    found = [neighbours(outputs(monitor, model)["plain"], 10) for model in models]
    assert checks[0].neighbour_stability is None
    for n in (1, 2):
        kept = [len(now & then) / 10 for now, then in zip(found[n], found[n - 1], strict=True)]
        assert checks[n].neighbour_stability == pytest.approx(np.mean(kept), abs=1e-6)
        assert 0.05 < np.mean(kept) < 0.95
    assert monitor.check(models[2], epoch=3, step=3).neighbour_stability == 1.0
