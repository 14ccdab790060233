"""The two engines against each other, image by image with the same draws, and against torchvision's pipeline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as F

from simsiam.config import Views
from simsiam.data.preprocess import unit
from simsiam.data.sources import ArraySource
from simsiam.data.two_views import batch as batch
from simsiam.data.two_views import batch as colour
from simsiam.data.two_views.draws import crop_box, draw, step_generator
from simsiam.data.two_views.engines import opencv_crop, pil_view
from simsiam.data.two_views.loader import ViewLoader
from tests.data.published import PUBLISHED, only, views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos() -> ArraySource:
    """Real photographs: 96 patches of 48 x 64 pixels out of scikit-learn's two."""
    patches = [
        image[top : top + 192, left : left + 256][::4, ::4]
        for image in load_sample_images().images
        for top in range(0, 192, 32)
        for left in range(0, 320, 40)
    ]
    return ArraySource(np.ascontiguousarray(np.stack(patches)), name="patches")


def levels(source: ArraySource, recipe: Views, engine: str, seed: int = 0) -> Tensor:
    """Both views of the whole set in pixel levels 0 to 255, 2N x 3 x S x S."""
    loader = ViewLoader(source, recipe, batch_size=len(source), seed=seed, engine=engine, device=CPU)
    both = next(loader.epoch(0))
    x = torch.cat([both.x1, both.x2])
    return (x * torch.tensor(recipe.std).view(3, 1, 1) + torch.tensor(recipe.mean).view(3, 1, 1)) * 255


# PIL rounds to 8 bits after each operation (downwards in a blend), the batch engine never does: hence the bounds.
@pytest.mark.parametrize(
    ("name", "recipe", "most", "mean"),
    [
        ("crop", only(), 1.05, 0.35),
        ("enlarging crop", only(size=80), 1.05, 0.35),
        ("shrinking crop", only(size=13), 1.05, 0.35),
        ("brightness", only(jitter_probability=1.0, brightness=0.4), 2.5, 0.65),
        ("contrast", only(jitter_probability=1.0, contrast=0.4), 3.0, 0.65),
        ("saturation", only(jitter_probability=1.0, saturation=0.4), 3.0, 0.65),
        ("hue", only(jitter_probability=1.0, hue=0.1), 16.0, 0.8),
        ("grey", only(grayscale_probability=1.0), 2.0, 0.4),
        ("blur", only(blur_probability=1.0), 4.0, 0.6),
        ("all", PUBLISHED, 20.0, 1.4),
    ],
)
def test_golden_images(photos: ArraySource, name: str, recipe: Views, most: float, mean: float) -> None:
    difference = (levels(photos, recipe, "pil") - levels(photos, recipe, "batch")).abs()
    assert difference.max() <= most
    assert difference.mean() <= mean
    assert difference.flatten().quantile(0.999) <= 0.75 * most + 0.2


def test_draws_matter(photos: ArraySource) -> None:
    """The golden comparison can fail: other draws give other images by far."""
    assert (levels(photos, PUBLISHED, "pil") - levels(photos, PUBLISHED, "batch", seed=1)).abs().mean() > 20


@pytest.mark.parametrize("engine", ["pil", "batch"])
def test_red_comes_out_in_the_first_channel(engine: str) -> None:
    red = np.zeros((16, 40, 40, 3), np.uint8)
    red[..., 0] = 255
    x = levels(ArraySource(red, name="red"), only(blur_probability=0.5, jitter_probability=0.5, brightness=0.2), engine)
    assert x[:, 0].min() > 200
    assert x[:, 1:].abs().max() < 1e-3


@pytest.mark.parametrize("engine", ["pil", "batch"])
def test_published_normalisation(engine: str) -> None:
    grey = ArraySource(np.full((4, 32, 32, 3), 128, np.uint8), name="grey")
    loader = ViewLoader(grey, only(flip_probability=0.0), batch_size=4, seed=0, engine=engine, device=CPU)
    x = next(loader.epoch(0)).x1
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(x[:, channel], torch.tensor((128 / 255 - mean) / std), atol=1e-5)


def test_pil_engine_is_torchvisions_operations_in_the_published_order() -> None:
    image = Image.fromarray(load_sample_images().images[0][:120, :160])
    recipe = views(size=64, jitter_probability=1.0, grayscale_probability=0.3, blur_probability=1.0)
    draws = draw(recipe, 12, step_generator(seed=3, epoch=0, step=0))
    assert draws.gray.any()
    assert draws.flip.any()
    for row in range(12):
        box = crop_box(recipe, draws, row, height=image.height, width=image.width)
        wanted = F.resized_crop(image, box.top, box.left, box.height, box.width, [64, 64])
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for operation in draws.order[row].tolist():
            wanted = adjust[operation](wanted, float(draws.factors[row, operation]))
        if draws.gray[row]:
            wanted = F.rgb_to_grayscale(wanted, 3)
        wanted = wanted.filter(ImageFilter.GaussianBlur(float(draws.sigma[row])))
        if draws.flip[row]:
            wanted = F.hflip(wanted)
        assert (pil_view(image, recipe, draws, row) == np.asarray(wanted)).all()


def test_crops_made_by_workers_end_as_views(photos: ArraySource) -> None:
    """The batch engine on crops (sets on disk) and on its own (sets in memory)."""
    draws = draw(PUBLISHED, 96, step_generator(seed=0, epoch=0, step=0))
    crops = np.stack([opencv_crop(photos.read(row), PUBLISHED, draws, row) for row in range(96)])
    a = batch.finish_views(unit(torch.from_numpy(crops)), PUBLISHED, draws, channels_last=False)
    assert photos.pixels is not None
    b = batch.batch_views(torch.from_numpy(photos.pixels), torch.arange(96), PUBLISHED, draws, channels_last=True)
    assert b.is_contiguous(memory_format=torch.channels_last)
    assert a.is_contiguous()
    assert (a - b).abs().mean() * 0.225 * 255 < 0.6


@pytest.mark.parametrize("size", [1, 2, 5, 24, 33])
def test_blur_matrix_is_pils_blur(size: int) -> None:
    sigmas = torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0, 5.0])
    matrices = batch.blur_matrices(sigmas, size)
    assert torch.allclose(matrices.sum(dim=2), torch.ones(7, size), atol=1e-5)
    image = np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)
    for sigma, matrix in zip(sigmas.tolist(), matrices, strict=True):
        wanted = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)), np.float32)
        got = matrix @ torch.from_numpy(image).float() @ matrix.T
        # PIL rounds after each of six passes, so on noise a very small sigma changes nothing at all there.
        assert np.abs(got.numpy() - wanted).max() < 4.5
        assert np.abs(got.numpy() - wanted).mean() < 1.25


@pytest.mark.parametrize(("length", "size"), [(9, 32), (32, 32), (33, 32), (200, 24), (1, 8), (7, 3)])
def test_resize_matrix_is_pils_resize(length: int, size: int) -> None:
    start, pixels = 3, length + 8
    row = np.random.default_rng(0).integers(0, 256, pixels).astype(np.float32)
    wanted = np.asarray(Image.fromarray(row[None, start : start + length]).resize((size, 1), Image.Resampling.BILINEAR))
    matrix = batch.resize_matrices(torch.tensor([float(start)]), torch.tensor([float(length)]), pixels, size)[0]
    assert np.allclose(matrix.numpy() @ row, wanted[0], atol=1e-2)


def test_hue_against_colorsys() -> None:
    import colorsys

    x = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 0.5  # grey has no hue
    x[0, :, 0, 1] = torch.tensor([0.8, 0.8, 0.1])  # two largest
    x[0, :, 0, 2] = torch.tensor([0.1, 0.8, 0.8])
    x[0, :, 0, 3] = torch.tensor([0.8, 0.1, 0.8])
    turns = torch.tensor([0.1, -0.07, 0.5])
    got = x.clone()
    colour.adjust_hue(got, turns.view(-1, 1, 1, 1))
    for image in range(3):
        for place in range(25):
            hue, saturation, value = colorsys.rgb_to_hsv(*x[image, :, place // 5, place % 5].tolist())
            wanted = colorsys.hsv_to_rgb((hue + float(turns[image])) % 1, saturation, value)
            assert torch.allclose(got[image, :, place // 5, place % 5], torch.tensor(wanted), atol=1e-5)


def test_colour_operations_against_torchvision_tensors() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    factors = torch.tensor([0.6, 0.9, 1.2, 1.4])
    for change, oracle, within in (
        (colour.scale_brightness, F.adjust_brightness, 1e-6),
        (colour.scale_contrast, F.adjust_contrast, 1e-3),  # torchvision's luma weights are rounded otherwise
        (colour.scale_saturation, F.adjust_saturation, 1e-3),
    ):
        got = x.clone()
        change(got, factors.view(-1, 1, 1, 1))
        wanted = torch.stack([oracle(image, float(factor)) for image, factor in zip(x, factors, strict=True)])
        assert torch.allclose(got, wanted, atol=within)


@pytest.mark.parametrize("engine", ["pil", "batch"])
def test_whole_pipeline_against_torchvisions(photos: ArraySource, engine: str) -> None:
    """Means and spreads over many views of one photograph, beside torchvision's pipeline as published."""
    image = photos.read(20)
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([_PilBlur()], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    torch.manual_seed(0)
    theirs = torch.stack([pipeline(image) for _ in range(1200)]) * 255
    many = ArraySource(np.repeat(np.asarray(image)[None], 600, axis=0), name="one")
    ours = levels(many, PUBLISHED, engine)
    for of in (_brightness, _contrast, _colourfulness, _sharpness):
        a, b = of(theirs), of(ours)
        error = (a.std() ** 2 / len(a) + b.std() ** 2 / len(b)).sqrt()
        assert abs(a.mean() - b.mean()) < 4 * error + 1.2  # 1.2 levels: PIL's rounding down, see above
        assert 0.9 < a.std() / b.std() < 1.1


def test_operations_that_nobody_asked_for_change_nothing(photos: ArraySource) -> None:
    assert photos.pixels is not None
    x = torch.from_numpy(photos.pixels[:8, :32, :32]).permute(0, 3, 1, 2).float() / 255
    recipe = dataclasses.replace(only(jitter_probability=1.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    draws = draw(recipe, 8, step_generator(seed=0, epoch=0, step=0))
    assert torch.equal(batch.finish_views(x.clone(), recipe, draws, channels_last=False), x)


def test_tiny_and_flat_images() -> None:
    for height, width in ((1, 1), (1, 50), (50, 1), (2, 2)):
        pixels = np.full((6, height, width, 3), 255, np.uint8)
        for engine in ("pil", "batch"):
            x = levels(ArraySource(pixels, name="flat"), PUBLISHED, engine)
            assert torch.isfinite(x).all()
            assert x.shape == (12, 3, 32, 32)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_views(photos: ArraySource) -> None:
    wanted = levels(photos, PUBLISHED, "batch")
    loader = ViewLoader(photos, PUBLISHED, batch_size=96, seed=0, engine="batch", device=torch.device("cuda"))
    both = next(loader.epoch(0))
    x = torch.cat([both.x1, both.x2]).cpu()
    got = (x * torch.tensor(PUBLISHED.std).view(3, 1, 1) + torch.tensor(PUBLISHED.mean).view(3, 1, 1)) * 255
    assert (got - wanted).abs().max() < 1.0


class _PilBlur:
    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0))))


def _brightness(x: Tensor) -> Tensor:
    return x.mean(dim=(1, 2, 3))


def _contrast(x: Tensor) -> Tensor:
    return x.mean(dim=1).std(dim=(1, 2))


def _colourfulness(x: Tensor) -> Tensor:
    return (x.amax(dim=1) - x.amin(dim=1)).mean(dim=(1, 2))


def _sharpness(x: Tensor) -> Tensor:
    return x.diff(dim=3).abs().mean(dim=(1, 2, 3))
