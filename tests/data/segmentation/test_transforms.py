"""Image and mask move together; the crop rule, the distortion and the padding against their definitions."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from simsiam.data.segmentation.masks import IGNORE
from simsiam.data.segmentation.transforms import augment, crop_corner, distort, fitted, mixed, resize_mask, resized_part
from simsiam.recipes.segmentation import fcn_r50_d8_512x512_20k_voc12aug, sized
from tests import tiny_masks

PUBLISHED = fcn_r50_d8_512x512_20k_voc12aug().segmentation.augmentation
SMALL = sized(fcn_r50_d8_512x512_20k_voc12aug(), 64).segmentation.augmentation
PLAIN = replace(SMALL, distort_probability=0.0, most_of_one_class=1.0)


def test_the_published_settings() -> None:
    assert (PUBLISHED.scale_long, PUBLISHED.scale_short, PUBLISHED.crop) == (2048, 512, 512)
    assert (PUBLISHED.min_ratio, PUBLISHED.max_ratio, PUBLISHED.most_of_one_class) == (0.5, 2.0, 0.75)


@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (683, 512)), ((375, 500), (512, 683)), ((2000, 100), (2048, 102))]
)
def test_resizing_keeps_the_shape_within_both_edges(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(size, long=2048, short=512) == expected


@pytest.mark.parametrize("size", [(64, 64), (90, 70), (40, 120), (31, 33)])
def test_image_and_mask_move_together(size: tuple[int, int]) -> None:
    """Each class has a colour of its own, so that every pixel says which class its mask must hold."""
    colours = np.array([(20, 20, 20), (250, 20, 20), (20, 250, 20), (20, 20, 250)], np.uint8)
    for seed in range(12):
        kinds = tiny_masks.scene(seed, size=size).kinds
        crop = augment(Image.fromarray(colours[kinds]), kinds, PLAIN, np.random.default_rng(seed))
        inside = crop.inside.astype(bool)
        distance = np.abs(crop.pixels[..., None, :].astype(int) - colours).sum(-1)  # S x S x classes
        sure = inside & (distance.min(-1) == 0)
        assert sure.sum() > 0.6 * inside.sum()
        agreement = (distance.argmin(-1) == crop.mask)[sure].mean()
        assert agreement > 0.995  # resampling in floating point may round a border the other way
        assert (crop.mask[~inside] == IGNORE).all()
        assert (crop.pixels[~inside] == 0).all()


def test_flips_and_scales_are_drawn() -> None:
    kinds = np.zeros((64, 64), np.uint8)
    kinds[:, :10] = 1
    image = Image.fromarray(np.repeat(kinds[..., None] * 200, 3, 2))
    still = replace(PLAIN, min_ratio=1.0, max_ratio=1.0)
    lefts = [augment(image, kinds, still, np.random.default_rng(n)).mask[0, 0] for n in range(200)]
    assert 0.4 < np.mean(lefts) < 0.6
    widths = [
        int((augment(image, kinds, replace(PLAIN, flip_probability=0.0), np.random.default_rng(n)).inside).sum())
        for n in range(40)
    ]
    assert min(widths) < 40 * 40
    assert max(widths) == 64 * 64


def test_a_small_image_is_padded_at_the_right_and_below() -> None:
    kinds = np.ones((20, 30), np.uint8)
    still = replace(PLAIN, scale_long=30, scale_short=20, min_ratio=1.0, max_ratio=1.0)
    crop = augment(Image.new("RGB", (30, 20), "white"), kinds, still, np.random.default_rng(0))
    expected = np.zeros((64, 64), np.uint8)
    expected[:20, :30] = 1
    assert (crop.inside == expected).all()
    assert (crop.mask == np.where(expected == 1, 1, IGNORE)).all()


def test_mixed_counts_labelled_pixels_only() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:2] = 1  # 20 of 100
    assert not mixed(mask, 0.75)
    mask[5:] = IGNORE  # 20 of 50, so the largest has 0.6
    assert mixed(mask, 0.75)
    assert not mixed(mask, 0.6)  # strictly less
    assert not mixed(np.full((4, 4), 3, np.uint8), 0.99)
    assert not mixed(np.full((4, 4), IGNORE, np.uint8), 0.99)


def test_the_crop_is_redrawn_up_to_ten_times() -> None:
    """Where one crop in four is mixed, eleven draws fail with probability 0.75 ** 11, about 4 %."""
    mask = np.zeros((64, 256), np.uint8)
    mask[:, 152:] = 1
    how = replace(SMALL, most_of_one_class=0.75)

    def good(at_left: int) -> bool:
        return mixed(mask[:, at_left : at_left + 64], 0.75)

    share = np.mean([good(left) for left in range(256 - 64 + 1)])
    found = np.mean([good(crop_corner(mask, how, np.random.default_rng(n)).left) for n in range(1500)])
    assert found == pytest.approx(1 - (1 - share) ** 11, abs=0.02)
    unbounded = np.mean(
        [
            good(crop_corner(mask, replace(how, most_of_one_class=1.0), np.random.default_rng(n)).left)
            for n in range(600)
        ]
    )
    assert unbounded == pytest.approx(share, abs=0.05)


def test_a_mask_takes_the_nearest_centre() -> None:
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    assert resize_mask(mask, (4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("size", [(33, 21), (64, 47), (129, 95), (250, 181)])
def test_a_part_of_a_resized_image_is_that_part(size: tuple[int, int]) -> None:
    image = tiny_masks.scene(3, size=(64, 47)).image
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(int)
    for box in ((0, 0, 16, 12), (5, 7, 30, 20), (size[0] - 17, size[1] - 13, size[0], size[1]), (0, 0, *size)):
        part = np.asarray(resized_part(image, size, box)).astype(int)
        assert np.abs(part - whole[box[1] : box[3], box[0] : box[2]]).max() <= 1


class Scripted:
    """A generator whose answers are given: shares for `random`, positions in the range for `uniform`."""

    def __init__(self, *answers: float) -> None:
        self.answers = list(answers)

    def random(self) -> float:
        return self.answers.pop(0)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.answers.pop(0)


YES, NO, BEFORE, AFTER = 0.1, 0.9, 0.1, 0.9
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8))


def distorted(*answers: float) -> np.ndarray:
    random = Scripted(*answers)
    result = np.asarray(distort(PHOTO, PUBLISHED, random)).astype(int)  # type: ignore[arg-type]
    assert random.answers == []
    return result


def test_brightness_and_contrast_by_their_formulas() -> None:
    pixels = np.asarray(PHOTO).astype(float)
    brighter = np.clip(pixels + 16, 0, 255).astype(int)  # three quarters of -32 to 32
    assert (distorted(YES, 0.75, AFTER, NO, NO, NO) == brighter).all()
    harder = np.clip(pixels * 1.25, 0, 255).astype(int)
    assert (distorted(NO, BEFORE, YES, 0.75, NO, NO) == harder).all()
    assert (distorted(NO, AFTER, NO, NO, YES, 0.75) == harder).all()
    assert (distorted(NO, AFTER, NO, NO, NO) == pixels).all()


def test_hue_and_saturation_agree_with_colorsys() -> None:
    expected = []
    for red, green, blue in np.asarray(PHOTO).reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        turned = (hue + 9 / 180) % 1  # three quarters of -18 to 18
        expected.append(colorsys.hsv_to_rgb(turned, min(1.0, saturation * 1.25), value))
    wanted = np.array(expected).reshape(6, 7, 3) * 255
    found = distorted(NO, AFTER, YES, 0.75, YES, 0.75, NO)
    assert np.abs(found - wanted).max() < 6  # 8 bits each for hue and saturation
    assert np.abs(found - wanted).mean() < 1.5
