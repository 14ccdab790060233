"""Evaluations decode a person's large JPEGs at a lower scale, and the images of published sets whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from simsiam.data.classification.loader import AugmentedCopy, augmented_copy
from simsiam.data.classification.transforms import Augmenter
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import FolderSource, Source, open_source
from simsiam.embedding.embedder import GivenImages
from simsiam.recipes.linear import crop_and_flip
from tests.data.published import PUBLISHED

CPU = torch.device("cpu")
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
CENTRE = Preprocess(kind="center", resize=73, size=64, **RAW)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 1,024 x 683 in class folders named as ImageNet's, and the same named otherwise."""
    root = tmp_path_factory.mktemp("photos")
    for name, folders in {"imagenet": ("n01440764", "n01443537"), "own": ("temple", "flower")}.items():
        for folder, pixels in zip(folders, load_sample_images().images, strict=True):
            for split in ("train", "val"):
                (root / name / split / folder).mkdir(parents=True)
                photo = Image.fromarray(pixels).resize((1024, 683), Image.Resampling.LANCZOS)
                photo.save(root / name / split / folder / "photo.jpg", quality=92)
    return root


def prepared(source: Source, preprocess: Preprocess = CENTRE) -> np.ndarray:
    return torch.cat([batch.images for batch in image_batches(source, preprocess, batch_size=2, device=CPU)]).numpy()


def whole(source: Source, preprocess: Preprocess = CENTRE) -> np.ndarray:
    assert isinstance(source, FolderSource)
    images = [Image.open(source.root / source.path(index)) for index in range(len(source))]
    return np.stack([preprocess.apply(image).numpy() for image in images])


@pytest.mark.parametrize("kind", ["center", "squash"])
def test_photos_of_ones_own_differ_by_about_a_level_from_whole_decoding(root: Path, kind: str) -> None:
    preprocess = dataclasses.replace(CENTRE, kind=kind)
    source = FolderSource(root / "own" / "val")
    off = 255 * np.abs(prepared(source, preprocess) - whole(source, preprocess))
    assert 0 < off.mean() < 1.5  # levels; not 0, for then they would have been decoded whole
    assert off.max() < 24


def test_only_sets_that_published_figures_are_of_are_decoded_whole(root: Path) -> None:
    theirs, own = (open_source(root / name, kind="imagenet", split="val") for name in ("imagenet", "own"))
    assert (theirs.published, own.published) == (True, False)
    np.testing.assert_array_equal(prepared(theirs), whole(theirs))
    np.testing.assert_array_equal(prepared(theirs.subset([1])), whole(theirs)[1:])
    np.testing.assert_array_equal(prepared(own), prepared(FolderSource(root / "own" / "val")))


def test_pictures_given_one_by_one_are_decoded_as_those_of_a_folder(root: Path) -> None:
    source = FolderSource(root / "own" / "val")
    files = [source.root / source.path(index) for index in range(len(source))]
    given = GivenImages([files[0], files[1].read_bytes()])
    np.testing.assert_array_equal(prepared(given), prepared(source))


def test_random_crops_of_large_photos_show_the_same_part(root: Path) -> None:
    augmenter = Augmenter(augmentation=crop_and_flip(32), mean=PUBLISHED.mean, std=PUBLISHED.std)
    source = FolderSource(root / "own" / "train")
    (batch,) = augmented_copy(source, AugmentedCopy(augmenter=augmenter, copy=3, seed=0), batch_size=2, device=CPU)
    crops = [augmenter.crop(source.read(index), np.random.default_rng((0, 3, index, 0))) for index in range(2)]
    wanted = augmenter.finish(torch.from_numpy(np.stack(crops)), [])
    off = (batch.images - wanted).abs() * 255 * 0.226
    assert 0 < off.mean() < 4
