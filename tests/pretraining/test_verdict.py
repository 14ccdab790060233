"""The verdict on hand-made numbers, and on small networks that are trained here: healthy, and forced to collapse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from simsiam import cli
from simsiam.pretraining.verdict import Check, Verdict, judge
from simsiam.recipes.pretrain import RECIPES
from simsiam.results import Result, read_metrics
from tests import tiny

START = Check(
    epoch=0,
    step=0,
    spread=0.4,
    rank_z=12.0,
    rank_features=9.0,
    alignment_pairs=0.1,
    alignment_random=0.1,
    view_recall=5.0,
    candidates=200,
)
GOOD = dataclasses.replace(
    START, epoch=5, step=500, spread=0.95, rank_z=14.0, alignment_pairs=0.7, alignment_random=0.1, view_recall=20.0
)


def verdict(**changes: float) -> Verdict:
    return judge([START, dataclasses.replace(GOOD, **changes)], RECIPES["cifar10"](), images=50_000)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "healthy"),
        ({"alignment_pairs": 0.97}, "healthy"),  # a loss near -1 alone is no collapse
        ({"spread": 0.1}, "collapsed"),
        ({"spread": 0.4}, "partial collapse"),
        ({"rank_z": 1.2}, "collapsed"),
        ({"rank_z": 4.0}, "partial collapse"),
        ({"rank_z": 5.5}, "partial collapse"),  # less than half of the untrained network's 12
        ({"alignment_random": 0.99}, "collapsed"),
        ({"alignment_pairs": 0.95, "rank_z": 5.0, "view_recall": 5.0}, "collapsed"),
        ({"spread": float("nan")}, "collapsed"),
        ({"step": 5}, "too early to say"),
    ],
)
def test_the_verdict_on_numbers(changes: dict[str, float], status: str) -> None:
    found = verdict(**changes)
    assert found.status == status
    if status in ("collapsed", "partial collapse"):
        assert found.causes
        assert found.evidence


def test_a_diverged_loss_is_a_collapse() -> None:
    found = judge([START], RECIPES["cifar10"](), diverged="loss nan at step 40")
    assert found.status == "collapsed"
    assert "step 40" in found.summary


def test_the_likeliest_cause_comes_first() -> None:
    base = RECIPES["cifar10"]()
    bad = dataclasses.replace(GOOD, spread=0.01)
    ablation = dataclasses.replace(base, model=dataclasses.replace(base.model, stop_gradient="off"))
    assert "stop-gradient" in judge([START, bad], ablation).causes[0].cause
    fast = dataclasses.replace(base, base_lr=5.0)
    assert "--base-lr" in judge([START, bad], fast).causes[0].cure
    assert "images" in judge([START, bad], base, images=300).causes[0].cause


NETWORK = (
    "--views.size 16 --model.width 8 --model.projector-hidden 0 --model.projector-dim 64 --model.predictor-dim 16 "
    "--device cpu --monitor-every 10 --on-collapse warn --epochs 40 --monitor-images 200"
).split()

TRAINED = {
    "healthy": (["--base-lr", "0.2"], ("healthy",)),
    "healthy at a higher rate": (["--base-lr", "0.5"], ("healthy",)),
    "no stop-gradient": (["--base-lr", "0.5", "--model.stop-gradient", "off"], ("collapsed", "partial collapse")),
    "no predictor": (["--base-lr", "0.5", "--model.predictor", "none"], ("collapsed", "partial collapse")),
    "rate far too high": (["--base-lr", "100"], ("collapsed", "partial collapse")),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photo_cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("case", sorted(TRAINED))
def test_the_verdict_on_trained_networks(
    case: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(cache))
    flags, allowed = TRAINED[case]
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "--recipe", "demo", *NETWORK, *flags, "--out", str(tmp_path / "run")])
    result = Result.read(tmp_path / "run" / "result.json")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "monitor"]
    status = result.detail["verdict"]["status"]
    assert status in allowed, rows
    assert end.value.code == {"healthy": 0, "collapsed": 3, "partial collapse": 4}[status]
