"""The report page with hostile, missing and damaged input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from simsiam.errors import UserError
from simsiam.report.page import write_page
from simsiam.results import read_json, write_json
from tests.report.parsed import read
from tests.report.runs import make_run


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    attack = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    run = make_run(tmp_path / "run", label_names=[f"{attack}{index}" for index in range(10)], points=40)
    recipe = read_json(run / "recipe.json")
    recipe["recipe"] |= {"name": attack, "about": attack}
    write_json(run / "recipe.json", recipe)
    result = read_json(run / "result.json")
    result["data"]["name"] = attack
    result["detail"]["baselines"]["knn"].append(
        {"name": f"supervised: {attack}", "value": 50.0, "low": 49.0, "high": 51.0}
    )
    result["detail"]["verdict"]["evidence"].append(attack)
    write_json(run / "result.json", result)
    page = read(write_page(run))
    assert [tag for tag, _ in page.elements].count("script") == 1, "the page's own"
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert attack in page.text


def test_pictures_outside_the_run_folder_are_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", points=20)
    (tmp_path / "secret.jpg").write_bytes((run / "figures" / "0.jpg").read_bytes())
    (run / "figures" / "text.jpg").write_text("not an image")
    figures = read_json(run / "figures.json")
    for index, name in enumerate(
        ("../secret.jpg", str(tmp_path / "secret.jpg"), "figures/text.jpg", "figures/gone.jpg")
    ):
        figures["map"]["points"][index]["image"] = name
    write_json(run / "figures.json", figures)
    page = read(write_page(run))
    assert "4 pictures left out" in page.text
    assert sum(tag == "image" for tag, _ in page.elements) == 16


def test_the_page_stays_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", points=100)
    figures = read_json(run / "figures.json")
    big = bytes((run / "figures" / "0.jpg").read_bytes()) + bytes(5_000_000)
    (run / "figures" / "99.jpg").write_bytes(big)
    (run / "figures" / "98.jpg").write_bytes(big)
    write_json(run / "figures.json", figures)
    path = write_page(run)
    assert path.stat().st_size < 8_000_000
    assert "left out" in read(path).text


def test_pictures_that_the_run_could_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", points=20)
    figures = read_json(run / "figures.json")
    figures["map"]["points"][0]["image"] = None
    figures["neighbours"][0]["after"][0]["image"] = None
    write_json(run / "figures.json", figures)
    page = read(write_page(run))
    assert "2 pictures left out" in page.text
    assert any(attributes.get("class") == "nopic" for _, attributes in page.elements)


def test_a_note_is_said_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    result = read_json(run / "result.json")
    result["notes"] += result["detail"]["data_notes"]
    write_json(run / "result.json", result)
    assert read(write_page(run)).text.count("CIFAR-10 from the local cache.") == 1


def test_without_labels(tmp_path: Path) -> None:
    page = read(write_page(make_run(tmp_path / "run", labels=False)))
    assert "No labels were given" in page.text
    assert "chart-knn" not in page.ids()
    assert "colour-label" not in page.ids()
    assert "map" in page.ids()


def test_one_epoch_without_figures(tmp_path: Path) -> None:
    page = read(write_page(make_run(tmp_path / "run", epochs=1, steps_an_epoch=1, figures=False)))
    assert "chart-loss" in page.ids()
    assert not {"map", "views", "neighbours"} & page.ids()


def test_unfinished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3, finished=False, figures=False)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "epo')  # a killed run's last line
    page = read(write_page(run))
    assert "This run has not finished." in page.text
    assert "It has reached epoch 3 of 3" in page.text
    assert "baselines" not in page.ids()
    assert json.loads((run / "report.json").read_text())["finished"] is False


def test_run_that_wrote_no_step_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False, figures=False)
    (run / "metrics.jsonl").unlink()
    assert "It has written no step yet" in read(write_page(run)).text


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, finished=False)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows[-3:-1]:
        row["loss"] = math.nan
    rows[-2]["spread"] = math.inf
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = read(write_page(run))
    assert "loss: 2 values not finite, the first at epoch" in page.text
    points = [attributes["points"] or "" for tag, attributes in page.elements if tag == "polyline"]
    assert not any("nan" in one or "inf" in one for one in points)


def test_a_result_with_nan_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="collapsed")
    result = read_json(run / "result.json")
    result["metrics"]["spread"] = math.nan
    write_json(run / "result.json", result)
    assert "not finite" in read(write_page(run)).text
    assert json.loads((run / "report.json").read_text())["metrics"]["spread"] is None


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no run folder"),
        (lambda folder: _spoil(folder, "figures.json", "[1]"), "figures.json: expected a JSON object, found list"),
        (lambda folder: _spoil(folder, "recipe.json", "{"), "recipe.json: not valid JSON"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        write_page(tmp_path / "run")


def _spoil(folder: Path, name: str, content: str) -> None:
    make_run(folder, epochs=1, points=10)
    (folder / name).write_text(content)
