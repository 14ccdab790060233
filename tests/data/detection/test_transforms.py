"""Images, boxes and masks move together: the painted pixels stay within their box and mask after every transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.data.detection.boxes import BoxSample, Target
from simsiam.data.detection.instance_masks import InstanceMasks, Polygons, Rle, encode
from simsiam.data.detection.transforms import BoxTransform, Transformed, transform

RED, BLUE = (255, 0, 0), (0, 0, 255)
VOC = BoxTransform(short_sides=(480,), long_side=1333, flip_probability=0.5)


def painted(width: int, height: int, boxes: list[tuple[int, int, int, int]], *, form: str = "rle") -> BoxSample:
    """Rectangles of red on blue, with their boxes and masks."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = BLUE
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        pixels[y1:y2, x1:x2] = RED
        mask[y1:y2, x1:x2] = True
    shapes: tuple[Polygons | Rle, ...] = encode(masks)
    if form == "polygon":
        shapes = tuple(
            Polygons(parts=(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64),))
            for x1, y1, x2, y2 in boxes
        )
    corners = torch.tensor(boxes, dtype=torch.float32)
    none = torch.zeros(len(boxes), dtype=torch.bool)
    target = Target(
        boxes=corners,
        labels=torch.arange(1, len(boxes) + 1),
        difficult=none,
        crowd=none.clone(),
        area=(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
        masks=InstanceMasks(height=height, width=width, shapes=shapes),
    )
    return BoxSample(image=Image.fromarray(pixels), target=target)


def done(sample: BoxSample, how: BoxTransform, seed: int = 0) -> Transformed:
    return transform(sample, how, np.random.default_rng(seed))


@pytest.mark.parametrize("form", ["rle", "polygon"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((60, 40), 80, 1333, (120, 80)),  # enlarged
        ((40, 60), 80, 1333, (80, 120)),
        ((60, 40), 20, 1333, (30, 20)),  # made smaller
        ((200, 40), 80, 200, (200, 40)),  # the long side wins
        ((45, 37), 61, 1333, (74, 61)),  # rounded: 45 x 61 / 37 = 74.19
    ],
)
def test_painted_pixels_stay_in_their_box_and_mask(
    size: tuple[int, int], short: int, long: int, expected: tuple[int, int], flip: float, form: str
) -> None:
    box = (5, 9, 29, 31)
    how = BoxTransform(short_sides=(short,), long_side=long, flip_probability=flip)
    one = done(painted(*size, [box], form=form), how)
    height, width = one.pixels.shape[:2]
    assert (width, height) == expected
    assert (one.original_width, one.original_height) == size
    red = (one.pixels[..., 0] > 128) & (one.pixels[..., 2] < 128)
    rows, columns = torch.where(red)
    x1, y1, x2, y2 = one.target.boxes[0].tolist()
    edges = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
    assert edges == pytest.approx((x1, y1, x2, y2), abs=0.75)  # an edge within a pixel falls to either side
    scaled = [corner * new / old for corner, new, old in zip(box, 2 * expected, 2 * size, strict=True)]
    if flip:
        scaled[0], scaled[2] = expected[0] - scaled[2], expected[0] - scaled[0]
    assert [x1, y1, x2, y2] == pytest.approx(scaled, rel=1e-5)
    assert one.target.masks is not None
    mask = one.target.masks[0]
    assert mask.shape == red.shape
    rim = 2 * (x2 - x1 + y2 - y1) * (0.8 if form == "rle" else 1.2)
    assert (mask ^ red).sum() <= rim  # no more than the outline's pixels differ
    grown = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0].bool()
    assert not (red & ~grown).any()


def test_every_object_keeps_its_own_mask_and_label() -> None:
    sample = painted(60, 40, [(2, 2, 20, 12), (30, 20, 50, 38)])
    one = done(sample, BoxTransform(short_sides=(80,), long_side=1333, flip_probability=1.0))
    assert one.target.labels.tolist() == [1, 2]
    assert one.target.masks is not None
    for box, mask in zip(one.target.boxes.tolist(), one.target.masks, strict=True):
        rows, columns = torch.where(mask)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box
        assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])


def test_one_size_is_drawn_for_each_image_from_those_given() -> None:
    sides = tuple(range(48, 81, 4))
    how = BoxTransform(short_sides=sides, long_side=1333, flip_probability=0.5)
    sample = painted(50, 40, [(2, 2, 20, 12)])
    drawn = [done(sample, how, seed) for seed in range(120)]
    assert {min(one.pixels.shape[:2]) for one in drawn} == set(sides)
    mirrored = sum(bool(one.target.boxes[0, 0] > one.pixels.shape[1] / 2) for one in drawn)
    assert 40 < mirrored < 80
    again = done(sample, how, 5)
    assert torch.equal(again.pixels, drawn[5].pixels)
    assert torch.equal(again.target.boxes, drawn[5].target.boxes)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (640, 480)), ((375, 500), (480, 640)), ((640, 200), (1333, 417)), ((1000, 300), (1333, 400))],
)
def test_published_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert VOC.scaled_size(*size, 480) == expected


def test_no_change_of_size_leaves_the_pixels_alone() -> None:
    sample = painted(60, 40, [(2, 2, 20, 12)])
    one = done(sample, BoxTransform(short_sides=(40,), long_side=1333, flip_probability=0.0))
    assert np.array_equal(one.pixels.numpy(), np.asarray(sample.image))
    mirrored = done(sample, BoxTransform(short_sides=(40,), long_side=1333, flip_probability=1.0))
    assert np.array_equal(mirrored.pixels.numpy(), np.asarray(sample.image)[:, ::-1])


def test_what_is_not_learnt_from() -> None:
    sample = painted(60, 40, [(2, 2, 20, 12), (30, 20, 50, 38), (5, 20, 6, 30), (40, 2, 55, 12)])
    target = sample.target
    target.difficult[1] = True
    target.crowd[3] = True
    target.boxes[2, 2] = 5.5  # half a pixel wide
    one = done(sample, BoxTransform(short_sides=(40,), long_side=1333, flip_probability=0.0))
    assert one.target.labels.tolist() == [1]
    assert one.target.masks is not None
    assert len(one.target.masks) == 1


def test_an_image_without_objects_or_masks() -> None:
    one = done(BoxSample(image=Image.new("RGB", (60, 40)), target=Target.empty()), VOC)
    assert one.target.boxes.shape == (0, 4)
    assert one.target.masks is None
    bare = InstanceMasks(height=40, width=60, shapes=())
    assert bare.resized(height=20, width=30).decode().shape == (0, 20, 30)
