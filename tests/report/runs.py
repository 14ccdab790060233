"""Makes run folders as pre-training leaves them, with generated pictures and made-up but plausible numbers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from simsiam.results import DataId, Result, WeightsId, write_json

LABELS = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUES = [(120, 170, 230), (200, 60, 60), (150, 190, 90), (190, 150, 120), (140, 110, 70)]
HUES += [(90, 90, 100), (60, 140, 70), (160, 90, 50), (60, 90, 160), (220, 180, 60)]

RECIPE: dict[str, Any] = {
    "name": "demo",
    "about": "Eight minutes on two cores: real images, a small network, a result that beats its own start.",
    "data": "cifar10",
    "model": {"backbone": "resnet10", "width": 32, "stem": "small-stride2", "stop_gradient": "on"},
    "views": {"size": 32, "min_scale": 0.2, "max_scale": 1.0, "mean": [0.485, 0.456, 0.406]},
    "epochs": 12,
    "batch_size": 128,
    "base_lr": 0.06,
    "weight_decay": 5e-4,
    "seed": 0,
}

Picture = Callable[[Path, int, random.Random], None]


def paint(path: Path, label: int, dice: random.Random) -> None:
    """A 32 x 32 picture whose colours and shape follow its label."""
    colour = tuple(max(0, min(255, part + dice.randint(-30, 30))) for part in HUES[label])
    image = Image.new("RGB", (32, 32), tuple(255 - part // 2 for part in colour))
    draw = ImageDraw.Draw(image)
    x, y, size = dice.randint(2, 10), dice.randint(2, 10), dice.randint(12, 20)
    box = (x, y, x + size, y + size)
    if label % 3 == 0:
        draw.ellipse(box, fill=colour)
    elif label % 3 == 1:
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(x, y + size), (x + size, y + size), (x + size / 2, y)], fill=colour)
    image.save(path, quality=70)


def make_run(
    folder: Path,
    *,
    epochs: int = 12,
    steps_an_epoch: int = 50,
    labels: bool = True,
    status: str = "healthy",
    finished: bool = True,
    figures: bool = True,
    points: int = 300,
    label_names: list[str] | None = None,
    picture: Picture = paint,
) -> Path:
    """A run folder in the state asked for."""
    dice = random.Random(0)
    names = label_names or LABELS
    folder.mkdir(parents=True)
    recipe = RECIPE | {"epochs": epochs}
    write_json(folder / "recipe.json", {"recipe": recipe, "machine": {"device": "cpu", "workers": 1}})
    rows = metric_rows(epochs, steps_an_epoch, labels=labels, collapsed=status == "collapsed", dice=dice)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        make_result(status, labels=labels, recipe=recipe).write(folder / "result.json")
    (folder / "skipped.csv").write_text("file,reason\nbroken <b>.jpg,truncated\nempty.png,zero bytes\n")
    if figures:
        write_json(folder / "figures.json", make_figures(folder, names if labels else None, points, dice, picture))
    return folder


def metric_rows(
    epochs: int, steps_an_epoch: int, *, labels: bool, collapsed: bool, dice: random.Random
) -> list[dict[str, Any]]:
    """Step and monitor rows along a plausible course."""
    rows: list[dict[str, Any]] = []
    total = epochs * steps_an_epoch
    for step in range(total):
        part = step / total
        target = -0.999 if collapsed else -0.75
        loss = target * (1 - math.exp(-4 * part)) + dice.gauss(0, 0.03)
        lr = 0.03 * 0.5 * (1 + math.cos(math.pi * part))
        spread = math.exp(-6 * part) if collapsed else 0.97 - 0.35 * math.exp(-12 * part) + dice.gauss(0, 0.01)
        rows.append(
            {"kind": "step", "epoch": (step + 1) / steps_an_epoch, "step": step + 1, "loss": loss, "lr": lr}
            | {"predictor_lr": 0.03, "spread": spread, "images_per_second": 612.0, "data_wait": 0.034}
        )
        if (step + 1) % steps_an_epoch == 0:
            rows.append(_monitor(step + 1, (step + 1) // steps_an_epoch, part, labels, collapsed))
    return rows


def _monitor(step: int, epoch: int, part: float, labels: bool, collapsed: bool) -> dict[str, Any]:
    gain = 0.0 if collapsed else 1 - math.exp(-3 * part)
    row = {
        "kind": "monitor",
        "epoch": epoch,
        "step": step,
        "spread": math.exp(-6 * part) if collapsed else 0.62 + 0.33 * gain,
        "rank_z": 1.1 if collapsed else 12 + 60 * gain,
        "rank_features": 1.4 if collapsed else 9 + 31 * gain,
        "alignment_pairs": 1.0 if collapsed else 0.3 + 0.5 * gain,
        "alignment_random": 1.0 if collapsed else 0.02,
        "neighbour_stability": None if epoch == 1 else 0.3 + 0.4 * gain,
        "view_recall": 12 + 75 * gain,
        "status": "collapsed" if collapsed else "healthy",
    }
    return row | ({"knn": 27.0 + 14.2 * gain} if labels else {})


def make_result(status: str, *, labels: bool, recipe: dict[str, Any]) -> Result:
    """The result record of a finished run."""
    bad = status == "collapsed"
    knn, recall = (11.3, 2.1) if bad else (41.2, 87.1)
    baselines = {"view_recall": _baselines(recall, 12.4, 31.7)} | (
        {"knn": _baselines(knn, 27.1, 42.9)} if labels else {}
    )
    comparisons = [
        _compare("view_recall", name, recall - other)
        for name, other in (("random network", 12.4), ("raw pixels", 31.7))
    ]
    if labels:
        comparisons += [
            _compare("knn", name, knn - other) for name, other in (("random network", 27.1), ("raw pixels", 42.9))
        ]
    metrics = {"view_recall": recall, "spread": 0.0021 if bad else 0.934, "rank_z": 1.1 if bad else 68.25}
    return Result(
        protocol="pretrain",
        main_metric="knn" if labels else "view_recall",
        metrics=metrics | ({"knn": knn} if labels else {}),
        recipe=recipe,
        weights=WeightsId(source="runs/demo-cifar10", sha256="ab" * 32),
        data=DataId(name="cifar10", sha256="cd" * 32, images=50000),
        seed=0,
        seconds=463.87,
        versions={"python": "3.11.9", "torch": "2.14.1", "simsiam": "0.1.0"},
        detail={
            "verdict": _verdict(status),
            "baselines": baselines,
            "comparisons": comparisons,
            "throughput": {
                "images_per_second": 612.4,
                "data_wait": 0.034,
                "seconds": 447.2,
                "images_seen": 273_408,
                "epochs": 12,
            },
            "settings": {
                "knn": "k 20, T 0.07, 10,000 references, 2,000 queries",
                "view_recall": "1,000 held-out images, one pair of views each",
            },
            "data_notes": ["CIFAR-10 from the local cache."],
            "next_steps": ["The paper's recipe, 800 epochs, reaches 91.8 % linear accuracy (from memory)."],
            "skipped": {"count": 2, "file": "skipped.csv"},
        },
        notes=["Measured on the CPU."],
    )


def _verdict(status: str) -> dict[str, Any]:
    if status == "collapsed":
        causes = [
            {"cause": "The learning rate is too high.", "cure": "Try --base-lr 0.03."},
            {"cause": "The stop-gradient is off.", "cure": "Set --model.stop-gradient on."},
        ]
        return {
            "status": status,
            "summary": "All outputs have become almost the same vector.",
            "numbers": {"spread": 0.0021, "rank_z": 1.1},
            "evidence": ["The spread of z is 0.0021; a healthy run stays near 1."],
            "causes": causes,
        }
    return {
        "status": status,
        "summary": "The outputs stay spread over many directions.",
        "numbers": {"spread": 0.934, "rank_z": 68.25, "rank_features": 38.5, "alignment_gap": 0.771},
        "evidence": ["The spread of z is 0.934, near 1.", "z uses 68 directions."],
        "causes": [],
    }


def _baselines(trained: float, random_network: float, pixels: float) -> list[dict[str, Any]]:
    named = {"trained": trained, "random network": random_network, "raw pixels": pixels}
    return [{"name": name, "value": value, "low": value - 1.3, "high": value + 1.4} for name, value in named.items()]


def _compare(measure: str, against: str, difference: float) -> dict[str, Any]:
    outcome = "no clear difference" if abs(difference) < 1.7 else "better" if difference > 0 else "worse"
    interval = {"difference": difference, "low": difference - 1.7, "high": difference + 1.8}
    return {"measure": measure, "against": against, "outcome": outcome} | interval


def make_figures(
    folder: Path, names: list[str] | None, points: int, dice: random.Random, picture: Picture
) -> dict[str, Any]:
    """The figures record with its pictures."""
    (folder / "figures").mkdir()
    made: list[tuple[str, int]] = []
    for index in range(points):
        label = dice.randrange(10)
        picture(folder / "figures" / f"{index}.jpg", label, dice)
        made.append((f"figures/{index}.jpg", label))

    def entry(one: tuple[str, int]) -> dict[str, Any]:
        return {"image": one[0], "label": names[one[1]] if names else None}

    def near(label: int, hits: int) -> list[dict[str, Any]]:
        same = [one for one in made if one[1] == label][:hits] or made[:1]
        mixed = (same + dice.sample(made, 6))[:6]
        return [entry(one) | {"similarity": 0.98 - 0.03 * rank} for rank, one in enumerate(mixed)]

    neighbours = [
        {"query": entry(one), "before": near(one[1], 1), "after": near(one[1], 4)} for one in made[: min(6, points)]
    ]
    on_map = []
    for one in made:
        angle = one[1] / 10 * 2 * math.pi
        x, y = 0.5 + 0.34 * math.cos(angle), 0.5 + 0.34 * math.sin(angle)
        place = {"x": min(1, max(0, dice.gauss(x, 0.07))), "y": min(1, max(0, dice.gauss(y, 0.07)))}
        on_map.append(place | entry(one) | {"cluster": (one[1] + (dice.random() < 0.2)) % 10})
    views = [{"original": one[0], "views": [other[0] for other in made[:8]]} for one in made[:3]]
    return {"views": views, "neighbours": neighbours, "map": {"method": "t-SNE", "points": on_map}}
