"""The first sentence of a report: what the run started from is what the trained network is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simsiam.report.answer import answer
from simsiam.report.collect import RunFolder, read_run
from simsiam.results import read_json, write_json
from tests.report import runs


@pytest.fixture
def run(tmp_path: Path) -> Path:
    runs.make_run(tmp_path / "run")
    return tmp_path / "run"


def changed(run: Path, status: str, comparisons: list[tuple[str, str]], recalls: dict[str, float]) -> RunFolder:
    raw: dict[str, Any] = read_json(run / "result.json")
    raw["detail"]["verdict"]["status"] = status
    raw["detail"]["comparisons"] = [
        {"measure": "view_recall", "against": against, "difference": 1.0, "low": 0.1, "high": 2.0, "outcome": outcome}
        for against, outcome in comparisons
    ]
    raw["detail"]["baselines"] = {
        "view_recall": [{"name": name, "value": value, "low": value, "high": value} for name, value in recalls.items()]
    }
    write_json(run / "result.json", raw)
    return read_run(run)


def test_a_run_that_lost_what_it_was_given_did_not_work(run: Path) -> None:
    """Better than a random network, worse than the weights that --init named."""
    found = answer(
        changed(
            run,
            "healthy",
            [("random network", "better"), ("before training: good.pth", "worse")],
            {"trained": 20.0, "random network": 10.0, "before training: good.pth": 37.5},
        )
    )
    assert found.tone == "bad"
    assert found.headline.endswith("does not beat the weights it started from.")
    assert "for 20.0 % of held-out images (37.5 % before training, 10.0 % at random start)." in " ".join(
        found.sentences
    )


def test_without_given_weights_the_random_start_is_what_was_before(run: Path) -> None:
    found = answer(changed(run, "healthy", [("random network", "better")], {"trained": 20.0, "random network": 10.0}))
    assert found.headline == "It worked: the trained network beats its own random start."
    assert "(10.0 % before training)" in " ".join(found.sentences)


@pytest.mark.parametrize(
    ("status", "tone", "headline"),
    [
        ("worse than its start", "bad", "It did not work: the trained network is worse than its own random start."),
        (
            "not learning",
            "bad",
            "It did not work: the network has not learnt to bring two views of one image",
        ),
        ("too few images to tell", "wait", "Too few images to tell."),
    ],
)
def test_every_verdict_has_its_headline(run: Path, status: str, tone: str, headline: str) -> None:
    found = answer(changed(run, status, [("random network", "better")], {"trained": 20.0, "random network": 10.0}))
    assert (found.tone, found.badge) == (tone, status)
    assert found.headline.startswith(headline)
