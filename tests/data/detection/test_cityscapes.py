"""Things of Cityscapes: boxes, masks and groups out of instance ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data.detection.checks import checked
from simsiam.data.detection.cityscapes import THINGS, open_cityscapes_instances
from simsiam.errors import UserError

WIDTH, HEIGHT = 40, 24


def scene(root: Path, split: str, name: str, ids: np.ndarray | None) -> None:
    city = root / "leftImg8bit" / split / "ulm"
    city.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(city / f"{name}_leftImg8bit.png")
    masks = root / "gtFine" / split / "ulm"
    masks.mkdir(parents=True, exist_ok=True)
    if ids is not None:
        Image.fromarray(ids.astype(np.uint16)).save(masks / f"{name}_gtFine_instanceIds.png")


def ids() -> np.ndarray:
    """A road with a car half hidden by a person, a group of bicycles, and a car that is cut in two."""
    made = np.full((HEIGHT, WIDTH), 7)
    made[4:12, 3:15] = 26001
    made[8:20, 10:14] = 24000
    made[1:3, 20:30] = 33
    made[15:20, 20:24] = 26000
    made[15:20, 30:34] = 26000
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    scene(tmp_path, "train", "ulm_000000_000019", ids())
    scene(tmp_path, "train", "ulm_000001_000019", np.full((HEIGHT, WIDTH), 7))
    scene(tmp_path, "val", "ulm_000002_000019", ids())
    return tmp_path


def test_things_and_groups(root: Path) -> None:
    assert tuple(THINGS.values()) == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    splits = open_cityscapes_instances(root)
    assert (len(splits.train), len(splits.test)) == (2, 1)
    target = splits.train.target(0)
    names = [splits.train.classes[label - 1] for label in target.labels.tolist()]
    assert names == ["bicycle", "person", "car", "car"]
    assert target.crowd.tolist() == [True, False, False, False]
    assert target.boxes.tolist() == [[20, 1, 30, 3], [10, 8, 14, 20], [20, 15, 34, 20], [3, 4, 15, 12]]
    assert target.masks is not None
    masks = target.masks.decode().numpy()
    for mask, number in zip(masks, (33, 24000, 26000, 26001), strict=True):
        assert np.array_equal(mask, ids() == number)
    assert target.area.tolist() == [mask.sum() for mask in masks]
    assert len(splits.train.target(1)) == 0
    assert splits.train.image(0).path == "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    assert checked(splits.train, "stop").notes == []


def test_masks_that_are_missing_damaged_or_of_another_kind(root: Path) -> None:
    scene(root, "train", "ulm_000003_000019", None)
    scene(root, "train", "ulm_000004_000019", ids())
    (root / "gtFine" / "train" / "ulm" / "ulm_000004_000019_gtFine_instanceIds.png").write_bytes(b"")
    scene(root, "train", "ulm_000005_000019", ids())
    colour = Image.new("RGB", (WIDTH, HEIGHT))
    colour.save(root / "gtFine" / "train" / "ulm" / "ulm_000005_000019_gtFine_instanceIds.png")
    scene(root, "train", "ulm_000006_000019", ids()[:10])
    with pytest.raises(UserError) as raised:
        checked(open_cityscapes_instances(root).train, "stop")
    lines = str(raised.value).splitlines()
    assert "4 things are wrong" in lines[0]
    assert any("ulm_000003_000019_leftImg8bit.png: image without annotation" in line for line in lines)
    assert any("ulm_000004_000019_gtFine_instanceIds.png: unreadable annotation (empty file" in line for line in lines)
    assert any(
        "ulm_000005_000019_gtFine_instanceIds.png: unreadable annotation (not a picture of one" in line
        for line in lines
    )
    assert any("image of another size (40 x 24 pixels, but annotated as 40 x 10)" in line for line in lines)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leftImg8bit/train: no CITY/\*_leftImg8bit\.png"):
        open_cityscapes_instances(tmp_path)
