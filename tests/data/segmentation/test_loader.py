"""The training stream is a pure function of seed and place; test images come whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.folders import open_mask_tree
from simsiam.data.segmentation.loader import MaskBatch, MaskLoader, whole_images
from simsiam.data.segmentation.masks import MaskSource
from simsiam.errors import UserError
from simsiam.recipes.segmentation import fcn_d8_folder, sized
from tests import tiny_masks

CPU = torch.device("cpu")
NORMALISE = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
HOW = sized(fcn_d8_folder(), 48).segmentation.augmentation


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> MaskSource:
    root = tiny_masks.folders(tmp_path_factory.mktemp("masks"), train=5, val=2, size=(64, 40))
    return open_mask_tree(root, None, seed=0).train


def loader(source: MaskSource, **changes: Any) -> MaskLoader:
    settings: dict[str, Any] = {
        "steps": 3,
        "global_batch": 4,
        "batch": 4,
        "first": 0,
        "seed": 7,
        "device": CPU,
        "channels_last": False,
        "workers": 0,
    }
    return MaskLoader(source, HOW, NORMALISE, **{**settings, **changes})


def joined(batches: list[MaskBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.masks for batch in batches])


def test_shapes_values_and_padding(source: MaskSource) -> None:
    batch = next(loader(source).epoch(0))
    assert batch.images.shape == (4, 3, 48, 48)
    assert batch.masks.shape == (4, 48, 48)
    assert batch.masks.dtype == torch.int64
    assert set(batch.masks.unique().tolist()) <= {0, 1, 2, 3, 255}
    padded = [b for b in loader(source, steps=12).epoch(0) if (b.masks == 255).any()]
    assert padded  # 0.5 x 48 pixels are fewer than the crop
    padding = (padded[0].masks == 255)[:, None].expand_as(padded[0].images)
    assert (padded[0].images[padding] == 0).all()


def test_normalising_is_that_of_the_weights() -> None:
    pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    expected = [(0 - 0.4) / 0.2, (128 / 255 - 0.5) / 0.25, (1 - 0.6) / 0.3]
    assert NORMALISE(pixels).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_every_image_comes_once_a_pass(source: MaskSource) -> None:
    plain = loader(source, steps=10, global_batch=2, batch=2)
    rows = [plain.request(0, step).indices for step in range(10)]
    flat = np.concatenate(rows)
    assert flat.tolist() == sorted(flat.tolist(), key=lambda row: row // 5)
    for through in range(4):
        assert sorted(flat[through * 5 : (through + 1) * 5] % 5) == [0, 1, 2, 3, 4]
    assert flat[:5].tolist() != (flat[5:10] - 5).tolist()  # another order


def test_an_image_is_drawn_anew_each_pass(source: MaskSource) -> None:
    one = loader(source.subset([0]), steps=1, global_batch=1, batch=1)
    shown = [next(one.epoch(epoch)).images for epoch in (0, 1, 2, 1)]
    assert torch.equal(shown[1], shown[3])
    assert not any(torch.equal(shown[first], shown[second]) for first, second in ((0, 1), (0, 2), (1, 2)))


def test_a_resume_goes_on_with_the_same_batches(source: MaskSource) -> None:
    whole = [batch for epoch in range(2) for batch in loader(source).epoch(epoch)]
    resumed = list(loader(source).epoch(1, first_step=1))
    for one, other in zip(joined(whole[4:]), joined(resumed), strict=True):
        assert torch.equal(one, other)


def test_processes_share_the_global_batch_and_workers_change_nothing(source: MaskSource) -> None:
    alone = next(loader(source).epoch(0))
    parts = [next(loader(source, batch=2, first=first).epoch(0)) for first in (0, 2)]
    for one, other in zip((alone.images, alone.masks), joined(parts), strict=True):
        assert torch.equal(one, other)
    busy = loader(source, workers=1)
    with_worker = next(busy.epoch(0))
    busy.close()
    assert torch.equal(alone.images, with_worker.images)


def test_an_image_that_vanished_ends_the_run_with_its_name(tmp_path: Path) -> None:
    root = tiny_masks.folders(tmp_path, train=2, val=2)
    source = open_mask_tree(root, None, seed=0).train
    (root / "masks/train/scene000.png").unlink()
    with pytest.raises(UserError, match="scene000"):
        list(loader(source).epoch(0))


def test_test_images_come_in_order_at_the_test_size(source: MaskSource) -> None:
    found = list(
        whole_images(source, NORMALISE, scale_long=256, scale_short=80, indices=np.array([3, 1]), device=CPU, workers=0)
    )
    assert [each.index for each in found] == [3, 1]
    assert found[0].image.shape == (1, 3, 80, 128)
    assert found[0].mask.shape == (40, 64)
    assert torch.equal(found[0].mask, torch.from_numpy(source.mask(3)).long())
    pixels = np.asarray(source.read(3).resize((128, 80), 2))
    assert torch.equal(found[0].image, NORMALISE(torch.from_numpy(np.array(pixels))[None]))
