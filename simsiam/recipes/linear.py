"""Recipes of the linear protocols, semi-supervised fine-tuning and the fast probe: every setting by name.

Names follow the model zoo page. All but the CIFAR ones and `linear_probe` are published settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from simsiam.data.classification.transforms import Augmentation
from simsiam.data.preprocess import short_edge
from simsiam.evaluation.classification.linear import (
    INaturalist2018,
    LinearAvgPool,
    LinearMultiHead,
    Places205,
    StageHeads,
)
from simsiam.evaluation.classification.probe import LinearProbe
from simsiam.evaluation.classification.semi_supervised import SemiSupervised
from simsiam.evaluation.classification.settings import Optimisation, TrainingConfig

LinearRecipe = LinearMultiHead | LinearAvgPool | INaturalist2018 | Places205 | SemiSupervised | LinearProbe


def crop_and_flip(size: int) -> Augmentation:
    """RandomResizedCrop (area 0.08 to 1) and a flip."""
    return Augmentation(
        crop="resized", size=size, min_scale=0.08, resize=size, flip_probability=0.5, jitter=0.0, lighting=0.0
    )


def resnet50_mhead_8xb32_steplr_90e() -> LinearMultiHead:
    """Feature1 to Feature5 on ImageNet: batch 8 x 32, lr 0.01, steps 30/60/90, colour jitter and lighting noise."""
    augmentation = replace(crop_and_flip(224), jitter=0.4, lighting=0.1)
    return LinearMultiHead(
        name="resnet50_mhead_8xb32-steplr-90e",
        heads=_five_heads(augmentation, epochs=90, milestones=(30, 60, 90), evaluate_every=10, classes=1000),
    )


def resnet50_mhead_8xb32_steplr_84e_inat18() -> INaturalist2018:
    """Feature1 to Feature5 on iNaturalist 2018: 84 epochs, steps 24/48/72."""
    return INaturalist2018(
        name="resnet50_mhead_8xb32-steplr-84e_inat18",
        heads=_five_heads(crop_and_flip(224), epochs=84, milestones=(24, 48, 72), evaluate_every=10, classes=8142),
    )


def resnet50_mhead_8xb32_steplr_28e_places205() -> Places205:
    """Feature1 to Feature5 on Places205: 28 epochs, steps 7/14/21, random 224 crops of the central 256 square."""
    augmentation = replace(crop_and_flip(224), crop="resize-then-random", resize=256)
    return Places205(
        name="resnet50_mhead_8xb32-steplr-28e_places205",
        heads=_five_heads(augmentation, epochs=28, milestones=(7, 14, 21), evaluate_every=10, classes=205),
    )


def resnet50_8xb512_coslr_90e_in1k() -> LinearAvgPool:
    """AvgPool on ImageNet, the headline number: LARS, batch 8 x 512, lr 1.6, cosine."""
    return _avgpool("resnet50_8xb512-coslr-90e_in1k", optimizer="lars", lr=1.6, batch_size=4096)


def lincls_lars_90e_in1k() -> LinearAvgPool:
    """The official main_lincls with --lars: LARC, lr 0.1 x 4096 / 256, evaluated every epoch, best epoch kept."""
    recipe = _avgpool("lincls-lars-4096-90e_in1k", optimizer="larc", lr=1.6, batch_size=4096)
    return replace(recipe, schooling=replace(recipe.schooling, evaluate_every=1, keep="best"))


def lincls_sgd_90e_in1k() -> LinearAvgPool:
    """The official main_lincls without --lars: plain SGD at the same rate and batch, best epoch kept."""
    recipe = _avgpool("lincls-sgd-4096-90e_in1k", optimizer="sgd", lr=1.6, batch_size=4096)
    return replace(recipe, schooling=replace(recipe.schooling, evaluate_every=1, keep="best"))


def resnet50_8xb32_steplr_100e_in1k() -> LinearAvgPool:
    """Plain SGD as for MoCo: batch 8 x 32, lr 30, steps 60/80, 100 epochs."""
    recipe = _avgpool("resnet50_8xb32-steplr-100e_in1k", optimizer="sgd", lr=30.0, batch_size=256)
    return _optimised(recipe, epochs=100, schedule="steps", milestones=(60, 80))


def resnet50_8xb32_coslr_100e_in1k() -> LinearAvgPool:
    """Plain SGD as for SwAV: batch 8 x 32, lr 0.3, weight decay 1e-6, cosine, 100 epochs."""
    recipe = _avgpool("resnet50_8xb32-coslr-100e_in1k", optimizer="sgd", lr=0.3, batch_size=256)
    return _optimised(recipe, epochs=100, weight_decay=1e-6)


def resnet50_8xb128_coslr_90e_in1k() -> LinearAvgPool:
    """Plain SGD as for MoCo v3: batch 8 x 128, lr 0.4, cosine, 90 epochs."""
    return _avgpool("resnet50_8xb128-coslr-90e_in1k", optimizer="sgd", lr=0.4, batch_size=1024)


def linear_cifar10() -> LinearAvgPool:
    """AvgPool at 32 pixels: plain SGD, batch 256, lr 30, cosine, 100 epochs (usual for CIFAR; not of the page)."""
    recipe = _avgpool("linear-cifar10-100e", optimizer="sgd", lr=30.0, batch_size=256)
    recipe = _optimised(recipe, epochs=100)
    schooling = replace(recipe.schooling, augmentation=crop_and_flip(32), test_resize=32)
    return replace(recipe, schooling=schooling, expected_classes=None)


def linear_mhead_cifar10() -> LinearMultiHead:
    """The five heads at 32 pixels, 30 epochs, steps 10/20 (the page's settings shortened)."""
    heads = _five_heads(crop_and_flip(32), epochs=30, milestones=(10, 20), evaluate_every=10, classes=None)
    heads = replace(heads, pooling="adaptive", schooling=replace(heads.schooling, test_resize=32))
    return LinearMultiHead(name="linear-mhead-cifar10-30e", heads=heads)


def semi_supervised_1_percent() -> SemiSupervised:
    """Fine-tuning on 1 % of ImageNet's labels: the published grid, weight decay 5e-4."""
    return _semi_supervised("resnet50_4xb64-steplr-20e_in1k-1pct", weight_decay=5e-4)


def semi_supervised_10_percent() -> SemiSupervised:
    """Fine-tuning on 10 % of ImageNet's labels: the published grid, weight decay 1e-4."""
    return _semi_supervised("resnet50_4xb64-steplr-20e_in1k-10pct", weight_decay=1e-4)


def linear_probe(size: int = 224) -> LinearProbe:
    """The fast probe: three augmented copies, seven rates x two decays at once, picked on a tenth of train."""
    return LinearProbe(
        name="linear-probe",
        augmentation=crop_and_flip(size),
        test_resize=short_edge(size),
        copies=3,
        lrs=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        weight_decays=(0.0, 1e-5),
        momentum=0.9,
        epochs=60,
        batch_size=256,
        validation_fraction=0.1,
        precision="fp32",
        storage="fp16",
    )


def adapted(recipe: LinearRecipe, *, size: int, resize: int | None = None) -> LinearRecipe:
    """A recipe at another image size.

    Args:
        size: pixels of the crops.
        resize: short edge before the test's centre crop; by default that of `short_edge`.
    """
    test_resize = resize if resize is not None else short_edge(size)
    if isinstance(recipe, LinearProbe):
        return replace(recipe, augmentation=replace(recipe.augmentation, size=size), test_resize=test_resize)
    schooling = recipe.schooling if isinstance(recipe, LinearAvgPool | SemiSupervised) else recipe.heads.schooling
    augmentation = replace(schooling.augmentation, size=size, resize=max(size, test_resize))
    schooling = replace(schooling, augmentation=augmentation, test_resize=test_resize)
    if isinstance(recipe, LinearAvgPool | SemiSupervised):
        return replace(recipe, schooling=schooling)
    return replace(recipe, heads=replace(recipe.heads, schooling=schooling))


def _five_heads(
    augmentation: Augmentation,
    *,
    epochs: int,
    milestones: tuple[int, ...],
    evaluate_every: int,
    classes: int | None,
) -> StageHeads:
    optimisation = Optimisation(
        optimizer="nesterov",
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="steps",
        milestones=milestones,
        gamma=0.1,
        epochs=epochs,
        batch_size=256,
    )
    schooling = TrainingConfig(
        optimisation=optimisation,
        augmentation=augmentation,
        test_resize=256,
        evaluate_every=evaluate_every,
        keep="last",
        precision="fp32",
    )
    return StageHeads(stages=5, pooling="specified", schooling=schooling, expected_classes=classes)


def _avgpool(name: str, *, optimizer: Literal["sgd", "lars", "larc"], lr: float, batch_size: int) -> LinearAvgPool:
    """90 epochs of cosine without weight decay."""
    optimisation = Optimisation(
        optimizer=optimizer,
        lr=lr,
        momentum=0.9,
        weight_decay=0.0,
        schedule="cosine",
        milestones=(),
        gamma=0.1,
        epochs=90,
        batch_size=batch_size,
    )
    schooling = TrainingConfig(
        optimisation=optimisation,
        augmentation=crop_and_flip(224),
        test_resize=256,
        evaluate_every=10,
        keep="last",
        precision="fp32",
    )
    return LinearAvgPool(name=name, schooling=schooling, expected_classes=1000)


def _optimised(recipe: LinearAvgPool, **changes: object) -> LinearAvgPool:
    optimisation = replace(recipe.schooling.optimisation, **changes)  # type: ignore[arg-type]
    return replace(recipe, schooling=replace(recipe.schooling, optimisation=optimisation))


def _semi_supervised(name: str, *, weight_decay: float) -> SemiSupervised:
    optimisation = Optimisation(
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=weight_decay,
        schedule="steps",
        milestones=(12, 16),
        gamma=0.2,
        epochs=20,
        batch_size=256,
    )
    schooling = TrainingConfig(
        optimisation=optimisation,
        augmentation=crop_and_flip(224),
        test_resize=256,
        evaluate_every=20,
        keep="last",
        precision="fp32",
    )
    return SemiSupervised(
        name=name,
        schooling=schooling,
        lrs=(0.1, 0.01, 0.001),
        head_multipliers=(1.0, 10.0, 100.0),
        selection="test",
        held_out_fraction=0.1,
        expected_classes=1000,
    )


RECIPES: dict[str, Callable[[], LinearRecipe]] = {
    make().name: make
    for make in (
        resnet50_mhead_8xb32_steplr_90e,
        resnet50_mhead_8xb32_steplr_84e_inat18,
        resnet50_mhead_8xb32_steplr_28e_places205,
        resnet50_8xb512_coslr_90e_in1k,
        lincls_lars_90e_in1k,
        lincls_sgd_90e_in1k,
        resnet50_8xb32_steplr_100e_in1k,
        resnet50_8xb32_coslr_100e_in1k,
        resnet50_8xb128_coslr_90e_in1k,
        linear_cifar10,
        linear_mhead_cifar10,
        semi_supervised_1_percent,
        semi_supervised_10_percent,
        linear_probe,
    )
}
