"""`simsiam evaluate detection-...` and `simsiam predict` on tiny shapes, and what they need, for tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from simsiam import cli
from simsiam.backbones import build_backbone
from simsiam.weights.save import write_backbone
from tests import tiny_shapes

SIDE = 64
IMAGES = f"--train-images.short-sides 56 64 --train-images.long-side 80 --test-images.short-sides {SIDE}".split()
FEW = (
    "--architecture.rpn.train.before-nms 200 --architecture.rpn.train.kept 40 --architecture.rpn.test.before-nms 100 "
    "--architecture.rpn.test.kept 20 --architecture.rpn.sampling.count 32 --architecture.boxes.sampling.count 16"
).split()
NARROW = (
    "--architecture.pyramid-channels 16 --architecture.rpn.channels 16 --architecture.boxes.channels 16 "
    "--architecture.boxes.hidden 32 --architecture.masks.channels 16"
).split()
SHORT = "--iterations 4 --evaluate-every 2 --batch-size 4 --lr 0.08".split()
CPU = "--device cpu --workers 0".split()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("weights") / "narrow"
    write_backbone(folder, build_backbone("resnet10", width=8, stem="small-stride2"), recipe=None)
    return folder


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shapes.voc_tree(tmp_path_factory.mktemp("voc"), train=10, test=4, side=SIDE)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shapes.coco_folder(tmp_path_factory.mktemp("coco"), train=8, test=4, side=SIDE)


def evaluate(name: str, *words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", f"detection-{name}", *CPU, *IMAGES, *FEW, *map(str, words)])
    return int(stop.value.code or 0)


def predict(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", *map(str, words), "--device", "cpu"])
    return int(stop.value.code or 0)


def masks_of(coco: Path) -> list[object]:
    """COCO's own annotations as a folder of one's own."""
    notes = coco / "annotations"
    return [
        *("--data", notes / "instances_train2017.json", "--images", coco / "train2017"),
        *("--test", notes / "instances_val2017.json", "--test-images", coco / "val2017"),
    ]


@pytest.fixture(scope="module")
def done(weights: Path, voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The VOC07+12 benchmark from start to end."""
    out = tmp_path_factory.mktemp("done")
    assert evaluate("voc0712", weights, "--data", voc, "--out", out, *SHORT) == 0
    return out


@pytest.fixture(scope="module")
def done_with_masks(weights: Path, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("masks")
    assert evaluate("folder", weights, *masks_of(coco), "--out", out, *SHORT, *NARROW) == 0
    return out
