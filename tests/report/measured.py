"""Makes result files of every protocol, with figures that tests can recognise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simsiam.results import DataId, Result, WeightsId, write_json

IMAGES = {"voc07": 9963, "imagenet": 1331167, "coco2017": 123287, "cifar10-train": 60000}


def make_result(
    protocol: str,
    metrics: dict[str, float],
    *,
    data: str,
    source: str,
    weights: str = "aa",
    seed: int = 0,
    detail: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    images: int | None = None,
    created: str = "2025-01-01T00:00:00+00:00",
    notes: Sequence[str] = (),
) -> Result:
    return Result(
        protocol=protocol,
        main_metric=next(iter(metrics)),
        metrics=metrics,
        recipe=recipe or {"name": f"{protocol}-recipe"},
        weights=WeightsId(source=source, sha256=weights * 32),
        data=DataId(name=data, sha256="dd" * 32, images=images or IMAGES.get(data, 77)),
        seed=seed,
        seconds=1.5,
        versions={"torch": "2.14.1"},
        detail=detail or {},
        created=created,
        notes=list(notes),
    )


def make_pretrained(folder: Path, name: str, *, seed: int = 0) -> Path:
    """A run folder with its recipe and, as its training left it, a result."""
    recipe = {"name": name, "seed": seed, "epochs": 3}
    write_json(folder / "recipe.json", {"recipe": recipe, "machine": {}})
    metrics = {"knn": 40.0 + seed, "view_recall": 80.0, "spread": 0.9}
    make_result(
        "pretrain", metrics, data="cifar10-train", source=str(folder), weights=f"a{seed}", seed=seed, recipe=recipe
    ).write(folder / "result.json")
    return folder


def add(run: Path, protocol: str, metrics: dict[str, float], *, data: str, seed: int = 0, **more: Any) -> Path:
    """An evaluation of a run, in a folder of the run."""
    path = run / "evaluation" / f"{protocol}-{data}" / "result.json"
    make_result(protocol, metrics, data=data, source=str(run), weights=f"a{seed}", seed=seed, **more).write(path)
    return path


def stages(base: float) -> dict[str, float]:
    return {f"feature{stage}": base + 10.0 * stage for stage in range(1, 6)}


def shots(base: float) -> dict[str, float]:
    return {f"k{k}": base + 5.0 * index for index, k in enumerate((1, 2, 4, 8, 16, 32, 64, 96))}
