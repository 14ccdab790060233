"""The targets of the paper's section 5.2 against its formulae, step by step on a network that changes meanwhile."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from simsiam.data.two_views.loader import Batch
from simsiam.model import Outputs, SimSiam
from simsiam.pretraining.targets import Targets, open_targets
from tests.test_model import SMALL

STEPS, IMAGES = 3, 12


def network() -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(SMALL)


def batch(epoch: int, step: int) -> Batch:
    generator = torch.Generator().manual_seed(10 * epoch + step)
    x1, x2 = (torch.randn(4, 3, 16, 16, generator=generator) for _ in range(2))
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(epoch))[4 * step : 4 * step + 4]
    return Batch(x1=x1, x2=x2, indices=rows, epoch=epoch, step=step, bad=[])


def change(model: SimSiam) -> None:
    """What a step of the optimiser does: other weights."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("kind", "every"), [("10-steps", 10), ("epoch", STEPS)])
def test_the_weights_of_the_targets_are_those_of_the_last_kth_step(kind: str, every: int) -> None:
    model = network()
    targets = open_targets(kind, model, steps=STEPS, images=IMAGES, dim=16)  # type: ignore[arg-type]
    assert targets is not None
    history = []
    for count, (epoch, step) in enumerate(itertools.product(range(5), range(STEPS))):
        history.append(copy.deepcopy(model))
        here = batch(epoch, step)
        z1, z2 = targets(here, model(here.x1, here.x2))
        old = history[count - count % every]
        torch.testing.assert_close(z1, old.project(here.x1))
        torch.testing.assert_close(z2, old.project(here.x2))
        assert not z1.requires_grad
        change(model)


def test_one_step_is_simsiam() -> None:
    assert open_targets("step", network(), steps=STEPS, images=IMAGES, dim=16) is None


def test_the_moving_average_is_the_papers_formula() -> None:
    """eta of an image: 0.8 of what it was and 0.2 of the projection now; at first that of the untrained network."""
    model = network()
    untrained = copy.deepcopy(model)
    targets = open_targets("moving-average", model, steps=STEPS, images=IMAGES, dim=16)
    assert targets is not None
    eta: dict[int, Tensor] = {}
    for epoch, step in itertools.product(range(3), range(STEPS)):
        here = batch(epoch, step)
        outputs = model(here.x1, here.x2)
        found1, found2 = targets(here, outputs)
        first = (unit(untrained.project(here.x1)) + unit(untrained.project(here.x2))) / 2
        for row, image in enumerate(here.indices.tolist()):
            before = eta.get(image, first[row].detach())
            by1, by2 = (0.8 * before + 0.2 * unit(z)[row] for z in (outputs.z1, outputs.z2))
            torch.testing.assert_close(found1[row], by1)
            torch.testing.assert_close(found2[row], by2)
            eta[image] = (by1 + by2) / 2
        assert not found1.requires_grad
        change(model)
    assert len(eta) == IMAGES


@pytest.mark.parametrize("kind", ["10-steps", "moving-average"])
def test_a_checkpoint_holds_their_state(kind: str) -> None:
    def opened() -> tuple[SimSiam, Targets]:
        model = network()
        targets = open_targets(kind, model, steps=STEPS, images=IMAGES, dim=16)  # type: ignore[arg-type]
        assert targets is not None
        return model, targets

    def outputs(model: SimSiam, here: Batch) -> Outputs:
        return model(here.x1, here.x2)  # type: ignore[no-any-return]

    model, targets = opened()
    for step in range(2):
        targets(batch(0, step), outputs(model, batch(0, step)))
        change(model)
    later_model, later = opened()
    nn.ModuleList([later_model, later]).load_state_dict(nn.ModuleList([model, targets]).state_dict())
    for epoch, step in [(0, 2), (1, 0), (1, 1)]:
        here = batch(epoch, step)
        torch.testing.assert_close(later(here, outputs(later_model, here)), targets(here, outputs(model, here)))
        change(model), change(later_model)
