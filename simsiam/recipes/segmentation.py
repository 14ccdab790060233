"""Recipes of the segmentation protocols: every setting by name.

The two named `fcn_r50-d8_...` are those of the model zoo page. That page used one rate for all methods; the paper
searched it (from memory, not verified), as the `searched` recipes do. The rates they try are this project's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from simsiam.data.segmentation.transforms import MaskAugmentation
from simsiam.evaluation.segmentation.protocol import SegmentationCityscapes, SegmentationFolder, SegmentationVoc12Aug
from simsiam.evaluation.segmentation.settings import (
    CPU_RECIPE,
    RateSearch,
    Segmentation,
    SegmentationSchedule,
    SegmentorConfig,
    Testing,
)

SegmentationRecipe = SegmentationVoc12Aug | SegmentationCityscapes | SegmentationFolder
Make = Callable[[], SegmentationRecipe]
SEARCHED = RateSearch(lr_sweep=(0.003, 0.01, 0.03, 0.1), sweep_iterations=2000, sweep_choice="best")


def fcn_r50_d8_512x512_20k_voc12aug() -> SegmentationVoc12Aug:
    """The VOC12aug column of the model zoo page: batch 4 x 4, lr 0.01, 20k iterations."""
    return SegmentationVoc12Aug(
        name="fcn_r50-d8_512x512_20k_voc12aug",
        segmentation=Segmentation(
            augmentation=_augmentation(scale_long=2048, scale_short=512, crop=512),
            design=_design("half-pixel"),
            course=_course(iterations=20_000, batch_size=16, evaluate_every=2000),
            testing=Testing(test_long=2048, test_short=512, windows="whole", window=512, window_stride=341),
            search=RateSearch(lr_sweep=(), sweep_iterations=2000, sweep_choice="report"),
            expected_classes=21,
            published_iterations=20_000,
        ),
    )


def fcn_r50_d8_512x512_20k_voc12aug_searched() -> SegmentationVoc12Aug:
    """The same at the best of four rates, each tried for 2,000 iterations on held-out training images."""
    recipe = fcn_r50_d8_512x512_20k_voc12aug()
    return replace(recipe, name=f"{recipe.name}_searched", segmentation=replace(recipe.segmentation, search=SEARCHED))


def fcn_r50_d8_769x769_40k_cityscapes() -> SegmentationCityscapes:
    """The model zoo's Cityscapes configuration (no SimSiam figure was published): batch 4 x 2, 40k, sliding test."""
    return SegmentationCityscapes(
        name="fcn_r50-d8_769x769_40k_cityscapes",
        segmentation=Segmentation(
            augmentation=_augmentation(scale_long=2049, scale_short=1025, crop=769),
            design=_design("aligned"),
            course=_course(iterations=40_000, batch_size=8, evaluate_every=4000),
            testing=Testing(test_long=2049, test_short=1025, windows="slide", window=769, window_stride=513),
            search=RateSearch(lr_sweep=(), sweep_iterations=2000, sweep_choice="report"),
            expected_classes=19,
            published_iterations=40_000,
        ),
    )


def fcn_r50_d8_769x769_40k_cityscapes_searched() -> SegmentationCityscapes:
    """The same at the best of four rates."""
    recipe = fcn_r50_d8_769x769_40k_cityscapes()
    return replace(recipe, name=f"{recipe.name}_searched", segmentation=replace(recipe.segmentation, search=SEARCHED))


def fcn_d8_folder() -> SegmentationFolder:
    """For images and masks of your own: the VOC settings, 4,000 iterations; 512 pixels, or as --crop says."""
    recipe = fcn_r50_d8_512x512_20k_voc12aug()
    settings = replace(
        recipe.segmentation,
        course=_course(iterations=4000, batch_size=16, evaluate_every=400),
        expected_classes=None,
        published_iterations=None,
    )
    return SegmentationFolder(name="fcn_d8_512x512_4k_folder", segmentation=settings)


def fcn_d16_folder_cpu() -> SegmentationFolder:
    """For masks of your own on a CPU: crops of 192 pixels at half the resolution, narrow heads, 1,000 iterations."""
    recipe = sized(fcn_d8_folder(), 192)
    settings = replace(
        recipe.segmentation,
        design=replace(recipe.segmentation.design, output_stride=16, head_channels=128, auxiliary_channels=64),
        course=_course(iterations=1000, batch_size=8, evaluate_every=250),
        search=replace(recipe.segmentation.search, sweep_iterations=250),
    )
    return SegmentationFolder(name=CPU_RECIPE, segmentation=settings)


RECIPES: dict[str, dict[str, Make]] = {  # by name of `simsiam evaluate`; the first recipe is the usual one
    "segmentation-voc12aug": {
        "fcn_r50-d8_512x512_20k_voc12aug": fcn_r50_d8_512x512_20k_voc12aug,
        "fcn_r50-d8_512x512_20k_voc12aug_searched": fcn_r50_d8_512x512_20k_voc12aug_searched,
    },
    "segmentation-cityscapes": {
        "fcn_r50-d8_769x769_40k_cityscapes": fcn_r50_d8_769x769_40k_cityscapes,
        "fcn_r50-d8_769x769_40k_cityscapes_searched": fcn_r50_d8_769x769_40k_cityscapes_searched,
    },
    "segmentation-folder": {
        "fcn_d8_512x512_4k_folder": fcn_d8_folder,
        CPU_RECIPE: fcn_d16_folder_cpu,
    },
}


def sized(recipe: SegmentationRecipe, size: int) -> SegmentationRecipe:
    """The recipe for crops of another size; images, windows and their stride are scaled with it."""
    settings = recipe.segmentation
    factor = size / settings.augmentation.crop

    def scaled(pixels: int) -> int:
        return max(1, round(pixels * factor))

    augmentation = replace(
        settings.augmentation,
        scale_long=scaled(settings.augmentation.scale_long),
        scale_short=scaled(settings.augmentation.scale_short),
        crop=size,
    )
    testing = replace(
        settings.testing,
        test_long=scaled(settings.testing.test_long),
        test_short=scaled(settings.testing.test_short),
        window=size,
        window_stride=scaled(settings.testing.window_stride),
    )
    return replace(recipe, segmentation=replace(settings, augmentation=augmentation, testing=testing))


def _augmentation(*, scale_long: int, scale_short: int, crop: int) -> MaskAugmentation:
    return MaskAugmentation(
        scale_long=scale_long,
        scale_short=scale_short,
        min_ratio=0.5,
        max_ratio=2.0,
        crop=crop,
        most_of_one_class=0.75,
        flip_probability=0.5,
        brightness=32.0,
        min_contrast=0.5,
        max_contrast=1.5,
        min_saturation=0.5,
        max_saturation=1.5,
        hue=18.0,
        distort_probability=0.5,
    )


def _design(corners: Literal["aligned", "half-pixel"]) -> SegmentorConfig:
    return SegmentorConfig(
        output_stride=8,
        head_channels=512,
        auxiliary_channels=256,
        dropout=0.1,
        corners=corners,
        norm="batch",
        backbone_norm="trained",
    )


def _course(*, iterations: int, batch_size: int, evaluate_every: int) -> SegmentationSchedule:
    return SegmentationSchedule(
        iterations=iterations,
        batch_size=batch_size,
        accumulate=1,
        lr=0.01,
        lr_batch=batch_size,
        min_lr=1e-4,
        power=0.9,
        momentum=0.9,
        weight_decay=5e-4,
        auxiliary_weight=0.4,
        mean_over="all",
        evaluate_every=evaluate_every,
        precision="fp32",
    )
