"""Fits a small Faster R-CNN C4 to aerial photographs with VOC-XML boxes, to show that it learns; nothing is held out.

    pip download --no-deps deepforest==2.1.0      # its data folder has OSBS_029 and SOAP_061, .xml beside the picture
    python benchmarks/detection_trees.py FOLDER_WITH_THESE_FOUR_FILES --out runs/trees

Further words are flags of `simsiam evaluate detection-folder`. What came out is in docs/protocols/detection_coco.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from simsiam.backbones import build_backbone
from simsiam.cli import main as simsiam
from simsiam.weights.save import write_backbone

FLAGS = (
    "--iterations 250 --evaluate-every 250 --batch-size 2 --lr 0.8 --warmup-iterations 20 "
    "--train-images.short-sides 400 --train-images.long-side 400 "
    "--test-images.short-sides 400 --test-images.long-side 400 "
    "--architecture.rpn.train.before-nms 1000 --architecture.rpn.train.kept 300 "
    "--architecture.rpn.test.before-nms 1000 --architecture.rpn.test.kept 300 "
    "--architecture.rpn.sampling.count 128 --architecture.boxes.sampling.count 128"
).split()


def main() -> None:
    """Train and score on the same photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures with a VOC-XML file beside each")
    parser.add_argument("--out", type=Path, default=Path("runs/trees"))
    options, rest = parser.parse_known_args()
    torch.manual_seed(0)
    weights = write_backbone(options.out, build_backbone("resnet10", width=16, stem="small-stride2"), recipe=None)
    data = ["--data", str(options.folder), "--test", str(options.folder)]
    simsiam(["evaluate", "detection-folder", str(weights), *data, "--out", str(options.out / "result"), *FLAGS, *rest])


if __name__ == "__main__":
    main()
