"""Fits a small Mask R-CNN to twenty real photographs, to show that it learns real boxes and masks; nothing is held out.

    pip download --no-deps --no-binary :all: labelbox==7.17.0      # needs hatchling; or fetch the sdist by hand
    tar xzf labelbox-7.17.0.tar.gz
    python benchmarks/detection_photos.py labelbox-7.17.0/tests/data/assets/coco --out runs/photos

That sdist carries 20 COCO photographs with 283 objects and 10 crowds in two files, one of polygons and one of run
lengths. They are joined here and go through `detection-folder`, with the same photographs to train on and to score.
Anchors start at 8 pixels and fewer boxes are sampled than published, since the photographs are small and few. Further
words are flags of `simsiam evaluate detection-folder`; the same command resumes where it was interrupted. What came out
is in docs/protocols/detection_coco.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from simsiam.backbones import build_backbone
from simsiam.cli import main as simsiam

FLAGS = (
    "--iterations 3200 --evaluate-every 800 --batch-size 2 --lr 0.8 --warmup-iterations 40 "
    "--train-images.short-sides 256 --train-images.long-side 384 --train-images.flip-probability 0 "
    "--test-images.short-sides 256 --test-images.long-side 384 "
    "--architecture.pyramid-channels 48 --architecture.rpn.channels 48 --architecture.rpn.scales 2 4 "
    "--architecture.rpn.sampling.count 64 --architecture.rpn.train.before-nms 600 --architecture.rpn.train.kept 200 "
    "--architecture.rpn.test.before-nms 600 --architecture.rpn.test.kept 300 "
    "--architecture.boxes.channels 48 --architecture.boxes.hidden 256 --architecture.boxes.sampling.count 64 "
    "--architecture.boxes.sampling.positive-fraction 0.5 "
    "--architecture.masks.channels 48"
).split()


def main() -> None:
    """Join the annotations, then train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="the folder with instances.json, rle.json and images/")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--backbone", default="resnet10", help="trained from random weights")
    parser.add_argument("--width", type=int, default=32)
    options, rest = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    joined = options.out / "photos.json"
    joined.write_text(json.dumps(join(*[json.loads((options.photos / name).read_text()) for name in NAMES])))
    weights = options.out / "random.pth"
    torch.manual_seed(0)
    torch.save(build_backbone(options.backbone, width=options.width).state_dict(), weights)
    images = options.photos / "images"
    data = ["--data", joined, "--images", images, "--test", joined, "--test-images", images]
    words = [str(word) for word in [weights, *data, "--out", options.out / "result"]]
    simsiam(["evaluate", "detection-folder", *words, *FLAGS, *rest])


NAMES = ("instances.json", "rle.json")


def join(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two COCO files of the same categories as one, the annotations numbered anew."""
    assert one["categories"] == other["categories"]
    annotations = [dict(each, id=number) for number, each in enumerate(one["annotations"] + other["annotations"], 1)]
    return {**one, "images": one["images"] + other["images"], "annotations": annotations}


if __name__ == "__main__":
    main()
