"""The draws: the published distribution, held against torchvision's own transforms, and nothing but the seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop, v2

from simsiam.data.two_views.draws import CROP_TRIES, RATIO, Draws, crop_box, crop_boxes, draw, draw_pair, step_generator
from tests.data.published import PUBLISHED, only, views

COUNT = 6000


def drawn(count: int = COUNT, seed: int = 0, **changes: float) -> Draws:
    return draw(views(**changes), count, step_generator(seed=seed, epoch=0, step=0))


def theirs(height: int, width: int, count: int = 2500) -> np.ndarray:
    """torchvision's own crops, count x 4."""
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    scale = [PUBLISHED.min_scale, PUBLISHED.max_scale]
    return np.array([RandomResizedCrop.get_params(image, scale, list(RATIO)) for _ in range(count)])


def ours(height: int, width: int, count: int = COUNT) -> np.ndarray:
    return crop_boxes(PUBLISHED, drawn(count).crop, np.full(count, height), np.full(count, width))


@pytest.mark.parametrize(("height", "width"), [(224, 300), (32, 32), (400, 120), (60, 500)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    a, b = theirs(height, width), ours(height, width)
    for name, of in {
        "area": lambda box: box[:, 2] * box[:, 3] / (height * width),
        "log ratio": lambda box: np.log(box[:, 3] / box[:, 2]),
        "top": lambda box: box[:, 0] / height,
        "left": lambda box: box[:, 1] / width,
    }.items():
        assert stats.ks_2samp(of(a), of(b)).pvalue > 1e-3, name


def test_crop_against_the_rule_written_out() -> None:
    """Try by try, with the same numbers, as torchvision's source says."""
    draws = drawn(300)
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.integers(1, 90, (200, 2)), rng.integers(1, 5, (100, 2))])  # of few pixels as well
    got = crop_boxes(PUBLISHED, draws.crop, sizes[:, 0], sizes[:, 1])
    fallbacks = 0
    for row, (height, width) in enumerate(sizes.tolist()):
        wanted = None
        for area_u, ratio_u, top_u, left_u in draws.crop[row].tolist():
            area = height * width * (0.2 + area_u * 0.8)
            ratio = math.exp(math.log(3 / 4) + ratio_u * (math.log(4 / 3) - math.log(3 / 4)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                wanted = (int(top_u * (height - h + 1)), int(left_u * (width - w + 1)), h, w)
                break
        if wanted is None:
            fallbacks += 1
            w, h = width, height
            if width / height < 3 / 4:
                h = round(w / (3 / 4))
            elif width / height > 4 / 3:
                w = round(h * (4 / 3))
            wanted = ((height - h) // 2, (width - w) // 2, h, w)
        assert tuple(got[row].tolist()) == wanted
    assert fallbacks > 10


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 3), (3, 20_000), (20_000, 7)])
def test_extreme_shapes_are_cropped_inside(height: int, width: int) -> None:
    boxes = ours(height, width, 500)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()


def test_one_box_is_its_row_of_many() -> None:
    draws = drawn(20)
    boxes = crop_boxes(PUBLISHED, draws.crop, np.full(20, 50), np.full(20, 70))
    box = crop_box(PUBLISHED, draws, 13, height=50, width=70)
    assert (box.top, box.left, box.height, box.width) == tuple(boxes[13])


def test_jitter_is_distributed_as_torchvisions() -> None:
    draws = drawn()
    transform = ColorJitter(0.4, 0.4, 0.4, 0.1)
    torch.manual_seed(1)
    params = [
        ColorJitter.get_params(transform.brightness, transform.contrast, transform.saturation, transform.hue)
        for _ in range(2500)
    ]
    for operation in range(4):
        factors = draws.factors[:, operation].numpy()
        assert stats.ks_2samp([each[1 + operation] for each in params], factors).pvalue > 1e-3
        low, high = (-0.1, 0.1) if operation == 3 else (0.6, 1.4)
        assert low <= factors.min() < low + 0.01
        assert high - 0.01 < factors.max() <= high
    orders = np.array([int("".join(map(str, order))) for order in draws.order.tolist()])
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_probabilities_and_sigma() -> None:
    draws = drawn(20_000)
    for flags, probability in ((draws.jitter, 0.8), (draws.gray, 0.2), (draws.blur, 0.5), (draws.flip, 0.5)):
        assert stats.binomtest(int(flags.sum()), 20_000, probability).pvalue > 1e-3
    assert stats.kstest(draws.sigma.numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    blur = v2.GaussianBlur(5, sigma=(0.1, 2.0))
    torch.manual_seed(2)
    sigmas = [blur.make_params([])["sigma"][0] for _ in range(2000)]
    assert stats.ks_2samp(sigmas, draws.sigma.numpy()).pvalue > 1e-3


def test_numbers_are_independent_of_each_other() -> None:
    draws = drawn(20_000)
    columns = [draws.flip, draws.jitter, draws.gray, draws.blur, draws.sigma, *draws.factors.T, *draws.crop[:, 0].T]
    correlations = np.corrcoef([column.double().numpy() for column in columns])
    assert np.abs(correlations - np.eye(len(columns))).max() < 0.035
    pair = draw_pair(PUBLISHED, 20_000, step_generator(seed=0, epoch=0, step=0))
    for name in ("flip", "jitter", "gray", "blur", "sigma"):
        one, other = (getattr(view, name).double().numpy() for view in (pair.view1, pair.view2))
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.035, name


def test_draws_follow_seed_epoch_and_step_only() -> None:
    def sigma(seed: int, epoch: int, step: int) -> torch.Tensor:
        torch.rand(3)  # the global generator has no say
        return draw(PUBLISHED, 8, step_generator(seed=seed, epoch=epoch, step=step)).sigma

    assert torch.equal(sigma(1, 2, 3), sigma(1, 2, 3))
    for other in ((0, 2, 3), (1, 5, 3), (1, 2, 4), (2, 1, 3), (1, 3, 2)):  # each part counts, and its place
        assert not torch.equal(sigma(1, 2, 3), sigma(*other)), other


def test_rows_and_take() -> None:
    draws = drawn(10)
    assert len(draws) == 10
    assert torch.equal(draws.rows(3, 7).crop, draws.crop[3:7])
    assert torch.equal(draws.take(torch.tensor([9, 0])).order, draws.order[[9, 0]])
    assert draws.crop.shape == (10, CROP_TRIES, 4)


def test_strengths_of_zero_switch_jitter_off() -> None:
    assert not draw(only(jitter_probability=1.0), 50, step_generator(seed=0, epoch=0, step=0)).jitter.any()
    assert drawn(50, jitter_probability=1.0).jitter.all()
    strong = drawn(500, brightness=1.5)
    assert strong.factors[:, 0].min() >= 0
