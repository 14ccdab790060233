"""Our step, optimiser and schedule against the official implementation's losses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simsiam.config import Model
from simsiam.engine import optimizers, precision
from simsiam.engine.precision import Precision
from simsiam.model import SimSiam
from simsiam.pretraining.step import simsiam_optimizer, simsiam_schedule, train_step

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "training_trajectory.json").read_text())
FROZEN_BIAS = "encoder.fc.6.bias"


def official_name(ours: str) -> str:
    head, _, rest = ours.partition(".")
    return {"backbone": "encoder.", "projector": "encoder.fc.", "predictor": "predictor."}[head] + rest


def draw_start(shapes: dict[str, torch.Size], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = {}
    for key in sorted(shapes):
        shape = shapes[key]
        if key.endswith("num_batches_tracked"):
            start[key] = torch.tensor(0)
        elif key.endswith("running_mean"):
            start[key] = torch.zeros(shape)
        elif key.endswith("running_var"):
            start[key] = torch.ones(shape)
        elif len(shape) >= 2:
            start[key] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        elif key.endswith("bias"):
            start[key] = torch.randn(shape, generator=generator) * 0.01
        else:
            start[key] = 1 + 0.1 * torch.randn(shape, generator=generator)
    return start


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What our step gave from the official start on the official batches."""

    losses: list[float]
    spreads: list[float]  # without the factor sqrt(d), as the file has them
    final: dict[str, Tensor]  # under the official names
    frozen_bias: Tensor


def follow(
    golden: dict[str, Any],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    number_format: Precision = "fp32",
) -> Trajectory:
    """Train as the official implementation did, in some number format on some device."""
    torch.manual_seed(0)
    network = SimSiam(
        Model(
            backbone="resnet10",
            width=64,
            stem="imagenet",
            projector_layers=3,
            projector_hidden=0,
            projector_dim=golden["dim"],
            predictor="mlp",
            predictor_dim=golden["pred_dim"],
            stop_gradient="on",
            heads_norm="default",
        )
    )
    shapes = {official_name(key): value.shape for key, value in network.state_dict().items()}
    start = draw_start({**shapes, FROZEN_BIAS: torch.Size([golden["dim"]])}, golden["seed"])
    frozen_bias = start.pop(FROZEN_BIAS).double()
    assert set(start) == set(shapes)
    network.load_state_dict({key: start[official_name(key)] for key in network.state_dict()})
    network.to(device, dtype).train()

    optimizer = simsiam_optimizer(
        network,
        lr=golden["base_lr"] * golden["batch"] / 256,
        momentum=golden["momentum"],
        weight_decay=golden["weight_decay"],
        predictor_lr="fixed" if golden["fix_pred_lr"] else "cosine",
    )
    schedule = simsiam_schedule(epochs=golden["epochs"], warmup_epochs=0)
    losses, spreads = [], []
    for t in range(golden["epochs"] * golden["steps_per_epoch"]):
        generator = torch.Generator().manual_seed(1000 * golden["seed"] + t)
        size = (golden["batch"], 3, golden["size"], golden["size"])
        x1 = torch.randn(size, generator=generator).to(device, dtype)
        x2 = torch.randn(size, generator=generator).to(device, dtype)
        optimizers.set_lr(optimizer, schedule(float(t // golden["steps_per_epoch"])))
        with precision.autocast(number_format, torch.device(device)):
            numbers = train_step(network, x1, x2, update=lambda loss: _descend(loss, optimizer))
        losses.append(float(numbers["loss"]))
        spreads.append(float(numbers["spread"]) / golden["dim"] ** 0.5)
    final = {official_name(key): value for key, value in network.state_dict().items()}
    return Trajectory(losses=losses, spreads=spreads, final=final, frozen_bias=frozen_bias)


@pytest.mark.parametrize("entry", sorted(GOLDEN))
def test_trajectory_of_the_official_implementation(entry: str) -> None:
    golden = GOLDEN[entry]
    ours = follow(golden)
    assert ours.losses == pytest.approx(golden["loss"], abs=1e-6)
    assert ours.spreads == pytest.approx(golden["z_std"], abs=1e-6)
    final = dict(ours.final)
    passes = 2 * len(ours.losses)
    final["encoder.fc.7.running_mean"] = final["encoder.fc.7.running_mean"] + ours.frozen_bias * (1 - 0.9**passes)
    for key, norm in golden["final_l2_norm"].items():
        assert float(final[key].norm()) == pytest.approx(norm, rel=1e-6), key


@pytest.mark.gpu
@pytest.mark.parametrize("entry", sorted(GOLDEN))
@pytest.mark.parametrize(("number_format", "bound"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_trajectory_on_a_gpu(entry: str, number_format: Precision, bound: float) -> None:
    """Rounding grows along a trajectory; the losses stay with the official ones all the same."""
    golden = GOLDEN[entry]
    precision.prepare(number_format, torch.device("cuda"))
    ours = follow(golden, device="cuda", dtype=torch.float32, number_format=number_format)
    assert ours.losses == pytest.approx(golden["loss"], abs=bound)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
