"""Each measure of the monitor against its literal formula, and the comparison against known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from simsiam.model import spread
from simsiam.pretraining.baselines import RawPixels, compare, percentage
from simsiam.pretraining.finish import Renormalised
from simsiam.pretraining.measures import effective_rank, view_hits


def test_spread_of_a_full_sphere_is_one_and_of_a_point_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    assert float(spread(torch.randn(4000, 64, generator=generator))) == pytest.approx(1.0, abs=0.01)
    assert float(spread(torch.ones(100, 64))) == pytest.approx(0.0, abs=1e-6)


def test_effective_rank_is_the_literal_formula() -> None:
    rng = np.random.default_rng(1)
    for shape in ((40, 12), (12, 40)):
        rows = rng.normal(size=shape) * np.linspace(0.1, 3, shape[1])
        values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
        share = values[values > 1e-9] / values.sum()
        literal = float(np.exp(-(share * np.log(share)).sum()))
        assert effective_rank(torch.from_numpy(rows)) == pytest.approx(literal, rel=1e-6)


def test_effective_rank_counts_equal_directions() -> None:
    basis = torch.eye(6, 20)
    assert effective_rank(torch.cat([basis, -basis])) == pytest.approx(6.0, abs=1e-6)
    assert effective_rank(torch.ones(10, 5)) == 0.0
    assert np.isnan(effective_rank(torch.full((4, 4), float("nan"))))


def test_view_retrieval_counts_the_own_second_view() -> None:
    f1 = torch.eye(5)
    f2 = torch.eye(5)
    f2[[1, 2]] = f2[[2, 1]]
    assert view_hits(f1, f2).tolist() == [1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [(600, 400, "better"), (400, 600, "worse"), (500, 502, "no clear difference")],
)
def test_a_comparison_says_better_worse_or_neither(ours: int, theirs: int, outcome: str) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.permutation(np.arange(1000) < count).astype(float) for count in (ours, theirs))
    found = compare(a, b, measure="knn", against="random network")
    assert found["outcome"] == outcome
    assert found["difference"] == pytest.approx((ours - theirs) / 10)


def test_a_figure_of_few_images_has_a_wide_interval() -> None:
    assert percentage(np.zeros(20)) == {"value": 0.0, "low": 0.0, "high": 16.11}
    assert percentage(np.ones(20)) == {"value": 100.0, "low": 83.89, "high": 100.0}


def test_raw_pixels_are_the_pixels() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(RawPixels()(images), images.flatten(1))
    assert RawPixels()(torch.rand(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)


def test_compared_weights_get_their_own_normalisation() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    given, wanted = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))

    def normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    renormalised = Renormalised(torch.nn.Identity(), given=given, wanted=wanted)
    torch.testing.assert_close(renormalised(normalise(*given)), normalise(*wanted))


def test_p_and_z_enter_the_loss_as_cosines() -> None:
    p, z = torch.randn(6, 9), torch.randn(6, 9)
    unit = functional.normalize(p, dim=1) * functional.normalize(z, dim=1)
    from simsiam.model import negative_cosine

    assert float(negative_cosine(p, z)) == pytest.approx(-float(unit.sum(1).mean()), abs=1e-6)
