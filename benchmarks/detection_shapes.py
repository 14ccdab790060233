"""Trains a small Mask R-CNN on synthetic shapes and scores it on images held out: only a working detector gets there.

    python benchmarks/detection_shapes.py --out runs/shapes

1,200 images of 64 x 64 are learnt from and 150 scored; benchmarks/shapes.py draws them, with shapes 13 to 33 pixels
wide. Anchors start at 6 pixels, and channels and sampled boxes are fewer than published, since the images are small.
Further words are flags of `simsiam evaluate detection-folder`; the same command resumes where it was interrupted. What
came out is in docs/protocols/detection_coco.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from shapes import coco_folder

from simsiam.backbones import build_backbone
from simsiam.cli import main as simsiam
from simsiam.weights.save import write_backbone

FLAGS = (
    "--iterations 3600 --evaluate-every 1200 --batch-size 8 --lr 0.2 --warmup-iterations 100 "
    "--train-images.short-sides 56 64 72 --train-images.long-side 96 --test-images.short-sides 64 "
    "--architecture.pyramid-channels 32 --architecture.rpn.channels 32 --architecture.rpn.scales 2.8284 "
    "--architecture.rpn.sampling.count 32 "
    "--architecture.rpn.train.before-nms 400 --architecture.rpn.train.kept 100 "
    "--architecture.rpn.test.before-nms 200 --architecture.rpn.test.kept 50 "
    "--architecture.boxes.channels 32 --architecture.boxes.hidden 128 --architecture.boxes.sampling.count 32 "
    "--architecture.masks.channels 32"
).split()


def main() -> None:
    """Draw the images, then train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--train", type=int, default=1200, help="images")
    parser.add_argument("--test", type=int, default=150, help="images")
    parser.add_argument("--most", type=int, default=4, help="shapes of an image")
    parser.add_argument("--stem", default="small-stride2", help="imagenet: half the resolution, faster, less exact")
    options, rest = parser.parse_known_args()
    data = options.out / "coco"
    if not data.exists():
        coco_folder(data, train=options.train, test=options.test, side=64, most=options.most)
    torch.manual_seed(0)
    weights = write_backbone(options.out, build_backbone("resnet10", width=16, stem=options.stem), recipe=None)
    words = [str(weights)]
    for flag, split in (("", "train"), ("test", "val")):
        words += [f"--{flag or 'data'}", str(data / f"annotations/instances_{split}2017.json")]
        words += [f"--{flag + '-' if flag else ''}images", str(data / f"{split}2017")]
    simsiam(["evaluate", "detection-folder", *words, "--out", str(options.out / "result"), *FLAGS, *rest])


if __name__ == "__main__":
    main()
