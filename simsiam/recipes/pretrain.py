"""Pre-training recipes: each function names every setting of one experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from simsiam.config import PUBLISHED_MODEL, Pretraining, published_views

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def resnet50_8xb32_coslr_100e() -> Pretraining:
    """The page's first row: 100 epochs of ImageNet, batch 256 (8 x 32), lr 0.05."""
    return Pretraining(
        name="resnet50_8xb32-coslr-100e",
        about="the model zoo page's 100-epoch row: ImageNet, batch 8 x 32 = 256, lr 0.05",
        data_kind="imagenet",
        train_images=0,
        model=PUBLISHED_MODEL,
        views=published_views(224),
        epochs=100,
        batch_size=256,
        base_lr=0.05,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="epoch",
        warmup_epochs=0,
        predictor_lr="fixed",
        similarity="cosine",
        symmetric="on",
        targets="step",
        precision="fp32",
        monitor_images=1000,
        monitor_every=5,
        checkpoint_every=1,
        keep_checkpoints=3,
        seed=0,
    )


def resnet50_8xb32_coslr_200e() -> Pretraining:
    """The page's second row: the same for 200 epochs."""
    return dataclasses.replace(
        resnet50_8xb32_coslr_100e(),
        name="resnet50_8xb32-coslr-200e",
        about="the model zoo page's 200-epoch row: as the 100-epoch one but for the length",
        epochs=200,
    )


def official_b512() -> Pretraining:
    """The official repository's default: batch 512, so lr 0.1, 100 epochs, predictor lr fixed."""
    return dataclasses.replace(
        resnet50_8xb32_coslr_100e(),
        name="resnet50_official-b512-100e",
        about="the official repository's batch-512 run: ImageNet, lr 0.1, 100 epochs (68.1 linear)",
        batch_size=512,
    )


def official_b256() -> Pretraining:
    """The official repository's second published model: batch 256, lr 0.05, 100 epochs."""
    return dataclasses.replace(
        resnet50_8xb32_coslr_100e(),
        name="resnet50_official-b256-100e",
        about="the official repository's batch-256 run: ImageNet, lr 0.05, 100 epochs (68.3 linear)",
    )


def cifar10() -> Pretraining:
    """The paper's CIFAR-10 experiment (appendix D): ResNet-18 with a 3x3 stem, batch 512, 800 epochs, no blur."""
    return dataclasses.replace(
        resnet50_8xb32_coslr_100e(),
        name="cifar10",
        about="the paper's CIFAR-10 run (appendix D): ResNet-18, batch 512, 800 epochs (91.8 linear)",
        data_kind="cifar10",
        model=dataclasses.replace(PUBLISHED_MODEL, backbone="resnet18", stem="small", projector_layers=2),
        views=dataclasses.replace(published_views(32), blur_probability=0.0, mean=CIFAR_MEAN, std=CIFAR_STD),
        epochs=800,
        batch_size=512,
        base_lr=0.03,
        weight_decay=5e-4,
        monitor_every=10,
        keep_checkpoints=2,
    )


def folder() -> Pretraining:
    """A person's own photos on a GPU: ResNet-50 at 224 px, as published but for the length.

    `for_images` fits batch and epochs to the number of photos; `folder_cpu` is the one for a CPU.
    """
    return dataclasses.replace(
        resnet50_8xb32_coslr_100e(),
        name="folder",
        about="your own photos on a GPU: ResNet-50 at 224 px; batch and epochs fitted to their number",
        data_kind="folder",
        precision="bf16",
        schedule="step",
        monitor_every=1,
    )


def folder_cpu() -> Pretraining:
    """A person's own photos on a CPU: the demo's small network at 48 px, for minutes rather than weeks."""
    return dataclasses.replace(
        folder(),
        name="folder-cpu",
        about="your own photos on a CPU: a small ResNet at 48 px; batch and epochs fitted to their number",
        model=demo().model,
        views=dataclasses.replace(published_views(48), blur_sigma_max=0.5),
        batch_size=64,
        base_lr=0.5,  # a short run wants a higher rate than the published ones; LOG.md has the trials
        weight_decay=5e-4,
        precision="fp32",
        monitor_images=500,
    )


def demo() -> Pretraining:
    """A few minutes of CIFAR-10 on two CPU cores. LOG.md tells how the settings were found."""
    return dataclasses.replace(
        cifar10(),
        name="demo",
        about="a few minutes on two CPU cores: CIFAR-10 (or digits, without a network), a small ResNet",
        data_kind="demo",
        model=dataclasses.replace(
            cifar10().model,
            backbone="resnet8",
            width=32,
            stem="small-stride2",
            projector_hidden=512,
            projector_dim=512,
            predictor_dim=128,
        ),
        epochs=5,
        batch_size=64,
        base_lr=0.5,
        schedule="step",
        monitor_images=2000,
        monitor_every=1,
    )


RECIPES: dict[str, Callable[[], Pretraining]] = {
    recipe().name: recipe
    for recipe in (
        resnet50_8xb32_coslr_100e,
        resnet50_8xb32_coslr_200e,
        official_b512,
        official_b256,
        cifar10,
        folder,
        folder_cpu,
        demo,
    )
}


def for_images(recipe: Pretraining, images: int) -> Pretraining:
    """A folder recipe with batch and epochs fitted to the number of images.

    A batch is at most an eighth of the set, for an epoch of at least eight steps, and never under 16 nor over the
    recipe's own. The length aims at a fixed number of images seen, within bounds: SimSiam needs many passes over a
    small set, and a CPU has no time for many over a large one.
    """
    batch = 16
    while batch * 2 <= min(recipe.batch_size, images // 8):
        batch *= 2
    seen, fewest, most = (240_000, 10, 400) if recipe.name == "folder-cpu" else (20_000_000, 100, 800)
    epochs = max(fewest, min(most, round(seen / max(images, 1))))
    return dataclasses.replace(
        recipe,
        batch_size=batch,
        epochs=epochs,
        monitor_every=max(1, epochs // 20),
        checkpoint_every=max(1, epochs // 50),
    )
