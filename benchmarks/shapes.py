"""A synthetic set for detectors and segmentors: circles, squares and triangles of any colour on noisy grounds.

Written as a VOC tree, a COCO folder or a plain VOC-XML folder:

    python benchmarks/shapes.py OUT --form voc|coco|folder --train 400 --test 100 --side 128
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")
CATEGORY_IDS = {"circle": 7, "square": 3, "triangle": 90}  # neither in order nor without gaps, as in COCO
HIDDEN = 0.5  # of a shape; with more of it covered it is difficult
_GONE = 0.15  # of a shape; with less of it in sight it is not annotated


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An image with N shapes."""

    image: Image.Image
    boxes: np.ndarray  # N x 4 float32, x1 y1 x2 y2, of what is in sight
    labels: np.ndarray  # N int64, 1..3; see CLASSES
    masks: np.ndarray  # N x side x side bool, in sight
    visible: np.ndarray  # N float64, fraction in sight
    outlines: tuple[np.ndarray, ...]  # N polygons, K x 2, of the whole shapes


def draw_shapes(rng: np.random.Generator, side: int, *, most: int = 4) -> Drawn:
    """One to `most` shapes, later ones before earlier ones."""
    scale = 4  # drawn larger, so that edges are smooth
    ground = rng.integers(30, 226, 3)
    noise = rng.normal(0, 1, (side, side, 1)) * 14 + _blotches(rng, side) * 18
    pixels = np.clip(ground + noise, 0, 255)
    outlines, labels, masks = [], [], []
    for _ in range(int(rng.integers(1, most + 1))):
        label = int(rng.integers(1, len(CLASSES) + 1))
        outline = _outline(rng, CLASSES[label - 1], side)
        cover = Image.new("L", (side * scale, side * scale))
        ImageDraw.Draw(cover).polygon([tuple(point) for point in (outline * scale).tolist()], fill=255)
        share = np.asarray(cover.resize((side, side), Image.Resampling.BOX), np.float64)[..., None] / 255
        colour = _colour(rng, ground) + rng.normal(0, 6, (side, side, 1))
        pixels = pixels * (1 - share) + np.clip(colour, 0, 255) * share
        inside = share[..., 0] >= 0.5
        masks = [mask & ~inside for mask in masks]
        outlines.append(outline)
        labels.append(label)
        masks.append(inside)
    whole = np.array([_area(outline) for outline in outlines])
    visible = np.array([mask.sum() for mask in masks]) / whole
    kept = [number for number in range(len(labels)) if visible[number] >= _GONE]
    return Drawn(
        image=Image.fromarray(pixels.astype(np.uint8)),
        boxes=np.array([_box(masks[number]) for number in kept], np.float32).reshape(-1, 4),
        labels=np.array([labels[number] for number in kept], np.int64),
        masks=np.array([masks[number] for number in kept]).reshape(-1, side, side),
        visible=np.minimum(visible[kept], 1.0),
        outlines=tuple(outlines[number] for number in kept),
    )


def voc_tree(root: Path, *, train: int, test: int, side: int, seed: int = 0) -> Path:
    """A VOCdevkit: half of `train` as trainval of VOC2007, the rest as trainval of VOC2012, `test` in VOC2007."""
    first = 0
    for year, split, count in (
        ("VOC2007", "trainval", train // 2),
        ("VOC2007", "test", test),
        ("VOC2012", "trainval", train - train // 2),
    ):
        tree = root / year
        for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (tree / part).mkdir(parents=True, exist_ok=True)
        names = [f"{number:06d}" for number in range(first + 1, first + count + 1)]
        (tree / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names, first):
            drawn = draw_shapes(np.random.default_rng([seed, number]), side)
            drawn.image.save(tree / "JPEGImages" / f"{name}.jpg", quality=95)
            (tree / "Annotations" / f"{name}.xml").write_text(annotation(drawn, f"{name}.jpg", first_pixel=1))
        first += count
    return root


def voc_folder(root: Path, *, images: int, side: int, seed: int = 0) -> Path:
    """PNG images and XML files side by side, pixels counted from 0, as labelling tools leave them."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        drawn = draw_shapes(np.random.default_rng([seed, number]), side)
        drawn.image.save(root / f"shapes {number:04d}.png")
        (root / f"shapes {number:04d}.xml").write_text(annotation(drawn, f"shapes {number:04d}.png", first_pixel=0))
    return root


def coco_folder(root: Path, *, train: int, test: int, side: int, most: int = 4, seed: int = 0) -> Path:
    """COCO 2017's layout, with polygons, run lengths of both forms and crowds; up to `most` shapes an image."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, first, count in (("train", 0, train), ("val", train, test)):
        (root / f"{split}2017").mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(first, first + count):
            drawn = draw_shapes(np.random.default_rng([seed, number]), side, most=most)
            image: dict[str, Any] = {
                "id": 1000 + 7 * number,
                "file_name": f"{number:012d}.jpg",
                "width": side,
                "height": side,
            }
            picture = np.array(drawn.image)
            for row in range(len(drawn.labels)):
                annotations.append({**_coco_object(drawn, row), "image_id": image["id"], "id": 50 + len(annotations)})
            if number % 5 == 0 and (crowd := _crowd(picture, drawn, np.random.default_rng([seed, number, 1]))):
                annotations.append({**crowd, "image_id": image["id"], "id": 50 + len(annotations)})
            Image.fromarray(picture).save(root / f"{split}2017" / image["file_name"], quality=95)
            images.append(image)
        categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def annotation(drawn: Drawn, file: str, *, first_pixel: int) -> str:
    """VOC's XML; shapes that are mostly covered are difficult."""
    objects = []
    for box, label, visible in zip(drawn.boxes.tolist(), drawn.labels.tolist(), drawn.visible.tolist(), strict=True):
        x1, y1, x2, y2 = (round(value) for value in box)
        objects.append(
            f"<object><name>{CLASSES[label - 1]}</name><difficult>{int(visible < HIDDEN)}</difficult><bndbox>"
            f"<xmin>{x1 + first_pixel}</xmin><ymin>{y1 + first_pixel}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            "</bndbox></object>"
        )
    width, height = drawn.image.size
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file}</filename>{size}{''.join(objects)}</annotation>\n"


def runs(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of H x W bool: off, on, off, ..., column by column."""
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0)) if flat.size else np.empty(0, np.int64)
    return np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()


def _coco_object(drawn: Drawn, row: int) -> dict[str, Any]:
    """A whole shape as its polygon, a covered one as run lengths."""
    mask = drawn.masks[row]
    x1, y1, x2, y2 = drawn.boxes[row].tolist()
    if drawn.visible[row] > 0.98:
        segmentation: Any = [np.round(drawn.outlines[row], 2).reshape(-1).tolist()]
    else:
        segmentation = {"size": list(mask.shape), "counts": runs(mask)}
    return {
        "category_id": CATEGORY_IDS[CLASSES[int(drawn.labels[row]) - 1]],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation,
    }


def _crowd(picture: np.ndarray, drawn: Drawn, rng: np.random.Generator) -> dict[str, Any] | None:
    """A patch of tiny squares, drawn into `picture` where no shape is; None where there is no room."""
    side = picture.shape[0]
    patch = side // 4
    taken = drawn.masks.any(0)
    for _ in range(20):
        x, y = (int(value) for value in rng.integers(0, side - patch, 2))
        if taken[y : y + patch, x : x + patch].any():
            continue
        mask = np.zeros((side, side), bool)
        for _ in range(12):
            left, top = x + int(rng.integers(0, patch - 4)), y + int(rng.integers(0, patch - 4))
            picture[top : top + 4, left : left + 4] = rng.integers(0, 256, 3)
            mask[top : top + 4, left : left + 4] = True
        x1, y1, x2, y2 = _box(mask)
        return {
            "category_id": CATEGORY_IDS["square"],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(mask.sum()),
            "iscrowd": 1,
            "segmentation": {"size": [side, side], "counts": runs(mask)},
        }
    return None


def _outline(rng: np.random.Generator, kind: str, side: int) -> np.ndarray:
    """K x 2 points of one shape, wholly within the image."""
    radius = side * rng.uniform(0.1, 0.26)
    centre = rng.uniform(radius, side - radius, 2)
    turn = rng.uniform(0, 2 * math.pi)
    corners = {"circle": 40, "square": 4, "triangle": 3}[kind]
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _colour(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Any colour that stands out from the ground."""
    while True:
        colour = rng.integers(0, 256, 3)
        if np.abs(colour - ground).sum() > 150:
            return colour


def _blotches(rng: np.random.Generator, side: int) -> np.ndarray:
    """side x side x 3, smooth noise of about unit size."""
    coarse = rng.normal(0, 1, (8, 8, 3))
    planes = [
        Image.fromarray(coarse[..., channel].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], 2)


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--form", choices=("voc", "coco", "folder"), required=True)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.form == "folder":
        voc_folder(given.out / "train", images=given.train, side=given.side, seed=given.seed)
        voc_folder(given.out / "test", images=given.test, side=given.side, seed=given.seed + 1)
    else:
        write = voc_tree if given.form == "voc" else coco_folder
        write(given.out, train=given.train, test=given.test, side=given.side, seed=given.seed)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
