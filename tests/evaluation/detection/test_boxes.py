"""Anchors, box targets, assignment, sampling and pooling against hand-computed cases and torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, box_iou
from torchvision.ops.poolers import LevelMapper

from simsiam.evaluation.detection.boxes import (
    BACKGROUND,
    LEFT_OUT,
    assign,
    cell_anchors,
    decode,
    encode,
    grid_anchors,
    sample,
    trainable,
)
from simsiam.evaluation.detection.detector import Pyramid
from simsiam.evaluation.detection.heads import level_of, mask_targets, paste, pool
from simsiam.evaluation.detection.settings import Assignment, Sampling
from simsiam.recipes import detection as recipes
from tests.evaluation.detection import small_detectors as small

ROI = (0.1, 0.1, 0.2, 0.2)
RPN_RULE = Assignment(positive=0.7, negative=0.3, low_quality="on", lowest=0.3)


def random_boxes(count: int, *, seed: int, extent: float = 100) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent * 0.7
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * extent * 0.3], 1)


def test_the_anchors_of_c4_have_areas_32_to_512_squared_in_three_shapes() -> None:
    rpn = recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712().architecture.rpn
    boxes = cell_anchors(16, rpn.scales, rpn.ratios)
    assert boxes.shape == (15, 4)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([32.0, 64, 128, 256, 512] * 3))
    torch.testing.assert_close(height / width, torch.tensor([0.5] * 5 + [1.0] * 5 + [2.0] * 5))
    # ratio 1/2 at scale 2: 32 x 32 = 1024 pixels as 45.25 x 22.63, not rounded
    torch.testing.assert_close(boxes[0], torch.tensor([-22.627417, -11.3137085, 22.627417, 11.3137085]))
    torch.testing.assert_close(boxes[:, :2], -boxes[:, 2:])


def test_the_anchors_of_the_pyramid_double_from_level_to_level() -> None:
    rpn = recipes.mask_rcnn_r50_fpn_mstrain_1x_coco().architecture.rpn
    for stride, side in zip((4, 8, 16, 32, 64), (32, 64, 128, 256, 512), strict=True):
        square = cell_anchors(stride, rpn.scales, rpn.ratios)[1]
        torch.testing.assert_close(square, torch.tensor([-side / 2, -side / 2, side / 2, side / 2]))


def test_anchors_go_row_by_row_and_sit_on_the_corners_of_the_cells() -> None:
    cell = cell_anchors(16, (2.0,), (1.0, 4.0))  # 32 x 32 and 16 x 64
    grid = grid_anchors(cell, 2, 3, 16)
    assert grid.shape == (12, 4)
    torch.testing.assert_close(grid[0], torch.tensor([-16.0, -16, 16, 16]))
    torch.testing.assert_close(grid[1], torch.tensor([-8.0, -32, 8, 32]))
    torch.testing.assert_close(grid[2], torch.tensor([0.0, -16, 32, 16]))  # one column on
    torch.testing.assert_close(grid[11], torch.tensor([24.0, -16, 40, 48]))  # row 1, column 2, second shape


def test_only_anchors_within_the_image_train_where_the_border_is_not_to_be_crossed() -> None:
    cell = cell_anchors(16, (2.0,), (1.0,))  # 32 x 32
    anchors = grid_anchors(cell, 6, 6, 16)  # a batch of 96 x 96
    inside = trainable(anchors, (50, 64), (6, 6, 16), "inside").reshape(6, 6)
    # y from 16k - 16 to 16k + 16 within [0, 50): rows 1 and 2; x within [0, 64), where 64 itself is outside
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:3, 1:3] = True
    assert torch.equal(inside, expected)
    anywhere = trainable(anchors, (50, 64), (6, 6, 16), "any").reshape(6, 6)
    expected[:] = False
    expected[:4, :4] = True  # positions of the image padded by itself: 64 x 64
    assert torch.equal(anywhere, expected)


def test_box_targets_by_hand() -> None:
    anchor = torch.tensor([[10.0, 10, 30, 50]])  # centre (20, 30), 20 x 40
    box = torch.tensor([[15.0, 20, 55, 60]])  # centre (35, 40), 40 x 40
    torch.testing.assert_close(encode(box, anchor), torch.tensor([[0.75, 0.25, math.log(2), 0.0]]))
    torch.testing.assert_close(encode(box, anchor, ROI), torch.tensor([[7.5, 2.5, 5 * math.log(2), 0.0]]))


def test_box_targets_are_torchvisions_and_come_back() -> None:
    boxes, anchors = random_boxes(50, seed=0), random_boxes(50, seed=1)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    deltas = encode(boxes, anchors, ROI)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(deltas, anchors, (1000, 1000), ROI), boxes, atol=1e-4, rtol=1e-5)


def test_decoded_boxes_stay_in_the_image_and_do_not_explode() -> None:
    anchor = torch.tensor([[10.0, 10, 20, 20]])
    found = decode(torch.tensor([[[0.0, 0, 100, 100], [0, 0, -100, -100], [-5, 9, 0, 0]]]), anchor, (40, 60))
    assert found.shape == (1, 3, 4)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 0, 60, 40]))
    side = 10 * 16 / 1000  # no smaller than 16 / 1000 of the anchor
    torch.testing.assert_close(found[0, 1, 2:] - found[0, 1, :2], torch.tensor([side, side]), atol=1e-4, rtol=0)
    assert found[0, 2].tolist() == [0, 40, 0, 40]  # wholly outside: nothing left of it


def test_assignment_by_hand() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [100.0, 0, 110, 10], [200.0, 0, 210, 10]])
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 8],  # 0.8 with the first: positive
            [0.0, 0, 10, 5],  # 0.5: between the thresholds
            [0.0, 0, 10, 2],  # 0.2: background
            [100.0, 0, 110, 4],  # 0.4, but the best that the second has
            [200.0, 0, 210, 2],  # 0.2, the best of the third, and below the lowest
            [50.0, 50, 60, 60],  # nothing there
        ]
    )
    assert assign(boxes, objects, RPN_RULE).tolist() == [0, LEFT_OUT, BACKGROUND, 1, BACKGROUND, BACKGROUND]
    strict = Assignment(positive=0.7, negative=0.3, low_quality="off", lowest=0.3)
    assert assign(boxes, objects, strict).tolist() == [0, LEFT_OUT, BACKGROUND, LEFT_OUT, BACKGROUND, BACKGROUND]


def test_a_threshold_belongs_to_the_positive_side() -> None:
    rule = Assignment(positive=0.5, negative=0.5, low_quality="off", lowest=0.5)
    objects = torch.tensor([[0.0, 0, 8, 8]])
    assert assign(torch.tensor([[0.0, 0, 8, 4], [0.0, 0, 8, 3.9]]), objects, rule).tolist() == [0, BACKGROUND]


def test_without_objects_everything_is_background() -> None:
    assert assign(random_boxes(3, seed=0), torch.zeros(0, 4), RPN_RULE).tolist() == [BACKGROUND] * 3
    assert len(assign(torch.zeros(0, 4), random_boxes(3, seed=0), RPN_RULE)) == 0


def literally(boxes: Tensor, objects: Tensor, rule: Assignment) -> list[int]:
    """The published assigner, object by object."""
    overlaps = box_iou(objects, boxes)
    found = [LEFT_OUT] * len(boxes)
    for n in range(len(boxes)):
        column = overlaps[:, n]
        if column.max() < rule.negative:
            found[n] = BACKGROUND
        if column.max() >= rule.positive:
            found[n] = int(column.argmax())
    if rule.low_quality == "on":
        for m in range(len(objects)):
            if overlaps[m].max() >= rule.lowest:
                for n in range(len(boxes)):
                    if overlaps[m, n] == overlaps[m].max():
                        found[n] = m
    return found


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_published_loop(seed: int) -> None:
    objects = random_boxes(7, seed=seed)
    # near copies, so that there are positives; whole pixels, so that there are ties
    boxes = torch.cat([random_boxes(60, seed=seed + 50).round(), objects.round(), objects.round(), objects + 2])
    half = Assignment(positive=0.5, negative=0.5, low_quality="on", lowest=0.5)
    for rule in (RPN_RULE, half):
        assert assign(boxes, objects, rule).tolist() == literally(boxes, objects, rule)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(300, 5000, (128, 128)), (20, 5000, (20, 236)), (20, 30, (20, 30))]
)
def test_the_proposal_network_samples_256_half_of_them_positive_at_most(
    positives: int, negatives: int, expected: tuple[int, int]
) -> None:
    how = recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712().architecture.rpn.sampling
    assert how == Sampling(count=256, positive_fraction=0.5)
    assigned = torch.tensor([3] * positives + [BACKGROUND] * negatives + [LEFT_OUT] * 1000)
    positive, negative = sample(assigned, how, torch.Generator().manual_seed(0))
    assert (len(positive), len(negative)) == expected
    assert (assigned[positive] == 3).all()
    assert (assigned[negative] == BACKGROUND).all()
    assert len(set(positive.tolist() + negative.tolist())) == sum(expected)  # none twice


def test_sampling_is_decided_by_the_generator_alone() -> None:
    assigned = torch.tensor([0] * 50 + [BACKGROUND] * 500)
    how = Sampling(count=64, positive_fraction=0.25)
    draws = [sample(assigned, how, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0][1], draws[2][1])


@pytest.mark.parametrize("stride", [4, 16])
def test_pooling_reads_a_ramp_at_the_middle_of_every_bin(stride: int) -> None:
    """Pixel centres: feature i of a map of stride s sees the image at (i + 0.5) s. Without `aligned` this fails."""
    columns = (torch.arange(30) + 0.5) * stride
    ramp = columns.expand(1, 1, 30, 30)
    box = torch.tensor([[2.3 * stride, 3.1 * stride, 20.7 * stride, 11.0 * stride]])
    pooled = pool([ramp], [box], [stride], 7)
    width = (box[0, 2] - box[0, 0]) / 7
    expected = box[0, 0] + width * (torch.arange(7) + 0.5)
    torch.testing.assert_close(pooled[0, 0], expected.expand(7, 7), atol=1e-3, rtol=1e-4)


def test_large_bins_are_sampled_densely() -> None:
    """Adaptive sampling: the mean over a bin of many features sees all of them, not two by two points."""
    features = torch.zeros(1, 1, 32, 32)
    features[0, 0, 0, 0] = 1.0
    pooled = pool([features], [torch.tensor([[0.0, 0, 32, 32]])], [1], 2)
    torch.testing.assert_close(pooled[0, 0], torch.tensor([[1 / 256, 0], [0, 0]]))


def test_a_box_goes_to_the_level_of_its_size() -> None:
    sides = torch.tensor([1.0, 55, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], 1)
    assert level_of(boxes, (4, 8, 16, 32)).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    wide = torch.tensor([[0.0, 0, 448, 28]])  # 112 x 112 in area
    assert level_of(wide, (4, 8, 16, 32)).tolist() == [1]


def test_pooling_over_levels_takes_each_box_from_its_own() -> None:
    maps = [torch.full((2, 3, 64 // 2**n, 64 // 2**n), float(n)) for n in range(4)]
    maps = [each + torch.tensor([0.0, 10.0])[:, None, None, None] for each in maps]  # the second image is 10 more
    boxes = [torch.tensor([[0.0, 0, 20, 20], [0.0, 0, 230, 230]]), torch.tensor([[0.0, 0, 120, 120]])]
    pooled = pool(maps, boxes, (4, 8, 16, 32), 7)
    assert pooled.shape == (3, 3, 7, 7)
    torch.testing.assert_close(pooled.mean((1, 2, 3)), torch.tensor([0.0, 2.0, 11.0]))


def test_mask_targets_by_hand() -> None:
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    mask[1, 4:12, 6:14] = True
    boxes = torch.tensor([[6.0, 4, 14, 12], [10.0, 4, 18, 12], [0.0, 0, 4, 4]])
    target = mask_targets(mask, boxes, torch.tensor([1, 1, 1]), 4)
    assert target[0].eq(1).all()
    assert target[1].tolist() == [[1, 1, 0, 0]] * 4
    assert target[2].eq(0).all()
    assert mask_targets(mask, boxes, torch.tensor([0, 0, 0]), 4).eq(0).all()


@pytest.mark.parametrize("box", [(3.0, 5.0, 41.0, 33.0), (10.6, 2.2, 30.9, 39.4)])
def test_a_mask_comes_back_from_its_target(box: tuple[float, float, float, float]) -> None:
    rows, columns = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    x1, y1, x2, y2 = box
    disc = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.25
    boxes = torch.tensor([box])
    drawn = paste(mask_targets(disc[None], boxes, torch.tensor([0]), 28), boxes, (48, 48), 0.5)[0]
    assert (drawn & disc).sum() / (drawn | disc).sum() > 0.95


def test_pasting_cuts_at_the_image_and_takes_no_offence_at_empty_boxes() -> None:
    boxes = torch.tensor([[-10.0, -10, 10, 10], [5.0, 5, 5, 9], [15.0, 12, 40, 40]])
    drawn = paste(torch.ones(3, 14, 14), boxes, (20, 20), 0.5)
    assert drawn[0].sum() == 100
    assert drawn[0, :10, :10].all()
    assert not drawn[1].any()
    assert drawn[2].sum() == 5 * 8
    assert paste(torch.ones(0, 14, 14), torch.zeros(0, 4), (20, 20), 0.5).shape == (0, 20, 20)


def test_the_grid_is_torchvisions_where_nothing_is_rounded() -> None:
    theirs = AnchorGenerator(sizes=((32, 64),), aspect_ratios=((1.0,),))
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    ours = grid_anchors(cell_anchors(16, (2.0, 4.0), (1.0,)), 4, 6, 16)
    torch.testing.assert_close(ours, theirs(images, [torch.zeros(1, 1, 4, 6)])[0])


def test_levels_are_torchvisions() -> None:
    boxes = random_boxes(300, seed=4, extent=900)
    theirs = LevelMapper(2, 5)([boxes])
    assert torch.equal(level_of(boxes, (4, 8, 16, 32)), theirs)
    assert set(theirs.tolist()) == {0, 1, 2}


def test_the_pyramid_without_norms_is_torchvisions() -> None:
    pyramid = Pyramid(small.backbone(), channels=16, norm="none").eval()
    theirs = FeaturePyramidNetwork([8, 16, 32, 64], 16)
    with torch.no_grad():
        for level in range(4):
            for block, layer in ((theirs.inner_blocks, pyramid.lateral), (theirs.layer_blocks, pyramid.output)):
                block[level][0].load_state_dict(layer[level][0].state_dict())  # type: ignore[index, operator]
        images = torch.randn(1, 3, 64, 96)
        stages = {str(n): stage for n, stage in enumerate(pyramid.trunk.stages(images)[1:])}
        for ours, wanted in zip(pyramid(images), theirs(stages).values(), strict=False):
            torch.testing.assert_close(ours, wanted)
