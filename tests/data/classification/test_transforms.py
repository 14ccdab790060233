"""The labelled augmentation against torchvision: crop boxes, colour, resizing, normalisation, lighting noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from simsiam.data.classification.transforms import Augmentation, Augmenter, _jitter, lighting, resized_crop_box
from simsiam.recipes.linear import crop_and_flip, resnet50_mhead_8xb32_steplr_28e_places205
from tests import tiny

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _augmenter(augmentation: Augmentation) -> Augmenter:
    return Augmenter(augmentation=augmentation, mean=MEAN, std=STD)


def test_crop_boxes_are_distributed_as_torchvisions() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = Image.new("RGB", (120, 80))
    ours = [resized_crop_box(120, 80, 0.08, rng) for _ in range(3000)]
    theirs = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    tops, lefts, heights, widths = np.array(theirs).T
    for mine, other in (
        ([box.width * box.height for box in ours], heights * widths),
        ([box.width / box.height for box in ours], widths / heights),
        ([box.left for box in ours], lefts),
        ([box.top for box in ours], tops),
    ):
        spread = other.std() / np.sqrt(3000)
        assert np.mean(mine) == pytest.approx(other.mean(), abs=5 * spread)
        assert np.std(mine) == pytest.approx(other.std(), rel=0.08)
    assert all(box.left + box.width <= 120 and box.top + box.height <= 80 for box in ours)


@pytest.mark.parametrize("size", [(1, 1), (500, 3), (3, 500), (1, 40)])
def test_odd_images_fall_back_to_the_centre_as_torchvision_does(size: tuple[int, int]) -> None:
    box = resized_crop_box(*size, 0.9, np.random.default_rng(0))
    assert 0 < box.width <= size[0]
    assert 0 < box.height <= size[1]
    if min(size) == 3:
        top, left, height, width = RandomResizedCrop.get_params(Image.new("RGB", size), [0.9, 1.0], [3 / 4, 4 / 3])
        assert (box.top, box.left, box.height, box.width) == (top, left, height, width)
    crop = _augmenter(crop_and_flip(8)).crop(Image.new("RGB", size), np.random.default_rng(0))
    assert crop.shape == (8, 8, 3)


def test_jitter_is_torchvisions_three_operations_in_the_drawn_order() -> None:
    image = tiny.shape("circle", seed=3)
    ours = np.asarray(_jitter(image, 0.4, np.random.default_rng(7)))
    rng = np.random.default_rng(7)
    factors, order = rng.uniform(0.6, 1.4, 3), rng.permutation(3)
    for which in order:
        image = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)[which](image, factors[which])
    assert np.array_equal(ours, np.asarray(image))


def test_flips_half_of_the_images() -> None:
    how = replace(crop_and_flip(8), min_scale=1.0)
    ramp = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8)[None, :, None] * 30, (8, 1, 3)))
    crops = [_augmenter(how).crop(ramp, np.random.default_rng(seed)) for seed in range(400)]
    flipped = sum(int(crop[0, 0, 0]) > int(crop[0, -1, 0]) for crop in crops)
    assert 160 < flipped < 240


def test_places_takes_random_crops_of_the_central_square() -> None:
    how = replace(resnet50_mhead_8xb32_steplr_28e_places205().heads.schooling.augmentation, flip_probability=0.0)
    image = tiny.shape("stripes", seed=1, size=(400, 300))
    square = np.asarray(tv.center_crop(tv.resize(image, 256), [256, 256]))
    offsets = set()
    for seed in range(12):
        crop = _augmenter(how).crop(image, np.random.default_rng(seed))
        assert crop.shape == (224, 224, 3)
        where = [
            (top, left)
            for top in range(33)
            for left in range(33)
            if np.array_equal(crop[0], square[top, left : left + 224])
            and np.array_equal(crop, square[top : top + 224, left : left + 224])
        ]
        assert where
        offsets |= set(where)
    assert len(offsets) > 8


def test_a_red_image_stays_red_and_normalised_as_torchvision_does() -> None:
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    augmenter = _augmenter(crop_and_flip(8))
    pixels = torch.from_numpy(augmenter.crop(red, np.random.default_rng(0)))[None]
    ours = augmenter.finish(pixels, [np.random.default_rng(0)])[0]
    expected = tv.normalize(tv.to_tensor(red.resize((8, 8))), list(MEAN), list(STD))
    assert torch.allclose(ours, expected, atol=1e-6)
    assert ours[0].min() > 2  # red is the first channel


def test_lighting_is_the_principal_components_times_the_draws() -> None:
    values, vectors = np.array([0.2175, 0.0188, 0.0045]), lighting(np.array([1.0, 0.0, 0.0]))
    assert vectors == pytest.approx(values[0] * np.array([-0.5675, -0.5808, -0.5836]), abs=1e-6)

    augmenter = _augmenter(replace(crop_and_flip(4), lighting=0.1))
    gray = torch.full((2000, 4, 4, 3), 128, dtype=torch.uint8)
    out = augmenter.finish(gray, [np.random.default_rng(seed) for seed in range(2000)])
    shift = out * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None] - 128 / 255
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-5)  # one shift for a whole image
    covariance = np.cov(shift[:, :, 0, 0].numpy().T)
    assert np.sqrt(np.linalg.eigvalsh(covariance)[::-1]) == pytest.approx(0.1 * values, rel=0.1)
