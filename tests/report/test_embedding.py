"""The map of the embedding: places, colours, thumbnails that do not cover each other."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from simsiam.report.pictures import COLOURS, MAP_SIDE, Album, embedding_map


def _points(count: int, *, labels: int | None = None) -> list[dict[str, Any]]:
    dice = random.Random(1)
    return [
        {"x": dice.random(), "y": dice.random(), "image": "none.jpg", "cluster": index % 3}
        | ({"label": f"class {index % labels}"} if labels else {"label": None})
        for index in range(count)
    ]


def test_points_lie_inside(tmp_path: Path) -> None:
    raw = {"points": [{"x": 0, "y": 0}, {"x": 1, "y": 1}, {"x": 2, "y": -1}, {"x": float("nan"), "y": 0}]}
    made = embedding_map(raw, Album(folder=tmp_path))
    assert made is not None
    assert len(made.dots) == 3, "a point without a place is left out"
    margin = made.thumb / 2
    assert all(margin <= place <= MAP_SIDE - margin for dot in made.dots for place in (dot.x, dot.y))
    assert made.dots[0].y > made.dots[1].y, "y points up"


def test_more_labels_than_colours_share_grey(tmp_path: Path) -> None:
    made = embedding_map({"points": _points(300, labels=30)}, Album(folder=tmp_path))
    assert made is not None
    assert len(made.labels) == COLOURS + 1
    assert made.labels[-1].name == "20 others"
    assert sum(entry.count for entry in made.labels) == 300
    assert {dot.label_colour for dot in made.dots} == set(range(COLOURS + 1))


def test_no_labels(tmp_path: Path) -> None:
    made = embedding_map({"points": _points(30)}, Album(folder=tmp_path))
    assert made is not None
    assert made.labels == []
    assert [entry.name for entry in made.clusters] == ["cluster 0", "cluster 1", "cluster 2"]


def test_shown_thumbnails_are_apart(tmp_path: Path) -> None:
    raw = {"points": _points(400)}
    made = embedding_map(raw, Album(folder=tmp_path))
    assert made is not None
    side = made.thumb / MAP_SIDE * 0.8
    shown = [point for point, dot in zip(raw["points"], made.dots, strict=True) if not dot.crowded]
    for index, one in enumerate(shown):
        for other in shown[:index]:
            assert abs(one["x"] - other["x"]) >= side or abs(one["y"] - other["y"]) >= side
    assert len(shown) > 100


def test_no_map(tmp_path: Path) -> None:
    assert embedding_map({}, Album(folder=tmp_path)) is None
