"""Evaluation transforms against torchvision's own, on files and in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

from simsiam.data.preprocess import Preprocess
from tests.data.published import PUBLISHED

CPU = torch.device("cpu")
CENTER = Preprocess(kind="center", resize=64, size=56, mean=PUBLISHED.mean, std=PUBLISHED.std)
SQUASH = Preprocess(kind="squash", resize=64, size=56, mean=PUBLISHED.mean, std=PUBLISHED.std)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(load_sample_images().images[1][:150, :230])


def oracle(kind: str) -> transforms.Compose:
    second = transforms.CenterCrop(56) if kind == "center" else transforms.Resize((56, 56))
    normalise = transforms.Normalize(PUBLISHED.mean, PUBLISHED.std)
    return transforms.Compose([transforms.Resize(64), second, transforms.ToTensor(), normalise])


@pytest.mark.parametrize("preprocess", [CENTER, SQUASH])
def test_files_as_torchvision(photo: Image.Image, preprocess: Preprocess) -> None:
    got = preprocess.apply(photo)
    assert got.shape == (3, 56, 56)
    assert got.dtype == torch.float32
    assert torch.allclose(got, oracle(preprocess.kind)(photo), atol=1e-6)


@pytest.mark.parametrize("preprocess", [CENTER, SQUASH])
def test_memory_as_files(photo: Image.Image, preprocess: Preprocess) -> None:
    pixels = np.stack([np.asarray(photo), np.asarray(photo)[:, ::-1]])
    got = preprocess.apply_pixels(pixels, CPU)
    wanted = torch.stack([preprocess.apply(Image.fromarray(each)) for each in pixels])
    difference = (got - wanted).abs() * 255 * 0.226
    assert difference.max() < 2.5
    assert difference.mean() < 0.35


@pytest.mark.parametrize("kind", ["center", "squash"])
def test_the_right_size_is_left_alone(kind: str) -> None:
    same = Preprocess(kind=kind, resize=32, size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(same.apply_pixels(pixels, CPU), wanted)
    assert torch.equal(same.apply(Image.fromarray(pixels[1])), wanted[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (20, 20)])
@pytest.mark.parametrize("preprocess", [CENTER, SQUASH])
def test_extreme_shapes(size: tuple[int, int], preprocess: Preprocess) -> None:
    assert preprocess.apply(Image.new("RGB", size, (255, 0, 0))).shape == (3, 56, 56)


def test_red_is_the_first_channel() -> None:
    plain = Preprocess(kind="center", resize=8, size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert plain.apply(Image.new("RGB", (9, 9), (255, 0, 0)))[:, 0, 0].tolist() == [1, 0, 0]
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert plain.apply_pixels(red, CPU)[0, :, 0, 0].tolist() == [1, 0, 0]
