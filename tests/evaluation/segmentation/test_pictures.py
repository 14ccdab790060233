"""Colours of classes, masks over images, and the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from simsiam.evaluation.palette import UNLABELLED, colours_of, write_picture
from simsiam.evaluation.segmentation.pictures import Example, coloured, grid, overlay, palette_image

CLASSES = ("background", *(f"kind {number}" for number in range(20)))


def test_every_class_has_a_colour_of_its_own_that_can_be_told_apart() -> None:
    colours = colours_of(CLASSES).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(len(colours), dtype=int)
    assert distances.min() > 40


def test_masks_are_coloured_and_laid_over() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    image = Image.new("RGB", (2, 2), (100, 110, 120))
    colours = colours_of(CLASSES)
    flat = np.asarray(coloured(mask, CLASSES))
    assert (flat[0, 0] == colours[0]).all()
    assert (flat[1, 0] == colours[2]).all()
    assert tuple(flat[1, 1]) == UNLABELLED
    over = np.asarray(overlay(image, mask, CLASSES, strength=0.5)).astype(int)
    assert tuple(over[0, 0]) == (100, 110, 120)  # background is left alone
    assert np.abs(over[0, 1] - (colours[1] / 2 + np.array([50, 55, 60]))).max() <= 1


def test_a_palette_image_keeps_the_ids(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [20, 255]], np.uint8)
    palette_image(mask, CLASSES).save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert (np.asarray(image) == mask).all()
        assert (np.asarray(image.convert("RGB")) == np.asarray(coloured(mask, CLASSES))).all()


def test_the_grid_holds_image_truth_and_prediction(tmp_path: Path) -> None:
    truth = np.zeros((40, 80), np.uint8)
    truth[:, 40:] = 3
    example = Example(image=Image.new("RGB", (80, 40), "white"), truth=truth, found=np.full((40, 80), 5, np.uint8))
    sheet = np.asarray(grid([example, example], CLASSES))
    seen = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in colours_of(CLASSES)[[0, 3, 5]].tolist()} <= seen
    assert sheet.shape[0] > 2 * 160
    assert sheet.shape[1] > 3 * 320
    alone = Example(image=example.image, truth=None, found=example.found)
    assert grid([alone], CLASSES).width < grid([example], CLASSES).width
    write_picture(tmp_path / "pictures/p.jpg", grid([example], CLASSES))
    with Image.open(tmp_path / "pictures/p.jpg") as image:
        assert image.format == "JPEG"
