"""The network and its loss against the paper's formulae, written out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from simsiam.backbones import build_backbone
from simsiam.config import Model
from simsiam.engine.optimizers import rates, set_lr
from simsiam.model import SimSiam, build_predictor, build_projector, cross_entropy, loss, negative_cosine, spread
from simsiam.recipes.pretrain import RECIPES

SMALL = Model(
    backbone="resnet10",
    width=8,
    stem="small",
    projector_layers=3,
    projector_hidden=24,
    projector_dim=16,
    predictor="mlp",
    predictor_dim=6,
    stop_gradient="on",
    heads_norm="default",
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(**changes: Any) -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(dataclasses.replace(SMALL, **changes)).double()


def literal_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Equation 1, row by row: minus the inner product of the two rows of unit length."""
    each = [-(a / a.pow(2).sum().sqrt() * (b / b.pow(2).sum().sqrt())).sum() for a, b in zip(p, z, strict=True)]
    return torch.stack(each).sum() / len(p)


def test_negative_cosine_is_equation_1() -> None:
    p, z = rows(5, 7), rows(5, 7, seed=1)
    assert float(negative_cosine(p, z)) == pytest.approx(float(literal_cosine(p, z)), abs=1e-12)
    assert float(negative_cosine(p, p * rows(5, 1, seed=2).abs())) == pytest.approx(-1, abs=1e-12)
    assert float(negative_cosine(p, -p)) == pytest.approx(1, abs=1e-12)


def test_the_loss_is_equation_2() -> None:
    p1, p2, z1, z2 = (rows(5, 7, seed=seed) for seed in range(4))
    literal = literal_cosine(p1, z2) / 2 + literal_cosine(p2, z1) / 2
    assert float(loss(p1, p2, z1, z2)) == pytest.approx(float(literal), abs=1e-12)
    assert float(loss(p2, p1, z2, z1)) == pytest.approx(float(literal), abs=1e-12)  # symmetrised
    assert float(loss(p1, p2, z2, z1)) != pytest.approx(float(literal), abs=1e-3)  # across the views, not within one


def test_cross_entropy_is_the_formula_of_section_4_5() -> None:
    p, z = rows(5, 7), rows(5, 7, seed=1)
    literal = 0.0
    for predicted, target in zip(p, z, strict=True):
        weights = target.exp() / target.exp().sum()
        literal -= float((weights * (predicted.exp() / predicted.exp().sum()).log()).sum()) / 5
    assert float(cross_entropy(p, z)) == pytest.approx(literal, abs=1e-12)
    p2, z1 = rows(5, 7, seed=2), rows(5, 7, seed=3)
    both = (float(cross_entropy(p, z)) + float(cross_entropy(p2, z1))) / 2
    assert float(loss(p, p2, z1, z, similarity="cross-entropy")) == pytest.approx(both, abs=1e-12)


def test_one_direction_is_equation_1_of_the_first_prediction() -> None:
    p1, p2, z1, z2 = (rows(5, 7, seed=seed) for seed in range(4))
    assert float(loss(p1, p2, z1, z2, symmetric=False)) == pytest.approx(float(literal_cosine(p1, z2)), abs=1e-12)


def test_the_loss_is_computed_in_single_precision_from_halves() -> None:
    p1, p2, z1, z2 = (rows(5, 7, seed=seed).bfloat16() for seed in range(4))
    found = loss(p1, p2, z1, z2)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss(p1.double(), p2.double(), z1.double(), z2.double())), abs=1e-6)


@pytest.mark.parametrize("stop_gradient", ["on", "off"])
def test_the_gradient_is_that_of_algorithm_1(stop_gradient: str) -> None:
    """z is a constant of the loss with the stop-gradient, a variable without."""
    model = network(stop_gradient=stop_gradient)
    x1, x2 = rows(6, 3, 16, 16), rows(6, 3, 16, 16, seed=1)
    loss(*model(x1, x2)).backward()
    ours = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    z1, z2 = (model.projector(model.backbone(x)) for x in (x1, x2))
    p1, p2 = model.predictor(z1), model.predictor(z2)
    if stop_gradient == "on":
        z1, z2 = (torch.tensor(z.tolist(), dtype=torch.float64) for z in (z1, z2))
    (literal_cosine(p1, z2) / 2 + literal_cosine(p2, z1) / 2).backward()
    literal = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert ours.keys() == literal.keys() == dict(model.named_parameters()).keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, literal[name], rtol=1e-7, atol=1e-10)


def test_what_the_network_gives_and_in_which_order() -> None:
    model = network()
    model.eval()
    x1, x2 = rows(4, 3, 16, 16), rows(4, 3, 16, 16, seed=1)
    p1, p2, z1, z2 = model(x1, x2)
    for x, z, p in ((x1, z1, p1), (x2, z2, p2)):
        torch.testing.assert_close(z, model.projector(model.backbone(x)))
        torch.testing.assert_close(p, model.predictor(z))
        assert z.shape == p.shape == (4, 16)
        assert not z.requires_grad
        assert p.requires_grad
    assert network(stop_gradient="off")(x1, x2)[2].requires_grad


def test_batch_statistics_are_of_each_view_alone() -> None:
    model = network()
    x1, x2 = rows(4, 3, 16, 16), 3 + rows(4, 3, 16, 16, seed=1)
    z1 = model(x1, x2).z1
    torch.testing.assert_close(z1, network()(x1, 5 * x2).z1)
    torch.testing.assert_close(z1.mean(0), torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-9)
    assert not torch.allclose(z1, network()(x2, x1).z1)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_projector_is_the_papers(layers: int) -> None:
    """Linear-BN-ReLU but for the last, which is Linear-BN; no bias before a BN, no affine at the end."""
    parts = list(build_projector(10, 7, 5, layers=layers))
    assert [type(part) for part in parts] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (layers - 1) + [
        nn.Linear,
        nn.BatchNorm1d,
    ]
    linears = [part for part in parts if isinstance(part, nn.Linear)]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm1d)]
    widths = [10, *[7] * (layers - 1), 5]
    assert [(part.in_features, part.out_features) for part in linears] == list(itertools.pairwise(widths))
    assert [part.bias for part in linears] == [None] * layers
    assert [part.num_features for part in norms] == widths[1:]
    assert [part.affine for part in norms] == [True] * (layers - 1) + [False]


def test_a_projector_without_a_width_has_the_features_width() -> None:
    assert [tuple(p.shape) for p in build_projector(10, 0, 5, layers=2).parameters()] == [
        (10, 10),
        (10,),
        (10,),
        (5, 10),
    ]


def test_the_predictor_is_the_papers() -> None:
    """Linear-BN-ReLU-Linear, a bottleneck whose output layer has a bias and neither BN nor ReLU."""
    first, norm, relu, last = build_predictor(20, 5)
    assert (first.in_features, first.out_features, first.bias) == (20, 5, None)
    assert (norm.num_features, norm.affine) == (5, True)
    assert isinstance(relu, nn.ReLU)
    assert (last.in_features, last.out_features) == (5, 20)
    assert last.bias is not None


@pytest.mark.parametrize(
    ("norm", "projector", "predictor"),
    [  # paper, Table 3: a letter a layer; a capital Linear has a bias
        ("none", "LRLRL", "LRL"),
        ("hidden", "lBRlBRL", "lBRL"),
        ("default", "lBRlBRlB", "lBRL"),
        ("all", "lBRlBRlB", "lBRlB"),
    ],
)
def test_where_the_heads_have_a_batch_norm(norm: str, projector: str, predictor: str) -> None:
    model = network(heads_norm=norm)
    letters = {nn.Linear: "L", nn.BatchNorm1d: "B", nn.ReLU: "R"}

    def spelt(head: nn.Module) -> str:
        parts = list(head.children())
        biased = [not isinstance(part, nn.Linear) or part.bias is not None for part in parts]
        found = [letters[type(part)] for part in parts]
        return "".join(letter if bias else letter.lower() for letter, bias in zip(found, biased, strict=True))

    assert (spelt(model.projector), spelt(model.predictor)) == (projector, predictor)
    x1, x2 = rows(6, 3, 16, 16), rows(6, 3, 16, 16, seed=1)
    assert [out.shape for out in model(x1, x2)] == [(6, 16)] * 4


def test_a_fixed_predictor_is_not_trained_and_passes_the_gradient_on() -> None:
    model = network(predictor="fixed")
    before = [value.clone() for value in model.predictor.parameters()]
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.5))
    assert [group["name"] for group in optimizer.param_groups] == ["encoder"]
    loss(*model(rows(6, 3, 16, 16), rows(6, 3, 16, 16, seed=1))).backward()
    optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, model.predictor.parameters(), strict=True))
    assert bool(model.projector[0].weight.grad.any())
    assert list(model.predictor.state_dict()) == list(network().predictor.state_dict())


def test_the_record_of_the_recipe_is_what_is_built() -> None:
    model = network(projector_layers=2)
    assert len([part for part in model.projector if isinstance(part, nn.Linear)]) == 2
    assert model.projector[0].weight.shape == (24, 64)
    assert model.predictor[0].weight.shape == (6, 16)
    assert isinstance(network(predictor="none").predictor, nn.Identity)


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    model = SimSiam(RECIPES["resnet50_8xb32-coslr-100e"]().model)
    counts = {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
    assert counts == {"backbone": 23_508_032, "projector": 12_591_104, "predictor": 2_100_224}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_blocks_begin_as_identities_and_convolutions_as_he_normal(name: str) -> None:
    backbone = build_backbone(name, width=16)
    blocks = [part for part in backbone.modules() if isinstance(part, BasicBlock | Bottleneck)]
    last = [block.bn3 if isinstance(block, Bottleneck) else block.bn2 for block in blocks]
    assert not any(bool(norm.weight.any()) for norm in last)
    others = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d) and part not in last]
    assert all(bool((norm.weight == 1).all() & (norm.bias == 0).all()) for norm in others)
    for part in backbone.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 20_000:
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1]
            assert float(part.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)


def test_spread_is_the_literal_formula() -> None:
    z = rows(9, 5)
    unit = torch.stack([row / row.norm() for row in z])
    literal = sum(float(column.std()) for column in unit.T) / 5 * 5**0.5
    assert float(spread(z)) == pytest.approx(literal, abs=1e-12)
    assert spread(z.half()).dtype == torch.float32


def test_the_predictors_rate_is_fixed() -> None:
    model = SimSiam("resnet10", width=8, projector_dim=8)
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.05))
    set_lr(optimizer, 0.5)
    assert rates(optimizer) == {"encoder": 0.025, "predictor": 0.05}
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(
        p.numel() for p in model.parameters()
    )
    everything = torch.optim.SGD(model.parameter_groups(lr=0.05, predictor_lr="cosine"))
    set_lr(everything, 0.5)
    assert rates(everything) == {"encoder": 0.025, "predictor": 0.025}
