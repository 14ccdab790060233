"""The OpenCV engine beside the PIL engine with the same draws, and JPEGs decoded at a lower scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from simsiam.config import Views
from simsiam.data.images import read_image
from simsiam.data.two_views.draws import Draws, crop_boxes, decoded_side, draw, step_generator
from simsiam.data.two_views.engines import opencv_crop, opencv_view, pil_crop, pil_view
from tests.data.published import PUBLISHED, only, views


@pytest.fixture(scope="module")
def patches() -> list[Image.Image]:
    """96 real patches of 64 x 48 pixels."""
    photographs = [Image.fromarray(pixels).resize((160, 107)) for pixels in load_sample_images().images]
    return [
        photograph.crop((left, top, left + 64, top + 48))
        for photograph in photographs
        for left in range(0, 96, 12)
        for top in range(0, 58, 10)
    ]


def both(patches: list[Image.Image], recipe: Views) -> tuple[np.ndarray, np.ndarray]:
    """Views of every patch by PIL and by OpenCV, N x S x S x 3 in levels."""
    draws = draw(recipe, len(patches), step_generator(seed=0, epoch=0, step=0))
    pair = [
        np.stack([make(patch, recipe, draws, row) for row, patch in enumerate(patches)]).astype(np.float64)
        for make in (pil_view, opencv_view)
    ]
    return pair[0], pair[1]


# Hue is rounded to 256 steps in other places; the blur is a true Gaussian, which differs where sigma is small.
@pytest.mark.parametrize(
    ("name", "recipe", "most", "mean"),
    [
        ("crop", only(), 2, 0.05),
        ("enlarging crop", only(size=80), 1, 0.05),
        ("shrinking crop", only(size=13), 2, 0.05),
        ("brightness", only(jitter_probability=1.0, brightness=0.4), 3, 0.1),
        ("contrast", only(jitter_probability=1.0, contrast=0.4), 3, 0.1),
        ("saturation", only(jitter_probability=1.0, saturation=0.4), 3, 0.1),
        ("hue", only(jitter_probability=1.0, hue=0.1), 13, 0.6),
        ("grey", only(grayscale_probability=1.0), 2, 0.05),
        ("blur", only(blur_probability=1.0), 24, 0.6),
        ("all", PUBLISHED, 24, 0.7),
    ],
)
def test_levels_are_those_of_pil(
    patches: list[Image.Image], name: str, recipe: Views, most: float, mean: float
) -> None:
    pil, opencv = both(patches, recipe)
    difference = np.abs(pil - opencv)
    assert difference.max() <= most
    assert difference.mean() <= mean
    assert abs((opencv - pil).mean()) < 0.12, "neither brighter nor darker on the whole"


def test_draws_matter(patches: list[Image.Image]) -> None:
    """The comparison can fail: other draws give other images by far."""
    pil, opencv = both(patches, PUBLISHED)
    assert np.abs(pil - np.roll(opencv, 1, axis=0)).mean() > 20


def test_the_crop_alone_is_flipped_where_drawn(patches: list[Image.Image]) -> None:
    recipe = only(size=24, flip_probability=0.5)
    draws = draw(recipe, len(patches), step_generator(seed=4, epoch=0, step=0))
    assert 0 < int(draws.flip.sum()) < len(patches)
    for row, patch in enumerate(patches):
        found = opencv_crop(np.asarray(patch), recipe, draws, row).astype(int)
        wanted = np.asarray(pil_crop(patch, recipe, draws, row))
        assert np.abs(found - (wanted[:, ::-1] if draws.flip[row] else wanted)).max() <= 2


@pytest.mark.parametrize("shape", [(300, 300), (1000, 300), (64, 900)])
def test_no_crop_of_an_image_at_the_decoded_side_is_enlarged(shape: tuple[int, int]) -> None:
    recipe = views(size=32)
    count = 4000
    draws: Draws = draw(recipe, count, step_generator(seed=0, epoch=0, step=0))
    side = decoded_side(recipe)
    height, width = (round(side * edge / min(shape)) for edge in shape)
    boxes = crop_boxes(recipe, draws.crop, np.full(count, height), np.full(count, width))
    smallest = boxes[:, 2:].min()
    assert smallest >= 31, "a rounded pixel less at the most"
    if shape[0] == shape[1]:
        assert smallest <= 34, "no larger than need be"


@pytest.mark.parametrize(
    ("wanted", "size"), [(None, (800, 600)), (301, (800, 600)), (300, (400, 300)), (75, (100, 75))]
)
def test_jpegs_are_decoded_at_the_scale_that_suffices(wanted: int | None, size: tuple[int, int]) -> None:
    photograph = Image.fromarray(load_sample_images().images[0]).resize((800, 600))
    files = {}
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        photograph.save(buffer, kind)
        files[kind] = buffer.getvalue()
    decoded = read_image(files["JPEG"], name="photograph", short_side=wanted)
    assert decoded.size == size
    assert read_image(files["PNG"], name="photograph", short_side=wanted).size == (800, 600)
    reference = read_image(files["JPEG"], name="photograph").resize(size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(decoded, np.float64) - np.asarray(reference, np.float64))
    assert difference.mean() < 2.5


def test_views_of_a_reduced_photograph_are_those_of_the_whole(patches: list[Image.Image]) -> None:
    """The bound on what decoding at a lower scale changes: the same draws, hardly another picture."""
    photograph = Image.fromarray(load_sample_images().images[1]).resize((1280, 960))
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=90)
    recipe = views(size=48)
    draws = draw(recipe, 40, step_generator(seed=2, epoch=0, step=0))
    whole = read_image(buffer.getvalue(), name="photograph")
    reduced = read_image(buffer.getvalue(), name="photograph", short_side=decoded_side(recipe))
    assert reduced.height < whole.height
    pair = [np.stack([opencv_view(image, recipe, draws, row) for row in range(40)]) for image in (whole, reduced)]
    difference = np.abs(pair[0].astype(np.float64) - pair[1])
    assert difference.mean() < 3
    assert abs(pair[0].mean() - pair[1].mean()) < 0.5
