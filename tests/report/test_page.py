"""The report page: its HTML and its JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from simsiam.report.html import code, figure, flat
from simsiam.report.page import write_page
from simsiam.results import read_json, write_json
from tests.report.parsed import read
from tests.report.runs import make_run


def test_whole_run(tmp_path: Path) -> None:
    path = write_page(make_run(tmp_path / "run"))
    page = read(path)
    assert path == tmp_path / "run" / "report.html"
    assert {"answer", "baselines", "curves", "neighbours", "map", "views", "next", "details"} <= page.ids()
    assert "It worked: the trained network beats its own random start." in page.text
    assert "It does not beat raw pixels in kNN accuracy" in page.text, "a loss is said at the top"
    charts = {identifier for identifier in page.ids() if identifier.startswith("chart-")}
    assert charts >= {"chart-loss", "chart-spread", "chart-rank", "chart-knn", "chart-view_recall", "chart-lr"}


def test_no_address_leads_outside(tmp_path: Path) -> None:
    path = write_page(make_run(tmp_path / "run"))
    outside = [one for one in read(path).addresses() if not one.startswith(("data:", "#"))]
    assert outside == []
    content = path.read_text()
    assert "url(" not in content
    assert "@import" not in content
    assert "fetch(" not in content
    assert content.count("http://") + content.count("https://") == 0


def test_every_number_of_the_result_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = read(write_page(run)).text
    result = read_json(run / "result.json")
    detail = result["detail"]
    for _, value in [*flat(result["metrics"]), *flat(detail["verdict"]["numbers"]), ("seconds", result["seconds"])]:
        assert figure(value) in text
    for rows in detail["baselines"].values():
        for row in rows:
            assert f"{row['value']:.1f}" in text
            assert f"{row['low']:.1f}–{row['high']:.1f}" in text
    for one in detail["comparisons"]:
        assert f"{abs(one['difference']):.1f} points" in text
        assert f"{one['low']:+.1f} to {one['high']:+.1f}".replace("-", "−") in text
    for shown in ("612.4", "3.4 %", "7 min 27 s", "273,408"):
        assert shown in text


def test_every_picture_has_a_text(tmp_path: Path) -> None:
    page = read(write_page(make_run(tmp_path / "run")))
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) > 50
    assert all(attributes.get("alt") for attributes in images)
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert all(attributes.get("aria-label") for attributes in drawings)


def test_json_holds_the_same_facts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_page(run)
    result = read_json(run / "result.json")
    facts = json.loads((run / "report.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert facts["metrics"] == result["metrics"]
    assert facts["verdict"] == result["detail"]["verdict"]
    assert facts["baselines"] == result["detail"]["baselines"]
    assert facts["recipe"] == result["recipe"]
    loss = next(one for one in facts["curves"] if one["key"] == "loss")["series"][0]
    assert loss["points"][-1]["x"] == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("run `a < b` now", "run <code>a &lt; b</code> now"), ("one ` only <b>", "one ` only &lt;b&gt;")],
)
def test_code_in_sentences(text: str, shown: str) -> None:
    assert str(code(text)) == shown


@pytest.mark.parametrize(
    ("outcomes", "headline"),
    [
        (["better", "better"], "It worked: the trained network beats its own random start."),
        (["better", "worse"], "It worked in part: the trained network beats its own random start on one measure"),
        (["worse", "no clear difference"], "It did not work: no collapse, yet the trained network does not beat"),
        ([], "It worked, as far as was measured: no sign of collapse."),
    ],
)
def test_headline_follows_the_comparisons(tmp_path: Path, outcomes: list[str], headline: str) -> None:
    run = make_run(tmp_path / "run", figures=False)
    result = read_json(run / "result.json")
    against = [one for one in result["detail"]["comparisons"] if one["against"] == "random network"]
    result["detail"]["comparisons"] = [
        one | {"outcome": outcome} for one, outcome in zip(against, outcomes, strict=False)
    ]
    write_json(run / "result.json", result)
    assert headline in read(write_page(run)).text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0021, "0.0021"),
        (68.25, "68.25"),
        (-3, "−3"),
        (273408, "273,408"),
        (1234.56, "1,234.6"),
        (1e-7, "1e−7"),
        (math.nan, "not finite"),
        (True, "yes"),
        (None, "–"),
        ([0.485, 1], "0.485, 1"),
    ],
)
def test_figures(value: Any, shown: str) -> None:
    assert figure(value) == shown


def test_collapsed_run(tmp_path: Path) -> None:
    text = read(write_page(make_run(tmp_path / "run", status="collapsed"))).text
    assert "It did not work: the network collapsed." in text
    assert "The learning rate is too high." in text
    assert "Try --base-lr 0.03." in text
    assert "10.3 points worse than the same network at random start" in text
