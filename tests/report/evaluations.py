"""Makes evaluation folders as detection, segmentation and classification leave them, with plausible numbers."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw

from simsiam.results import DataId, Result, WeightsId

Kind = Literal["voc", "coco", "segmentation", "classification"]

VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
).split()
DATA = {
    "voc": DataId(name="voc0712-trainval", sha256="d" * 64, images=21503),
    "coco": DataId(name="my-shapes", sha256="e" * 64, images=50),
    "segmentation": DataId(name="voc12aug", sha256="f" * 64, images=12031),
    "classification": DataId(name="imagenet", sha256="0" * 64, images=1331167),
}


def make_evaluation(folder: Path, kind: Kind, *, pictures: bool = True) -> Path:
    """Write result.json, metrics.jsonl and pictures."""
    dice = random.Random(3)
    folder.mkdir(parents=True)
    metrics, detail = _figures(kind, dice)
    if pictures and kind != "classification":
        (folder / "pictures").mkdir()
        paint(folder / "pictures" / "predictions.jpg")
        caption = "Annotated at the left, found at the right."
        detail["pictures"] = [{"file": "pictures/predictions.jpg", "caption": caption}]
    main = next(iter(metrics))
    protocol = {
        "voc": "detection_voc0712",
        "coco": "detection_coco",
        "segmentation": "segmentation_voc12aug",
        "classification": "linear_mhead",
    }[kind]
    Result(
        protocol=protocol,
        main_metric=main,
        metrics=metrics,
        recipe={
            "name": f"{kind}_recipe",
            "lr": 0.02,
            "batch_size": 16,
            "resizing": {"short": [480, 512, 800], "long": 1333},
            "milestones": [18000, 22000],
        },
        weights=WeightsId(source="runs/simsiam_resnet50_100e", sha256="a" * 64),
        data=DATA[kind],
        seed=0,
        seconds=41234.5,
        versions={"python": "3.11.9", "torch": "2.14.1", "torchvision": "0.29.1"},
        detail=detail,
        notes=["The rate was scaled to batch 16: `--lr 0.02`.", "3 boxes <cut> at the edge & kept."],
    ).write(folder / "result.json")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(kind, metrics, dice)))
    return folder


def _figures(kind: Kind, dice: random.Random) -> tuple[dict[str, float], dict[str, Any]]:
    if kind == "voc":
        metrics = {"ap50": 81.37, "ap50_area": 82.9, "ap": 55.2, "ap75": 61.0}
        per_class: Any = {name: {one: value + dice.uniform(-15, 12) for one in VOC} for name, value in metrics.items()}
        sweep = [{"lr": 0.01, "ap50": 70.1}, {"lr": 0.02, "ap50": 72.4}, {"lr": 0.04, "ap50": None}]
        return metrics, {"per_class": per_class, "lr_sweep": sweep, "train_images": 16551}
    if kind == "coco":
        parts = {"ap": 41.0, "ap50": 63.0, "ap75": 44.0, "ap_small": 22.0, "ap_medium": 45.0, "ap_large": 57.0}
        metrics = {
            f"{part}_{key}": value - 4 * (part == "mask") for part in ("box", "mask") for key, value in parts.items()
        }
        names = ("circle", "square", "a class with a rather long name, as some data sets have them")
        return metrics, {"per_class": {"box_ap": dict.fromkeys(names, 41.0), "mask_ap": dict.fromkeys(names, 37.0)}}
    if kind == "segmentation":
        per_class = {"IoU": {one: dice.uniform(20, 90) for one in ["background", *VOC[:-1]]} | {VOC[-1]: None}}
        return {"miou": 62.5, "pixel_accuracy": 91.2}, {"per_class": per_class}
    names = [f"class {number}" for number in range(300)]
    return {"feature5": 67.9, "feature4": 60.9}, {"per_class": {name: dice.uniform(5, 99) for name in names}}


def _rows(kind: Kind, metrics: dict[str, float], dice: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(10, 2401, 10):
        loss = 0.4 + 1.5 * math.exp(-step / 500) + dice.uniform(-0.1, 0.1)
        parts = (
            {"loss_classes": loss * 0.5, "loss_boxes": loss * 0.3, "loss_rpn": loss * 0.2}
            if kind != "segmentation"
            else {}
        )
        numbers = {
            "loss": loss,
            **parts,
            "images_per_second": 30.0,
            "data_wait": 0.01,
            "lr": 0.02 * (0.1 if step > 1800 else 1),
        }
        rows.append({"kind": "step", "epoch": step / 600, "step": step, **numbers})
        if step % 600 == 0:
            share = 1 - math.exp(-step / 700)
            where = {"epoch": step // 600} if kind == "classification" else {"step": step}
            rows.append({"kind": "evaluation", **where, **{key: value * share for key, value in metrics.items()}})
    return rows


def paint(path: Path) -> None:
    """A picture in the size of a grid."""
    sheet = Image.new("RGB", (1144, 700), "white")
    pen = ImageDraw.Draw(sheet)
    for left in (8, 576):
        pen.rectangle((left, 60, left + 560, 620), fill=(90, 130, 90))
        pen.rectangle((left + 100, 200, left + 300, 400), outline=(230, 75, 53), width=3)
    sheet.save(path, quality=80)
