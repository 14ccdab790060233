"""The first lines that an evaluation prints: the figure, its interval, and what to compare it with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from simsiam.commands.tables import Outcome, answer, interval_of, others
from simsiam.report.formats import report
from simsiam.results import DataId, Result, WeightsId

CONFUSION = [[3, 1], [2, 0], [0, 0]]  # the commonest class has 4 of 6 images


def result(
    figure: float = 50.0, *, source: str = "runs/photos", sha: str = "a", data: str = "d", day: int = 1
) -> Result:
    return Result(
        protocol="knn",
        main_metric="top1_k20",
        metrics={"top1_k20": figure, "top1_k10": 1.0},
        recipe={"name": "knn_32px"},
        weights=WeightsId(source=source, sha256=sha),
        data=DataId(name="photos", sha256=data, images=30),
        seed=0,
        seconds=1.0,
        versions={},
        detail={"test_images": 6, "confusion": CONFUSION, "classes": ["a", "b", "c"]},
        created=f"2026-01-{day:02}T10:00:00+00:00",
    )


def write(folder: Path, found: Result) -> Path:
    found.write(folder / "result.json")
    return folder


def test_the_figure_comes_first_with_interval_images_and_what_to_compare_it_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = write(Path("out/mine"), result())
    alone = answer(Outcome(place=mine, result=result(), read=False))
    assert alone == [
        "runs/photos on photos: top-1 accuracy at k 20 50.00 % (95 % interval 18.8 to 81.2, 6 test images), "
        "measured now",
        "  always naming the commonest class: 66.7 %",
        "  an untrained network: not measured on these data; add --from random:runs/photos",
    ]  # Wilson's interval of 3 in 6 is 0.1876 to 0.8124
    write(Path("out/start"), result(20.0, source="random:resnet18", sha="r", day=2))
    write(Path("runs/old"), result(40.0, source="old", sha="o", day=3))
    write(Path("runs/new/evaluations/knn"), result(45.0, source="new", sha="n", day=4))
    write(Path("runs/other"), result(99.0, source="other", sha="x", data="other", day=5))
    (Path("runs/broken")).mkdir()
    Path("runs/broken/result.json").write_text("{")
    assert answer(Outcome(place=mine, result=result(), read=True))[0].endswith(
        ", read from the result of 2026-01-01; --again measures it again"
    )
    assert answer(Outcome(place=mine, result=result(), read=True))[2:] == [
        "  an untrained network: 20.00 % (random:resnet18, knn_32px, 2026-01-02)",
        "  the last result on these data: 45.00 % (new, knn_32px, 2026-01-04)",
    ]
    assert others(mine, dataclasses.replace(result(), protocol="probe")) == []


def test_an_interval_of_the_result_itself_wins_and_a_mean_precision_has_none() -> None:
    own = dataclasses.replace(result(), main_metric="top1", metrics={"top1": 50.0, "top1_low": 40.0, "top1_high": 61.0})
    interval = interval_of(own)
    assert interval is not None
    assert (interval.low, interval.high) == (40.0, 61.0)
    assert interval_of(dataclasses.replace(result(), main_metric="miou", metrics={"miou": 50.0})) is None


def test_published_rows_stand_beside_results_on_the_same_data_alone(tmp_path: Path) -> None:
    write(tmp_path / "own", result())
    said = report([tmp_path], which="fitting")
    assert "published" not in said
    assert "BGR" not in said
    assert "†" not in said
    assert "ImageNet" not in said
    assert "| k=10 | k=20 |" in said
    whole = dataclasses.replace(result(), data=DataId(name="imagenet", sha256="i", images=1_331_167))
    write(tmp_path / "own", whole)
    assert "published" in report([tmp_path], which="fitting")
