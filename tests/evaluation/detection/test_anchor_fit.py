"""How objects lie to the anchors, against overlaps counted by hand and by torchvision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from simsiam.backbones import build_backbone
from simsiam.data.detection.transforms import BoxTransform
from simsiam.evaluation.detection.anchor_fit import AnchorFit, anchor_fit, best_overlaps, object_sides
from simsiam.evaluation.detection.boxes import cell_anchors
from simsiam.evaluation.detection.data import BoxSets
from simsiam.evaluation.detection.settings import CPU_WORK
from simsiam.recipes import detection as recipes
from tests.evaluation.classification import labelled_subjects
from tests.evaluation.detection.box_cases import Made, target

AS_THEY_ARE = BoxTransform(short_sides=(100,), long_side=100, flip_probability=0.0)
TWICE = BoxTransform(short_sides=(200,), long_side=200, flip_probability=0.0)


def squares(side: float, count: int = 4) -> Made:
    return Made([target([(10, 10, 10 + side, 10 + side)]) for _ in range(count)], ("thing",))


def fit(source: Made, images: BoxTransform) -> AnchorFit:
    found = anchor_fit(source, images, recipes.fpn(None), build_backbone("resnet18"))
    assert found is not None
    return found


def test_the_best_overlap_is_that_of_boxes_around_one_centre() -> None:
    sides = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 200 + 4
    centred = torch.cat([-sides / 2, sides / 2], 1)
    anchors = torch.cat([cell_anchors(stride, (4.0, 8.0), recipes.RATIOS) for stride in (4, 8, 16)])
    torch.testing.assert_close(
        best_overlaps(sides, (4, 8, 16), (4.0, 8.0), recipes.RATIOS), box_iou(centred, anchors).amax(1)
    )


def test_sides_are_those_in_the_networks_images_and_of_ordinary_objects_alone() -> None:
    boxes: list[tuple[float, float, float, float]] = [(0, 0, 10, 20), (0, 0, 50, 50), (5, 5, 35, 15)]
    source = Made([target(boxes, crowd=[False, True, False])], ("thing",))
    assert object_sides(source, TWICE).tolist() == [[20, 40], [60, 20]]


def test_small_objects_are_told_with_scales_that_reach_them() -> None:
    found = fit(squares(12), AS_THEY_ARE)  # 12 x 12 in an anchor of 32 x 32: 0.14
    assert found.missed == 1.0
    assert (found.smallest, found.largest) == (32, 512)
    assert found.better_missed == 0.0
    remark = found.remark
    assert remark is not None
    assert "no anchor comes close to 100 % of the objects" in remark
    assert f"--architecture.rpn.scales {found.better_scales[0]:.3g}" in remark
    assert found.better_scales[0] == pytest.approx(4.0)  # the nearest to 8 that does: (12 / 16) ** 2 is over a half


@pytest.mark.parametrize("images", [AS_THEY_ARE, TWICE])
def test_objects_that_anchors_suit_need_no_remark(images: BoxTransform) -> None:
    assert fit(squares(30), images).remark is None


def test_shapes_that_no_scale_suits_bring_no_advice() -> None:
    thin = Made([target([(0, 0, 90, 3)])], ("thing",))
    assert fit(thin, AS_THEY_ARE).missed == 1.0
    assert fit(thin, AS_THEY_ARE).remark is None


def test_the_map_of_c4_has_stride_16() -> None:
    found = anchor_fit(squares(12), AS_THEY_ARE, recipes.c4(None), build_backbone("resnet18"))
    assert found is not None
    assert (found.smallest, found.largest) == (32, 512)


def test_own_recipes_take_the_scales_that_fit_and_no_others_do() -> None:
    subject, sets = (
        labelled_subjects.subject(name="resnet18", stem="imagenet"),
        BoxSets(train=squares(12), test=squares(12)),
    )
    recipe = replace(recipes.folder_masks(), test_images=AS_THEY_ARE)
    fitted = recipe.fitted(recipe, subject, sets)
    assert fitted.architecture.rpn.scales == (4.0,)
    assert replace(fitted, architecture=recipe.architecture) == recipe, "nothing else is touched"
    assert fit(squares(30), AS_THEY_ARE).chosen is None, "what suits stays"
    named = replace(
        recipe, architecture=replace(recipe.architecture, rpn=replace(recipe.architecture.rpn, scales=(9.0,)))
    )
    assert named.fitted(recipe, subject, sets) is named, "a flag wins"
    published = replace(recipes.mask_rcnn_r50_fpn_mstrain_1x_coco(), test_images=AS_THEY_ARE)
    assert published.fitted(published, subject, sets) is published


def test_the_recipes_for_a_cpu_are_as_long_as_is_said() -> None:
    assert {recipe().work for recipe in (recipes.folder_boxes_cpu, recipes.folder_masks_cpu)} == {CPU_WORK}
    assert recipes.folder_boxes().work > 10 * CPU_WORK


def test_a_set_without_objects_has_nothing_to_compare() -> None:
    empty = Made([target([], [])], ("thing",))
    assert anchor_fit(empty, AS_THEY_ARE, recipes.fpn(None), build_backbone("resnet18")) is None
