"""Pictures of boxes and masks: what is drawn lies where it should, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.data.detection.boxes import BoxSample, Prediction
from simsiam.data.detection.instance_masks import InstanceMasks, encode
from simsiam.evaluation.detection.drawing import SIDE, Compared, draw_prediction, draw_target, grid, write_comparison
from simsiam.evaluation.palette import PALETTE, colour_of, font
from tests.evaluation.detection.box_cases import found, target

GREY = (128, 128, 128)
CLASSES = ("cat", "dog", "кошка")


def canvas(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def changed(drawn: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) != np.asarray(GREY)).any(2)


def test_a_box_lies_on_its_edges_in_the_classes_colour() -> None:
    drawn = draw_target(canvas(), target([(100, 200, 300, 400)], [2]), CLASSES)
    for at in ((100, 300), (299, 300), (200, 399), (299, 399)):
        assert drawn.getpixel(at) == PALETTE[1]
    for at in ((97, 300), (303, 300), (200, 300), (200, 405)):
        assert drawn.getpixel(at) == GREY


def test_small_images_are_enlarged_and_boxes_with_them() -> None:
    drawn = draw_target(canvas(56, 28), target([(10, 5, 30, 20)]), CLASSES)
    assert drawn.size == (SIDE, SIDE // 2)
    assert drawn.getpixel((100, 120)) == PALETTE[0]
    assert drawn.getpixel((299, 120)) == PALETTE[0]
    assert drawn.getpixel((200, 120)) == GREY
    assert draw_target(canvas(900, 300), target([]), CLASSES).size == (900, 300)


def test_a_mask_tints_its_own_pixels() -> None:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, 250:350, 150:250] = True
    masks = InstanceMasks(height=SIDE, width=SIDE, shapes=encode(mask))
    drawn = np.asarray(draw_target(canvas(), target([(100, 200, 300, 400)], masks=masks), CLASSES)).astype(int)
    inside = drawn[300, 200]
    expected = 0.6 * np.array(GREY) + 0.4 * np.array(PALETTE[0])
    assert np.abs(inside - expected).max() <= 2
    assert tuple(drawn[300, 130]) == GREY  # in the box, not in the mask


def test_only_sure_predictions_are_drawn() -> None:
    sure = found(0, [(100, 100, 200, 200), (300, 300, 400, 400)], [0.9, 0.3])
    drawn = changed(draw_prediction(canvas(), sure, CLASSES, threshold=0.5, most=20))
    assert drawn[100:200, 100:200].any()
    assert not drawn[290:410, 290:410].any()
    assert changed(draw_prediction(canvas(), sure, CLASSES, threshold=0.3, most=20))[290:410, 290:410].any()


def test_of_many_predictions_the_surest_are_drawn() -> None:
    many = found(0, [(100, 100, 200, 200), (300, 300, 400, 400), (20, 300, 90, 400)], [0.6, 0.9, 0.7])
    drawn = changed(draw_prediction(canvas(), many, CLASSES, threshold=0.5, most=1))
    assert drawn[300:400, 300:400].any()
    assert not drawn[110:190, 110:190].any()
    assert not drawn[300:400, 20:90].any()


def test_nothing_is_said_to_be_nothing() -> None:
    annotated = changed(draw_target(canvas(), target([]), CLASSES))
    missed = changed(
        draw_prediction(canvas(), found(0, [(100, 100, 200, 200)], [0.2]), CLASSES, threshold=0.5, most=20)
    )
    for drawn in (annotated, missed):
        assert drawn[:20, :90].all()
        assert not drawn[40:].any()
    assert annotated.sum() > missed.sum()  # the longer text


def test_masks_of_predictions() -> None:
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10:20, 10:20] = True
    one = Prediction(
        image=0,
        boxes=torch.tensor([[10.0, 10, 20, 20]]),
        scores=torch.ones(1),
        labels=torch.tensor([1]),
        masks=encode(mask),
    )
    drawn = draw_prediction(canvas(40, 40), one, CLASSES, threshold=0.5, most=20)
    assert drawn.getpixel((200, 200)) != GREY


def test_difficult_objects_and_crowds_say_so() -> None:
    """The names differ, and so do their pictures; the boxes are the same."""
    plain, difficult, crowd = (
        changed(draw_target(canvas(), target([(100, 200, 300, 400)], **flags), CLASSES))
        for flags in ({}, {"difficult": [True]}, {"crowd": [True]})
    )
    assert plain[200:400].sum() == difficult[200:400].sum() == crowd[200:400].sum()
    assert plain[:199].sum() < crowd[:199].sum() < difficult[:199].sum()


def test_names_of_one_place_do_not_cover_each_other() -> None:
    drawn = np.asarray(draw_target(canvas(), target([(100, 200, 300, 400)] * 3, [1, 2, 3]), CLASSES))
    for label in (1, 2, 3):
        assert (drawn == np.asarray(colour_of(label - 1))).all(2).sum() > 250, label


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (540, 540, 560, 560), (-30, -10, 700, 700), (280, 280, 281, 281)])
def test_boxes_at_the_edge(box: tuple[float, float, float, float]) -> None:
    drawn = draw_target(canvas(), target([box]), CLASSES)
    assert drawn.size == (SIDE, SIDE)
    assert (np.asarray(drawn) == np.asarray(PALETTE[0])).all(2).sum() > 200  # the name is in the picture


def test_every_class_has_a_colour_of_its_own() -> None:
    colours = [colour_of(label) for label in range(1, 81)]
    assert len(set(colours)) == 80
    assert all(0 <= level <= 255 for colour in colours for level in colour)
    assert colour_of(17) == colour_of(17)


def test_other_alphabets_are_written() -> None:
    text = font(14)
    assert text.getmask("кошка").getbbox() is not None
    assert bytes(text.getmask("к")) != bytes(text.getmask("ш"))  # not both the sign of a missing letter


def test_a_grid_of_wide_and_tall_images(tmp_path: Path) -> None:
    compared = [
        Compared(
            name=f"{width} x {height}",
            sample=BoxSample(image=canvas(width, height), target=target([(5, 5, 20, 20)])),
            prediction=found(0, [(5, 5, 20, 20)], [0.9]),
        )
        for width, height in ((60, 30), (30, 60), (1200, 800))
    ]
    for name in ("pictures/grid.jpg", "pictures/grid.png"):
        path = write_comparison(tmp_path / name, compared, CLASSES, threshold=0.5, most=20)
        with Image.open(path) as sheet:
            assert sheet.format == ("PNG" if name.endswith("png") else "JPEG")
            assert 2 * SIDE < sheet.width < 2 * SIDE + 50
            assert sheet.height > SIDE // 2 + SIDE + SIDE * 2 // 3
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == ["grid.jpg", "grid.png"]


def test_an_empty_grid() -> None:
    assert grid([], ("annotated", "found")).height > 0
