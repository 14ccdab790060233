"""Files from bug reports on weights: what `simsiam import` says and does with each."""

from __future__ import annotations

import argparse
import collections
import copy
import decimal
import enum
import fractions
import ipaddress
import math
import operator
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy
import pytest
import torch
import torchvision
from torch import Tensor

from simsiam import cli
from simsiam.backbones import build_backbone
from simsiam.errors import UserError
from simsiam.weights.load import load_backbone


class Phase(enum.Enum):
    LAST = "last"


@pytest.fixture(scope="module")
def network() -> torchvision.models.ResNet:
    torch.manual_seed(0)
    made = torchvision.models.resnet18(weights=None)
    made.fc = torch.nn.Identity()
    return made.eval()


def import_file(path: Path, *flags: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["import", str(path), "--out", str(path.parent / "imp"), *flags])
    return int(end.value.code or 0)


def same_features(folder: Path, network: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(folder).backbone(images), network(images), rtol=1e-6, atol=1e-6)


def test_a_scheduler_and_arguments_beside_the_weights(
    network: torchvision.models.ResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torchvision's reference scripts write: MultiStepLR keeps a Counter, the script its Namespace."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    content = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60]).state_dict(),
        "epoch": 1,
        "args": argparse.Namespace(lr=0.1),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    assert import_file(tmp_path / "checkpoint.pth") == 0
    assert "resnet18 (width 64, stem imagenet): 120 tensors, all loaded" in capsys.readouterr().out
    same_features(tmp_path / "imp", network)


def test_dinos_student_and_teacher(
    network: torchvision.models.ResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """facebookresearch/dino issue 217, dinov2 issue 235."""
    state = network.state_dict()
    student = {"module.backbone." + name: tensor + 1 for name, tensor in state.items()}
    teacher = {"backbone." + name: tensor for name, tensor in state.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 1}, tmp_path / "dino.pth")
    assert import_file(tmp_path / "dino.pth") == 0
    said = capsys.readouterr().out
    assert "recognised as DINO" in said
    assert "note: taken: teacher.backbone. (the teacher" in said
    assert "also in it: student.backbone. (--branch NAME takes another)" in said
    same_features(tmp_path / "imp", network)


def test_whole_numbers_are_refused_in_words(
    network: torchvision.models.ResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Tensor] = network.state_dict()
    torch.save(
        {name: (t * 100).to(torch.int8) if t.is_floating_point() else t for name, t in state.items()},
        tmp_path / "int8.pth",
    )
    assert import_file(tmp_path / "int8.pth") == 2
    assert "holds whole numbers (int8), as quantised weights do" in capsys.readouterr().err
    assert not (tmp_path / "imp").exists()


def test_a_first_layer_of_one_channel(
    network: torchvision.models.ResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Tensor] = dict(network.state_dict())
    state["conv1.weight"] = state["conv1.weight"].mean(1, keepdim=True)
    torch.save(state, tmp_path / "gray.pth")
    assert import_file(tmp_path / "gray.pth") == 2
    assert "its first layer takes 1 channel, this program needs 3 (RGB)" in capsys.readouterr().err
    assert import_file(tmp_path / "gray.pth", "--channels", "widen") == 0
    assert "widened to 3" in capsys.readouterr().out


def tiny_state() -> dict[str, Tensor]:
    return dict(build_backbone("resnet10", width=8).state_dict())


HARMLESS: dict[str, object] = {
    "user list": collections.UserList([1]),
    "user dict": collections.UserDict({1: 2}),
    "chain": collections.ChainMap({1: 2}),
    "enum": Phase.LAST,
    "flags": re.RegexFlag.I,
    "ellipsis": (..., NotImplemented),
    "address": ipaddress.ip_address("10.0.0.1"),
    "functions": (math.sqrt, copy.deepcopy, operator.add, sorted, torch.relu),
    "path kinds": (os.PathLike, PurePosixPath("a"), PureWindowsPath("a\\b")),
    "errors": (KeyError("x"), TimeoutError()),
    "numbers": (range(3), fractions.Fraction(1, 2), decimal.Decimal("1.5"), numpy.float64(1), numpy.dtype("f4")),
    "types": (int, type(None), torch.float16, torch.nn.Linear),
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("protocol", [2, 5])
def test_plain_data_beside_the_weights_is_no_alarm(kind: str, protocol: int, tmp_path: Path) -> None:
    state = tiny_state()
    torch.save({"model": state, "kept": HARMLESS[kind]}, tmp_path / "f.pth", pickle_protocol=protocol)
    assert load_backbone(tmp_path / "f.pth").backbone.name == "resnet10"


@pytest.mark.parametrize("shape", ["list", "pair", "models", "fp8", "bf16"])
def test_other_containers_and_kinds_of_numbers(shape: str, tmp_path: Path) -> None:
    state = tiny_state()
    small = {"fp8": torch.float8_e4m3fn, "bf16": torch.bfloat16}.get(shape)
    if small is not None:
        state = {name: t.to(small) if t.is_floating_point() else t for name, t in state.items()}
    content = {"list": [state], "pair": (state, {"epoch": 3}), "models": {"models": [state]}}.get(shape, state)
    torch.save(content, tmp_path / "f.pth")
    found = load_backbone(tmp_path / "f.pth").backbone.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, state[name].to(tensor.dtype))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + bytes(22) + b"\x0b\0\0\0weights.npy", "an archive of NumPy arrays"),
        (b"PK\x03\x04" + bytes(22) + b"\x13\0\0\0[Content_Types].xml", "an office document"),
        (
            b'{"metadata": {}, "weight_map": {"conv1.weight": "a-00001.safetensors"}}',
            "weights that lie in several files",
        ),
        (b"a.pth".ljust(257, b"\0") + b"ustar" + bytes(64), r"a tar archive \(unpack it first"),
    ],
)
def test_what_is_no_weights_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"w\.pth: not a weights file that this program knows; it is .*{said}"):
        load_backbone(tmp_path / "w.pth")
