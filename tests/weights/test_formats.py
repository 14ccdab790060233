"""Every foreign format, written by a network of its own kind, gives the same outputs once it is in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from simsiam.model import build_predictor, build_projector
from simsiam.weights.load import Loaded, load_backbone
from tests.weights import foreign
from tests.weights.foreign import Trio, prefixed, trio

Built = tuple[Trio, Any]  # the program's own network, and what its file holds


@pytest.fixture(scope="module")
def images() -> Tensor:
    torch.set_num_threads(1)
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def official() -> Built:
    net = trio(biased="last")
    state = prefixed(net.backbone, "module.encoder.") | prefixed(net.projector, "module.encoder.fc.")
    state |= prefixed(net.predictor, "module.predictor.")
    return net, {"epoch": 100, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def official_linear() -> Built:
    net = trio()
    state = prefixed(net.backbone, "module.") | prefixed(nn.Linear(512, 5), "module.fc.")
    return net, {"epoch": 90, "arch": "resnet18", "state_dict": state, "best_acc1": torch.tensor(68.1)}


def mmselfsup_training() -> Built:
    net = trio()
    backbone, neck = prefixed(net.backbone, "backbone."), foreign.mm_names(net.projector, "neck.")
    state = {"encoder.0." + n.removeprefix("backbone."): t for n, t in backbone.items()} | backbone
    state |= {"encoder.1." + n.removeprefix("neck."): t for n, t in neck.items()} | neck
    state |= foreign.mm_names(net.predictor, "head.predictor.")
    return net, {"meta": {"epoch": 3, "mmselfsup_version": "0.9.0"}, "state_dict": state, "optimizer": {}}


def mmselfsup_released() -> Built:
    net = trio()
    return net, {"state_dict": prefixed(net.backbone, ""), "author": "MMSelfSup"}


def mmselfsup_1x() -> Built:
    net = trio()
    state = prefixed(net.backbone, "backbone.") | foreign.mm_names(net.projector, "neck.")
    return net, {"meta": {"epoch": 1}, "state_dict": state | foreign.mm_names(net.predictor, "head.predictor.")}


def mmpretrain() -> Built:
    net, file = mmselfsup_1x()
    return net, file | {"meta": {"cfg": "default_scope = 'mmpretrain'"}}


def mmpretrain_classifier() -> Built:
    net = trio()
    return net, {"state_dict": prefixed(net.backbone, "backbone.") | prefixed(nn.Linear(512, 4), "head.fc.")}


def torchvision_file() -> Built:
    net = trio()
    return net, prefixed(net.backbone, "") | prefixed(nn.Linear(512, 4), "fc.")


def solo_learn() -> Built:
    net = trio(biased="last", small=2)  # its CIFAR stem pads by two
    state = prefixed(net.backbone, "backbone.") | prefixed(net.projector, "projector.")
    state |= prefixed(net.predictor, "predictor.") | prefixed(nn.Linear(512, 10), "classifier.")
    return net, {"state_dict": state, "pytorch-lightning_version": "1.6.4", "epoch": 9}


def solo_learn_old() -> Built:
    net, file = solo_learn()
    state = {name.replace("backbone.", "encoder."): tensor for name, tensor in file["state_dict"].items()}
    return net, file | {"state_dict": state}


def lightly() -> Built:
    net = trio()
    state = prefixed(foreign.indexed(net.backbone), "backbone.") | prefixed(net.projector, "projection_head.layers.")
    return net, state | prefixed(net.predictor, "prediction_head.layers.")


def lightly_biased() -> Built:
    net = trio(biased="all")
    state = prefixed(foreign.indexed(net.backbone), "backbone.") | prefixed(net.projector, "projection_head.layers.")
    return net, {"state_dict": state | prefixed(net.predictor, "prediction_head.layers.")}


def lightly_first() -> Built:
    """The first lightly releases: nested Sequentials, biases everywhere, a scale in the last BatchNorm."""
    net = trio(biased="all")
    p, q = net.projector, net.predictor
    nested = nn.Sequential(nn.Sequential(*p[0:3]), nn.Sequential(*p[3:6]), nn.Sequential(*p[6:8]))
    state = prefixed(foreign.indexed(net.backbone), "backbone.") | prefixed(nested, "projection_mlp.")
    return net, state | prefixed(nn.Sequential(nn.Sequential(*q[0:3]), q[3]), "prediction_mlp.")


def plain() -> Built:
    net = trio()
    return net, prefixed(net.backbone, "")


def plain_distributed() -> Built:
    net = trio()
    return net, {"model": prefixed(net.backbone, "module.")}


def plain_without_counters() -> Built:
    net = trio()
    return net, {n: t for n, t in prefixed(net.backbone, "").items() if not n.endswith("num_batches_tracked")}


def compiled_and_distributed() -> Built:
    net = trio()
    state = prefixed(net.backbone, "module._orig_mod.backbone.") | prefixed(
        net.projector, "module._orig_mod.projector."
    )
    return net, state | prefixed(net.predictor, "module._orig_mod.predictor.")


def numbered_layers() -> Built:
    """A common unofficial reproduction: backbone and head twice, layers counted from one."""
    net = trio()
    p, q = net.projector, net.predictor
    parts = [nn.Sequential(*p[start:end]) for start, end in ((0, 3), (3, 6), (6, 8))]
    head = nn.ModuleDict({f"layer{n}": part for n, part in enumerate(parts, 1)})
    state = prefixed(net.backbone, "backbone.") | prefixed(head, "projector.")
    state |= prefixed(net.backbone, "encoder.0.") | prefixed(head, "encoder.1.")
    return net, state | prefixed(nn.ModuleDict({"layer1": q[0:3], "layer2": q[3]}), "predictor.")


CASES: dict[str, tuple[Callable[[], Built], str, bool]] = {  # builder, reported format, has heads
    "official pre-train": (official, "official pre-train", True),
    "official linear": (official_linear, "official linear", False),
    "mmselfsup 0.x training": (mmselfsup_training, "MMSelfSup 0.x training", True),
    "mmselfsup 0.x released": (mmselfsup_released, "MMSelfSup 0.x released", False),
    "mmselfsup 1.x": (mmselfsup_1x, "MMSelfSup 1.x", True),
    "mmpretrain": (mmpretrain, "MMPretrain", True),
    "mmpretrain classifier": (mmpretrain_classifier, "MMPretrain", False),
    "torchvision": (torchvision_file, "torchvision or timm", False),
    "solo-learn": (solo_learn, "solo-learn", True),
    "solo-learn, encoder": (solo_learn_old, "solo-learn", True),
    "lightly": (lightly, "lightly", True),
    "lightly, biases": (lightly_biased, "lightly", True),
    "lightly, first": (lightly_first, "lightly", True),
    "plain": (plain, "plain state dict", False),
    "plain, module.": (plain_distributed, "plain state dict", False),
    "plain, no counters": (plain_without_counters, "plain state dict", False),
    "DDP and compile": (compiled_and_distributed, "plain state dict under 'backbone.'", True),
    "numbered layers": (numbered_layers, "plain state dict under 'backbone.'", True),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case: str, tmp_path: Path, images: Tensor) -> None:
    build, expected_format, has_heads = CASES[case]
    net, content = build()
    path = tmp_path / "file.pth"
    torch.save(content, path)
    loaded = load_backbone(path)
    assert loaded.source_format == expected_format
    assert not loaded.backbone.training
    assert (loaded.projector is not None) == has_heads == (loaded.predictor is not None)
    same_outputs(loaded, net, images)


def same_outputs(loaded: Loaded, net: Trio, images: Tensor) -> None:
    features, z, p = net.outputs(images)
    with torch.no_grad():
        ours = loaded.backbone(images)
        torch.testing.assert_close(ours, features, rtol=1e-6, atol=1e-6)
        if loaded.projector is None or loaded.predictor is None:
            return
        projector = build_projector(loaded.backbone.features, foreign.DIM, foreign.DIM, layers=3).eval()
        projector.load_state_dict(loaded.projector)  # strict: our names and no others
        predictor = build_predictor(foreign.DIM, foreign.HIDDEN).eval()
        predictor.load_state_dict(loaded.predictor)
        scale = float(z.abs().max())
        torch.testing.assert_close(projector(ours), z, rtol=0, atol=3e-6 * scale)
        torch.testing.assert_close(predictor(projector(ours)), p, rtol=0, atol=3e-6 * float(p.abs().max()))


@pytest.mark.parametrize(("name", "legacy"), [("resnet34", False), ("resnet50", True)])
def test_architecture_is_inferred(name: str, legacy: bool, tmp_path: Path, images: Tensor) -> None:
    net = foreign.resnet(name, small=1)
    torch.save(net.state_dict(), tmp_path / "f.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_backbone(tmp_path / "f.pth")
    assert loaded.backbone.name == name
    assert loaded.preprocess.size == 32
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), net(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "backbone.bottom_up."])
def test_detectron2_pickle(prefix: str, tmp_path: Path, images: Tensor) -> None:
    net = foreign.resnet("resnet50")
    names = foreign.detectron2_names(net)
    arrays = {prefix + n: t.numpy() for n, t in names.items() if not n.endswith("num_batches_tracked")}
    if prefix:
        arrays["backbone.fpn_lateral2.weight"] = numpy.zeros((256, 256, 1, 1), numpy.float32)
    path = tmp_path / "r50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone", "matching_heuristics": True}))
    loaded = load_backbone(path)
    assert loaded.source_format == "detectron2"
    assert any("fpn_lateral2" in note for note in loaded.notes) == bool(prefix)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), net(images), rtol=1e-6, atol=1e-6)


def test_lightly_own_resnet_has_shorter_indices(tmp_path: Path, images: Tensor) -> None:
    net = foreign.resnet("resnet18", small=1)
    children = [net.conv1, net.bn1, net.layer1, net.layer2, net.layer3, net.layer4]
    state = prefixed(nn.Sequential(*children), "backbone.")
    torch.save({name.replace("downsample", "shortcut"): tensor for name, tensor in state.items()}, tmp_path / "f.pt")
    loaded = load_backbone(tmp_path / "f.pt")
    assert loaded.source_format == "lightly"
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), net(images), rtol=1e-6, atol=1e-6)


def test_timm_names_equal_torchvisions(tmp_path: Path, images: Tensor) -> None:
    timm = pytest.importorskip("timm", reason="the timm extra is not installed")
    net = foreign.shake(timm.create_model("resnet26", num_classes=0))
    torch.save(net.state_dict(), tmp_path / "f.pth")
    named = load_backbone(tmp_path / "f.pth", backbone="timm:resnet26")
    with torch.no_grad():
        torch.testing.assert_close(named.backbone(images), net(images), rtol=1e-6, atol=1e-6)
    net = foreign.shake(timm.create_model("resnet18", num_classes=7))
    torch.save({"arch": "resnet18", "state_dict": net.state_dict(), "args": None}, tmp_path / "g.pth")
    ours = load_backbone(tmp_path / "g.pth")
    with torch.no_grad():
        expected = net.global_pool(net.forward_features(images))
        torch.testing.assert_close(ours.backbone(images), expected, rtol=1e-6, atol=1e-6)


def test_momentum_copies_are_passed_over(tmp_path: Path, images: Tensor) -> None:
    net, other = foreign.resnet(), foreign.resnet()
    other.conv1.weight.data.add_(1)
    torch.save(prefixed(other, "momentum_backbone.") | prefixed(net, "backbone."), tmp_path / "f.pth")
    loaded = load_backbone(tmp_path / "f.pth")
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), net(images), rtol=1e-6, atol=1e-6)


def test_twins_that_differ_are_told(tmp_path: Path) -> None:
    _, file = mmselfsup_training()
    file["state_dict"]["encoder.0.conv1.weight"] = file["state_dict"]["encoder.0.conv1.weight"] + 1
    torch.save(file, tmp_path / "f.pth")
    assert any("encoder.0.conv1.weight differs" in note for note in load_backbone(tmp_path / "f.pth").notes)


def test_a_head_of_another_method_is_left_out(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 8))
    torch.save(prefixed(foreign.resnet(), "backbone.") | prefixed(head, "projector."), tmp_path / "f.pth")
    loaded = load_backbone(tmp_path / "f.pth")
    assert loaded.projector is None
    assert any("projector left out" in note for note in loaded.notes)
