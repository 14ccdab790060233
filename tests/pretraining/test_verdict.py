"""The verdict on hand-made numbers, and on small networks that are trained here: healthy, and forced to collapse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from simsiam import cli
from simsiam.pretraining.verdict import Check, Verdict, as_json, from_json, judge
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
        ({"rank_z": 5.5, "view_recall": 5.0}, "partial collapse"),  # less than half of the untrained network's 12
        ({"rank_z": 5.5}, "healthy"),  # ... while views find each other more often
        ({"rank_z": 4.51, "view_recall": 20.0}, "healthy"),
        ({"alignment_random": 0.86}, "collapsed"),
        ({"alignment_random": 0.84, "alignment_pairs": 0.9}, "healthy"),
        ({"alignment_random": 0.85, "alignment_pairs": 0.9}, "healthy"),  # at a limit the milder word
        ({"spread": 0.15}, "partial collapse"),
        ({"spread": 0.5}, "healthy"),
        ({"rank_z": 2.5}, "partial collapse"),
        ({"alignment_pairs": 0.9, "rank_z": 5.0, "view_recall": 5.0}, "partial collapse"),
        ({"candidates": 9, "spread": 0.001}, "too few images to tell"),
        ({"candidates": 10, "rank_z": 6.0, "view_recall": 10.0}, "healthy"),
        ({"spread": 0.149}, "collapsed"),
        ({"spread": 0.151}, "partial collapse"),
        ({"spread": 0.499}, "partial collapse"),
        ({"spread": 0.501}, "healthy"),
        ({"rank_z": 2.49}, "collapsed"),
        ({"rank_z": 2.51}, "partial collapse"),
        ({"rank_z": 6.01}, "healthy"),
        ({"alignment_pairs": 0.95, "rank_z": 5.0, "view_recall": 5.0}, "collapsed"),
        ({"alignment_pairs": 0.89, "rank_z": 5.0, "view_recall": 5.0}, "partial collapse"),  # not solved yet
        ({"alignment_pairs": 0.95, "rank_z": 4.0, "view_recall": 5.5}, "partial collapse"),  # it has learnt
        ({"alignment_pairs": 0.95, "view_recall": 5.0}, "healthy"),  # no sign of a collapse in part
        ({"spread": float("nan")}, "collapsed"),
        ({"step": 19}, "too early to say"),
        ({"step": 20}, "healthy"),
    ],
)
def test_the_verdict_on_numbers(changes: dict[str, float], status: str) -> None:
    found = verdict(**changes)
    assert found.status == status
    if status in ("collapsed", "partial collapse"):
        assert found.causes
        assert found.evidence


@pytest.mark.parametrize("images", [2, 3, 4, 6, 9])  # of 20, 25, 30, 40, 60 and 90 photos
def test_a_handful_of_images_is_too_few_to_tell(images: int) -> None:
    """A rank cannot exceed the number of images less one, whatever the network does."""
    most = float(images - 1)
    changes = {"candidates": images, "rank_z": 0.9 * most, "rank_features": 0.8 * most}
    assert verdict(**changes).status == "too few images to tell"
    assert verdict(**changes, spread=0.3, alignment_random=0.9).status == "too few images to tell"
    assert verdict(**changes, spread=0.0005).status == "collapsed"  # the same numbers for every image


def test_frames_of_few_scenes_are_too_few_to_tell() -> None:
    found = verdict(scenes=5, rank_z=3.0)
    assert found.status == "too few images to tell"
    assert "200 held-out images show 5 scenes" in found.summary
    assert verdict(scenes=5, rank_z=1.1, spread=0.04).status == "collapsed"


@pytest.mark.parametrize(
    ("changes", "rank", "status"),
    [
        ({"candidates": 12}, 1.2, "collapsed"),  # of 11: below 1.32
        ({"candidates": 12}, 1.4, "partial collapse"),  # below 2.75
        ({"candidates": 12}, 2.8, "healthy"),
        ({"candidates": 200, "scenes": 12}, 2.8, "healthy"),
        ({"candidates": 200, "dim": 11}, 2.8, "healthy"),
        ({"candidates": 200, "dim": 64}, 2.8, "partial collapse"),
    ],
)
def test_ranks_are_judged_beside_the_most_that_can_be(changes: dict[str, float], rank: float, status: str) -> None:
    start = dataclasses.replace(START, rank_z=min(12.0, 2 * rank), **changes)
    found = judge([start, dataclasses.replace(GOOD, rank_z=rank, **changes)], RECIPES["cifar10"]())
    assert found.status == status


def judged(*checks: dict[str, float], start: str = "the untrained network") -> Verdict:
    made = [dataclasses.replace(GOOD, epoch=n, **{"step": 100 * n, **changes}) for n, changes in enumerate(checks)]
    return judge(made, RECIPES["cifar10"](), start=start)


def test_a_run_that_is_worse_than_its_start_is_told_so_with_its_best_epoch() -> None:
    given = {"knn": 92.5, "queries": 200}
    fell = judged(given, {**given, "knn": 93.0}, {**given, "knn": 82.5}, start="the weights it started from (x.pth)")
    assert fell.status == "worse than its start"
    assert fell.evidence == [
        "kNN accuracy is 82.5 %, down from 92.5 % of the weights it started from (x.pth); "
        "the best weights since then are of epoch 1: 93.0 %"
    ]
    assert judged(given, {**given, "knn": 91.0}).status == "healthy"  # within chance of 200 images
    assert judged({"knn": 60.0, "queries": 50}, {"knn": 10.0, "queries": 50}).status == "worse than its start"
    without_labels = judged({"view_recall": 37.5}, {"view_recall": 20.0})
    assert without_labels.status == "worse than its start"
    assert without_labels.evidence == ["view retrieval is 20.0 %, down from 37.5 % of the untrained network"]


def test_labels_have_the_last_word_where_view_retrieval_falls() -> None:
    known = {"queries": 200, "view_recall": 40.0, "knn": 50.0}
    assert judged(known, {**known, "view_recall": 10.0, "knn": 80.0}).status == "healthy"
    assert judged(known, {**known, "view_recall": 10.0}).status == "worse than its start"
    assert judged(known, {**known, "view_recall": 90.0, "knn": 20.0}).status == "worse than its start"


def test_falls_are_tested_on_the_same_images() -> None:
    """185 of 200 before, 175 now: by the counts alone no clear fall; it is one where no image was gained."""
    before, now = {"knn": 92.5, "queries": 200}, {"knn": 87.5, "queries": 200}
    assert judged(before, now).status == "healthy"
    assert judged(before, {**now, "knn_moved": (0, 10)}).status == "worse than its start"
    assert judged(before, {**now, "knn_moved": [12, 22]}).status == "healthy"
    assert judged(before, {**now, "knn_moved": (0, 7)}).status == "healthy"  # 2 of 128 by chance, and tests are many
    assert judged(before, {**now, "knn_moved": (0, 8)}).status == "worse than its start"  # 2 of 256
    assert judged({}, {"view_recall_moved": (1, 14)}).status == "worse than its start"


def test_a_fall_to_chance_is_a_collapse() -> None:
    before = {"knn": 60.0, "queries": 200, "chance": 25.0}
    fallen = judged(before, {**before, "knn": 26.0})
    assert fallen.status == "collapsed"
    assert fallen.evidence[0].endswith(
        "kNN accuracy is 26.0 %, down from 60.0 % of the untrained network; chance is 25.0 %"
    )
    assert judged(before, {**before, "knn": 33.5}).status == "worse than its start"  # 67 of 200: better than guessing
    assert judged({"view_recall": 37.5}, {"view_recall": 0.5}).status == "collapsed"  # 1 of 200
    assert judged({"view_recall": 37.5}, {"view_recall": 3.0}).status == "worse than its start"


def test_a_collapse_that_one_check_alone_shows_waits_for_the_next() -> None:
    bad = {"alignment_random": 0.92, "spread": 0.24}
    assert judged({}, bad).status == "collapsed"  # there is no check to set it against
    once = judged({}, {}, bad)
    assert once.status == "partial collapse"
    assert "no check before showed it; the next one decides" in once.evidence
    assert judged({}, {}, bad, bad).status == "collapsed"
    assert judged({}, {}, bad, {}).status == "healthy"
    assert judged({}, {}, {"spread": 0.04}).status == "collapsed"  # one point
    assert judged({}, {"step": 5}, bad).status == "collapsed"  # the check before came too early to say


def test_blank_images_teach_nothing_and_are_named() -> None:
    found = verdict(scenes=1, alignment_pairs=0.1, alignment_random=0.1)
    assert found.status == "not learning"
    assert "(different pictures: 1 of 200 held out)" in found.causes[0].cause
    assert verdict(scenes=1).status == "too few images to tell"  # a camera that does not move
    five = verdict(scenes=5, alignment_pairs=0.1, alignment_random=0.1)
    assert five.status == "too few images to tell"  # cameras that do not move
    few = verdict(candidates=9, alignment_pairs=0.1, alignment_random=0.1)
    assert few.status == "too few images to tell"


def test_views_without_augmentation_teach_nothing() -> None:
    recipe = RECIPES["cifar10"]()
    plain = dataclasses.replace(recipe, views=dataclasses.replace(recipe.views, min_scale=1.0, jitter_probability=0.0))
    start = dataclasses.replace(START, view_recall=100.0)
    end = dataclasses.replace(GOOD, view_recall=100.0)
    found = judge([start, end], plain)
    assert found.status == "not learning"
    assert "differ too little" in found.causes[0].cause
    assert judge([start, end], recipe).status == "healthy"  # good weights find every view from the start
    assert judge([START, GOOD], plain).status == "healthy"


def test_projections_around_one_point_in_all_directions_speak_of_missing_batchnorm() -> None:
    causes = verdict(spread=0.14, alignment_random=0.98).causes
    assert "no BatchNorm in the heads" in causes[0].cause
    assert "no BatchNorm" not in verdict(spread=0.14, rank_z=3.0).causes[0].cause


def test_views_that_are_no_closer_than_other_images_are_not_healthy() -> None:
    assert verdict(alignment_pairs=0.119, alignment_random=0.1).status == "not learning"
    assert verdict(alignment_pairs=0.121, alignment_random=0.1).status == "healthy"


def test_features_along_one_direction_are_not_healthy() -> None:
    assert verdict(rank_features=1.0).status == "partial collapse"
    assert verdict(rank_features=1.49).status == "partial collapse"
    assert verdict(rank_features=1.51).status == "healthy"


def test_without_a_recipe_the_causes_name_no_flags_of_one() -> None:
    found = judge([START, dataclasses.replace(GOOD, spread=0.01)])
    assert found.status == "collapsed"
    assert "the learning rate is too high" in [cause.cause for cause in found.causes]


def test_a_verdict_survives_its_file() -> None:
    found = verdict(spread=0.1)
    assert from_json(json.loads(json.dumps(as_json(found)))) == found


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
    bad = dataclasses.replace(bad, rank_z=1.2)
    assert "images" in judge([START, bad], base, images=300).causes[0].cause


def cures(batch_size: int = 512, base_lr: float = 0.03, images: int = 50_000, **changes: object) -> dict[str, str]:
    """The cure by the first word or two of its cause, for a collapsed run."""
    recipe = dataclasses.replace(RECIPES["cifar10"](), batch_size=batch_size, base_lr=base_lr, **changes)
    found = judge([START, dataclasses.replace(GOOD, spread=0.01)], recipe, images=images)
    return {cause.cause: cause.cure for cause in found.causes}


def cure(word: str, **recipe: object) -> str | None:
    return next((cure for cause, cure in cures(**recipe).items() if word in cause), None)  # type: ignore[arg-type]


def test_the_cures_by_number() -> None:
    assert cure("far above the published", base_lr=1.0) is None
    assert cure("far above the published", base_lr=4.0) == "--base-lr 0.4"  # a tenth
    assert cure("far above the published", base_lr=1.01) == "--base-lr 0.101"
    assert cure("weight decay", weight_decay=0.01) is None
    assert cure("weight decay", weight_decay=0.02) == "--weight-decay 0.0005"
    narrow = dataclasses.replace(RECIPES["cifar10"]().model, width=4)
    assert "--model.width 32" in (cure("the network is small: 4 channels", model=narrow) or "")
    assert cure("the network is small") is None
    plain = dataclasses.replace(RECIPES["cifar10"]().views, jitter_probability=0.0)
    assert "--views.jitter-probability 0.8" in (cure("colour jitter in 0%", views=plain) or "")
    whole = dataclasses.replace(RECIPES["cifar10"]().views, min_scale=0.7)
    assert "--views.min-scale 0.2" in (cure("crops from 0.7 of the area", views=whole) or "")
    assert cure("differ too little: crops") is None
    assert cure("too high for this data set", base_lr=0.06, epochs=100) == "--base-lr 0.02, and --warmup-epochs 10"
    assert cure("too high for this data set", base_lr=0.06, epochs=5) == "--base-lr 0.02, and --warmup-epochs 1"
    assert cure("steady statistics", batch_size=32) is None
    assert cure("steady statistics", batch_size=31) == "--batch-size 64"
    assert cure("SGD fails", batch_size=2048) is None
    assert cure("SGD fails", batch_size=2049) == "--batch-size 512"
    assert cure("few for a network", images=2000) is None
    assert "more images" in (cure("1,999 images are few for a network", images=1999) or "")
    assert cure("few for a network", images=0) is None  # not known
    assert cure("predictor's rate decays", predictor_lr="cosine") == "--predictor-lr fixed"
    assert cure("predictor's rate decays") is None
    ablation = dataclasses.replace(RECIPES["cifar10"]().model, predictor="none")
    assert cure("no predictor", model=ablation) == "--model.predictor mlp"


NETWORK = (
    "--views.size 16 --model.width 8 --model.projector-hidden 0 --model.projector-dim 64 --model.predictor-dim 16 "
    "--device cpu --on-collapse warn"
).split()
COLLAPSE = ("collapsed", "partial collapse")
TRAINED = {  # the flags, the rates of eight and of forty epochs, and what may be found
    "healthy": ([], ("0.2", "0.2"), ("healthy",)),
    "healthy at a higher rate": ([], ("0.5", "0.5"), ("healthy",)),
    "no stop-gradient": (["--model.stop-gradient", "off"], ("5", "0.5"), COLLAPSE),
    "no predictor": (["--model.predictor", "none"], ("5", "0.5"), COLLAPSE),
    "rate far too high": ([], ("100", "100"), COLLAPSE),
}


@pytest.fixture(scope="module", params=[8, pytest.param(40, marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A cache of 480 pictures for 8 epochs, or of 960 for 40."""
    epochs = int(request.param)
    train, test = (480, 100) if epochs == 8 else (960, 200)
    return tiny.photo_cache(tmp_path_factory.mktemp("cache"), train=train, test=test), epochs


@pytest.mark.parametrize("case", sorted(TRAINED))
def test_the_verdict_on_trained_networks(
    case: str, trained: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, epochs = trained
    monkeypatch.setenv("SIMSIAM_CACHE", str(cache))
    flags, rates, allowed = TRAINED[case]
    often = ["--epochs", str(epochs), "--monitor-every", str(max(4, epochs // 4)), "--monitor-images", "200"]
    often += ["--base-lr", rates[epochs > 8]]
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "--recipe", "demo", *NETWORK, *flags, *often, "--out", str(tmp_path / "run")])
    result = Result.read(tmp_path / "run" / "result.json")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "monitor"]
    status = result.detail["verdict"]["status"]
    assert status in allowed, rows
    assert end.value.code == {"healthy": 0, "collapsed": 3, "partial collapse": 4}[status]
