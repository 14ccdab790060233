"""Plots: which are drawn, and that the drawn values are the measured ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.errors import UserError
from simsiam.published import MODEL_100E
from simsiam.report.collect import collect
from simsiam.report.plots import bars_by_stage, confusion, draw, low_shot, write_plots
from tests.report.measured import add, make_pretrained, shots, stages


def test_files_of_every_plot(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "run", "demo")
    add(run, "linear_mhead", stages(10.0), data="cifar10-train")
    add(run, "low_shot_voc07", shots(20.0), data="cifar10-train")
    add(run, "svm_voc07", stages(20.0), data="cifar10-train")
    detail = {"confusion": [[8, 2], [1, 9]], "classes": ["$cat", "dog"]}
    add(run, "linear_probe", {"top1": 85.0}, data="cifar10-train", detail=detail)
    files = write_plots(draw(collect([run])), tmp_path / "plots")
    stems = {"linear-by-stage", "svm-by-stage", "low-shot", "confusion-demo-linear_probe-cifar10-train"}
    assert {path.name for path in files} == {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")}
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 400
                assert len(np.unique(np.asarray(image.convert("L")))) > 20, "not blank"
        else:
            assert path.read_text().rstrip().endswith("</svg>")


def test_bars_show_what_was_measured(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "run", "demo")
    add(run, "linear_mhead", stages(10.0), data="cifar10-train")
    (axes,) = bars_by_stage(collect([run]), protocol="linear_mhead", title="t", unit="%").axes
    assert [bar.get_height() for bar in axes.patches] == [20.0, 30.0, 40.0, 50.0, 60.0]


def test_published_bars_only_beside_the_published_set(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "run", MODEL_100E)
    add(run, "linear_mhead", stages(10.0), data="imagenet")
    (axes,) = bars_by_stage(collect([run]), protocol="linear_mhead", title="t", unit="%").axes
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == 4 * 5, "100e in two versions, ours, 200e"
    assert heights[:5] == [15.85, 34.02, 46.00, 60.90, 67.92]
    assert heights[10:15] == [20.0, 30.0, 40.0, 50.0, 60.0]


def test_low_shot_line_and_band(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "run", "demo")
    add(run, "low_shot_voc07", shots(20.0), data="other", detail={"std": dict.fromkeys(shots(0), 2.0)})
    (axes,) = low_shot(collect([run])).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 4, 8, 16, 32, 64, 96]
    assert list(line.get_ydata()) == list(shots(20.0).values())
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(18.0)
    assert band[:, 1].max() == pytest.approx(57.0)


def test_confusion_is_a_share_of_each_row() -> None:
    figure = confusion([[8, 2, 0], [1, 3, 0], [0, 0, 0]], ["a", "b", "c"], title="t")
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown == pytest.approx(np.array([[80, 20, 0], [25, 75, 0], [0, 0, 0]]))
    assert [text.get_text() for text in figure.axes[0].texts][:3] == ["80", "20", "0"]


@pytest.mark.parametrize(
    ("counts", "classes", "message"),
    [([[1, 2]], None, r"shape \(1, 2\), not square"), ([[1, 2], [3, 4]], ["a"], "1 class name for a matrix of 2")],
)
def test_damaged_confusion(counts: list[list[int]], classes: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        confusion(counts, classes, title="run")


def test_two_confusions_of_one_name_keep_both(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = make_pretrained(tmp_path / f"run-{seed}", "demo", seed=seed)
        detail = {"confusion": [[1, 0], [0, 1]]}
        add(run, "linear_probe", {"top1": 85.0}, data="x", seed=seed, detail=detail)
    names = {path.name for path in write_plots(draw(collect([tmp_path])), tmp_path / "plots")}
    assert {"confusion-demo-linear_probe-x.png", "confusion-demo-linear_probe-x-2.png"} <= names
