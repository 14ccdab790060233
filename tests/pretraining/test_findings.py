"""`simsiam reproduce`: its recipes, how outcomes are judged, and two findings run at the smallest scale."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from simsiam import cli, published
from simsiam.config import Pretraining, as_dict, from_dict, with_later_fields
from simsiam.pretraining.findings import Measured, outcome, paper_figure, runs_of
from simsiam.recipes.pretrain import cifar10
from simsiam.recipes.reproduce import BASES, FINDINGS, Expected, paper, recipe_of, small
from tests import tiny

BASE = Measured(
    status="healthy", diverged=False, knn=40.0, untrained=20.0, spread=1.0, loss=-0.8, swing=0.01, linear=None
)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "works"),
        ({"knn": 35.0}, "works"),  # three quarters of the base's 20 points
        ({"knn": 34.9}, "worse"),
        ({"knn": 25.0}, "worse"),
        ({"knn": 24.9}, "fails"),
        ({"knn": 15.0, "status": "worse than its start"}, "fails"),
        ({"status": "collapsed"}, "collapses"),
        ({"status": "partial collapse"}, "collapses"),
        ({"swing": 0.03}, "works"),
        ({"swing": 0.031}, "unstable"),
        ({"swing": 0.031, "status": "collapsed"}, "collapses"),
        ({"status": "collapsed", "diverged": True, "knn": None}, "unstable"),
    ],
)
def test_what_a_run_showed(changes: dict[str, object], found: Expected) -> None:
    assert outcome([dataclasses.replace(BASE, **changes)], [BASE]) == found  # type: ignore[arg-type]


def test_most_seeds_decide_and_gains_are_means() -> None:
    collapsed, weak = dataclasses.replace(BASE, status="collapsed"), dataclasses.replace(BASE, knn=31.0)
    assert outcome([collapsed, collapsed, BASE], [BASE]) == "collapses"
    assert outcome([collapsed, BASE, BASE], [BASE]) == "works"
    assert outcome([weak, BASE], [BASE, BASE]) == "works"  # 11 and 20 points: 15.5 of 20
    assert outcome([weak, weak, BASE], [BASE] * 3) == "worse"  # 14 of 20


def test_beside_a_base_that_learnt_nothing_nothing_works() -> None:
    idle = dataclasses.replace(BASE, knn=21.9)
    assert outcome([idle], [idle]) == outcome([BASE], [idle]) == "fails"


def test_each_case_differs_from_its_base_in_a_field_or_two() -> None:
    for finding in FINDINGS.values():
        for case in finding.cases:
            for make in BASES.values():
                base, made = as_dict(make()), as_dict(recipe_of(case, make()))
                differing = {key for key in base if base[key] != made[key]} - {"name", "warmup_epochs", "model"}
                inner = {f"model.{key}" for key in base["model"] if base["model"][key] != made["model"][key]}
                assert differing | inner == {*case.changes, *case.times}, case.name


def test_a_recipe_of_an_earlier_version_is_the_published_method() -> None:
    old = json.loads(json.dumps(as_dict(cifar10())))
    for later in ("train_images", "similarity", "symmetric", "targets"):
        del old[later]
    del old["model"]["heads_norm"]
    assert from_dict(Pretraining, with_later_fields(old)) == cifar10()


def test_the_papers_own_scale() -> None:
    recipes = {run.case.name: run.recipe for run in runs_of(FINDINGS.values(), paper(), seeds=1, out=Path())}
    batches = sorted((recipe.batch_size, recipe.warmup_epochs) for recipe in recipes.values())
    assert {*batches} == {(64, 0), (128, 0), (256, 0), (512, 0), (512, 10), (1024, 10), (2048, 10), (4096, 10)}
    assert recipes["norm-none"].warmup_epochs == 10
    dims = {(recipe.model.projector_dim, recipe.model.predictor_dim) for recipe in recipes.values()}
    assert dims == {(256, 64), (512, 128), (1024, 256), (2048, 512)}
    assert {recipe.epochs for name, recipe in recipes.items() if name != "asymmetric-2x"} == {100}
    assert recipes["base"] == dataclasses.replace(paper(), name="reproduce-paper-base")
    assert recipes["batch-4x"].lr == pytest.approx(0.05 * 2048 / 256)


def test_every_figure_of_the_papers_ablations_has_its_case() -> None:
    places = {finding.place for finding in FINDINGS.values()}
    cases = {(finding.place, case.paper) for finding in FINDINGS.values() for case in finding.cases if case.paper}
    figures = published.figures(source=published.PAPER, protocol="linear_avgpool")
    assert {(one.version, one.model) for one in figures if one.version in places} == cases
    assert {one.version for one in figures} - places == {"Table 4: epochs"}
    norms = FINDINGS["batch-norm"]
    assert [paper_figure(case, norms) for case in norms.cases] == ["34.6", "67.4", "68.1", "unstable"]


def test_runs_are_shared_and_go_seed_by_seed(tmp_path: Path) -> None:
    runs = runs_of([FINDINGS["stop-gradient"], FINDINGS["predictor"]], small(), seeds=2, out=tmp_path)
    names = [run.folder.name.rpartition("-")[0] for run in runs]
    assert names[:5] == names[5:] == sorted({*names}, key=names.index)
    assert names[0] == "base"
    assert [run.recipe.seed for run in runs] == [0] * 5 + [1] * 5


def simsiam(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    return int(end.value.code or 0)


def test_a_finding_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tiny.cifar_cache(tmp_path / "cache", train=140, test=40)
    command = ["reproduce", "similarity", "--seeds", "1", "--epochs", "1", "--train-images", "130", "--device", "cpu"]
    command += ["--workers", "0", "--cache", str(cache), "--out", str(tmp_path / "out")]
    assert simsiam(*command, "--dry-run") == 0
    assert "cross-entropy: similarity cross-entropy; paper 63.2, works; done 0 of 1" in capsys.readouterr().out
    assert simsiam(*command) == 1  # one step teaches nothing
    said = capsys.readouterr()
    assert "about" in said.err.split("[1/2] base-seed0")[0]  # the estimate, before anything is trained
    assert "FAIL  cross-entropy: fails, expected works" in said.out
    folder = tmp_path / "out" / "small"
    found = json.loads((folder / "findings.json").read_text())["similarity"]
    assert [(row["name"], row["paper"], row["passed"], row["seeds"]) for row in found] == [
        ("base", "68.1", False, 1),
        ("cross-entropy", "63.2", False, 1),
    ]
    assert abs(found[0]["loss"]) < 1 < 5 < found[1]["loss"] < 6  # a cosine; the logarithm of 256 channels is 5.5
    page = (folder / "report.html").read_text()
    assert page.count('class="chart"') == 3
    assert "63.2" in page
    assert page.count('id="similarity"') == page.count('id="similarity-curves"') == 1
    before = (folder / "base-seed0" / "result.json").stat().st_mtime_ns
    assert simsiam(*command) == 1
    assert "0 to do" in capsys.readouterr().err
    assert (folder / "base-seed0" / "result.json").stat().st_mtime_ns == before


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert simsiam("reproduce", "predicter") == 2
    assert "Did you mean predictor?" in capsys.readouterr().err
    assert simsiam("reproduce", "--scale", "paper") == 2
    assert "--data DIR" in capsys.readouterr().err
    assert simsiam("reproduce", "--scale", "paper", "--dry-run") == 0
    assert "batch_size x 8; paper 64.0" in capsys.readouterr().out
