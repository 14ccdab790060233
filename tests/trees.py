"""Tiny trees in the layouts of ImageNet, iNaturalist 2018 and Places205: three classes of shapes."""

from __future__ import annotations

import json
from pathlib import Path

from tests import tiny

SIZES = {"train": 12, "val": 6}


def draw(path: Path, index: int) -> None:
    """A JPEG of shape `index % 3`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny.shape(tiny.SHAPES[index % 3], seed=index, size=(48, 40)).save(path, "JPEG")


def imagenet(root: Path, *, sizes: dict[str, int] | None = None) -> Path:
    """Class folders train/WNID and val/WNID, and the list 10pct.txt of six training images."""
    names: dict[str, list[str]] = {}
    for split, count in (sizes or SIZES).items():
        names[split] = [f"n{index % 3:08d}/n{index % 3:08d}_{index}.JPEG" for index in range(count)]
        for index, name in enumerate(names[split]):
            draw(root / split / name, index)
    (root / "10pct.txt").write_text("".join(f"{Path(name).name}\n" for name in names["train"][:6]))
    return root


def imagenet_lists(root: Path) -> Path:
    """Add meta/train.txt and meta/val.txt to an ImageNet tree."""
    (root / "meta").mkdir(exist_ok=True)
    for split in SIZES:
        files = sorted((root / split).rglob("*.JPEG"))
        lines = [f"{file.relative_to(root / split)} {int(file.parent.name[1:])}\n" for file in files]
        (root / "meta" / f"{split}.txt").write_text("".join(lines))
    return root


def inaturalist(root: Path) -> Path:
    """train2018.json, val2018.json and train_val2018/."""
    for split, count in SIZES.items():
        images = [{"id": n, "file_name": f"train_val2018/Aves/{n % 3}/{split}{n}.jpg"} for n in range(count)]
        for index, image in enumerate(images):
            draw(root / str(image["file_name"]), index)
        notes = [{"image_id": n, "category_id": n % 3} for n in range(count)]
        content = {"images": images, "annotations": notes, "categories": [{"id": n} for n in range(3)]}
        (root / f"{split}2018.json").write_text(json.dumps(content))
    return root


def places205(root: Path) -> Path:
    """trainvalsplit_places205/ and images256/."""
    lists = root / "trainvalsplit_places205"
    lists.mkdir(parents=True)
    for split, count in SIZES.items():
        names = [f"{split}/{n % 3}/{n}.jpg" for n in range(count)]
        for index, name in enumerate(names):
            draw(root / "images256" / name, index)
        lines = [f"{name} {index % 3}\n" for index, name in enumerate(names)]
        (lists / f"{split}_places205.csv").write_text("".join(lines))
    return root
