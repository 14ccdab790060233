"""Files of self-supervised programs, built from their key lists: the right branch is taken and said."""

from __future__ import annotations

import argparse
import collections
import enum
import pathlib
import pickle
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from simsiam.backbones import ResNet, build_backbone
from simsiam.errors import UserError
from simsiam.weights.load import load_backbone
from tests.weights.foreign import prefixed, shake

Named = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def network(seed: int) -> ResNet:
    """A narrow ResNet with torchvision's names, its classifier's place empty."""
    torch.manual_seed(seed)
    made = shake(build_backbone("resnet10", width=8))
    assert isinstance(made, ResNet)
    made.conv1.weight.data.add_(0.01 * seed)
    return made


WANTED, OTHER = network(1), network(2)


def one(prefix: str) -> Named:
    return prefixed(WANTED, prefix)


def other(prefix: str) -> Named:
    return prefixed(OTHER, prefix)


def linear(prefix: str, out: int = 4) -> Named:
    return prefixed(nn.Linear(64, out), prefix)


def indexed(net: ResNet, prefix: str) -> Named:
    """The children in a row, as nn.Sequential(*list(net.children())[:-1]) names them."""
    layers = [net.get_submodule(f"layer{stage}") for stage in range(1, 5)]
    return prefixed(nn.Sequential(net.conv1, net.bn1, nn.ReLU(), nn.MaxPool2d(3), *layers), prefix)


def feature_blocks(net: ResNet) -> Named:
    return prefixed(net, "_feature_blocks.")


VISSL = {"base_model": {"model": {"trunk": feature_blocks(WANTED), "heads": linear("0.clf.0.")}}}
QUEUE = {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1)}

# Content, the format that is said, and what is said of the choice where the file holds several networks.
LAYOUTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "DINO": (
        lambda: {
            "student": other("module.backbone.") | linear("module.head.mlp.0."),
            "teacher": one("backbone.") | linear("head.mlp.0."),
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
            "epoch": 100,
            "args": argparse.Namespace(arch="resnet50"),
        },
        "DINO",
        "the teacher, .*also in it: student.backbone.",
    ),
    "DINOv2's teacher": (
        lambda: {"teacher": one("backbone.") | linear("dino_head.mlp.0.")},
        "DINOv2-style teacher",
        "",
    ),
    "VISSL": (lambda: {"classy_state_dict": VISSL, "iteration": 9, "config": {}}, "VISSL", ""),
    "MoCo v1": (
        lambda: {
            "state_dict": one("module.encoder_q.") | linear("module.encoder_q.fc.") | other("module.encoder_k.") | QUEUE
        },
        "MoCo",
        "encoder_q. .*also in it: encoder_k.",
    ),
    "MoCo v2": (
        lambda: {
            "state_dict": one("module.encoder_q.") | linear("module.encoder_q.fc.0.") | other("module.encoder_k.")
        },
        "MoCo",
        "encoder_q. ",
    ),
    "MoCo v3": (
        lambda: {
            "arch": "resnet50",
            "state_dict": one("module.base_encoder.")
            | other("module.momentum_encoder.")
            | linear("module.predictor.0."),
        },
        "MoCo v3",
        "base_encoder. .*also in it: momentum_encoder.",
    ),
    "BYOL, lucidrains": (
        lambda: one("online_encoder.net.") | other("target_encoder.net."),
        "BYOL",
        "the online network",
    ),
    "BYOL, PyTorch-BYOL": (
        lambda: {
            "online_network_state_dict": indexed(WANTED, "encoder."),
            "target_network_state_dict": indexed(OTHER, "encoder."),
            "optimizer_state_dict": {"state": {}, "param_groups": []},
        },
        "BYOL",
        "the online network",
    ),
    "BYOL, bolts": (
        lambda: {"state_dict": one("online_network.encoder.") | other("target_network.encoder."), "callbacks": {}},
        "BYOL",
        "the online network",
    ),
    "Barlow Twins": (
        lambda: {
            "epoch": 3,
            "model": one("module.backbone.")
            | linear("module.projector.0.")
            | {"module.bn.running_mean": torch.zeros(4)},
        },
        "Barlow Twins",
        "",
    ),
    "SwAV": (
        lambda: one("module.") | linear("module.projection_head.0.") | {"module.prototypes.weight": torch.zeros(5, 4)},
        "SwAV",
        "",
    ),
    "VICReg": (
        lambda: {"epoch": 3, "model": one("module.backbone.") | linear("module.projector.0.")},
        "plain state dict under 'backbone.'",
        "",
    ),
    "solo-learn": (
        lambda: {
            "state_dict": one("backbone.")
            | other("momentum_backbone.")
            | linear("classifier.")
            | linear("projector.0."),
            "pytorch-lightning_version": "1.9.0",
            "callbacks": {"ModelCheckpoint{}": {"best_model_path": pathlib.PurePosixPath("a")}},
        },
        "solo-learn",
        "also in it: momentum_backbone.",
    ),
    "LightlySSL, DINO": (
        lambda: {"state_dict": one("teacher_backbone.") | other("student_backbone.")},
        "plain state dict under 'teacher_backbone.'",
        "the teacher",
    ),
    "LightlySSL, MoCo": (
        lambda: {"state_dict": indexed(WANTED, "backbone.") | indexed(OTHER, "backbone_momentum.")},
        "lightly",
        "also in it: backbone_momentum.",
    ),
    "stable-pretraining": (
        lambda: {
            "state_dict": one("backbone.") | linear("projector.0.") | linear("callbacks_modules.knn_probe."),
            "pytorch-lightning_version": "2.5.0",
        },
        "stable-pretraining",
        "",
    ),
    "stable-pretraining, teacher and student": (
        lambda: {"state_dict": one("backbone.teacher.") | other("backbone.student.") | linear("callbacks_modules.a.")},
        "stable-pretraining",
        "the teacher",
    ),
    "MMPretrain, averaged": (
        lambda: {
            "meta": {"cfg": "mmpretrain"},
            "state_dict": one("backbone.") | linear("head.fc."),
            "ema_state_dict": other("module.backbone."),
        },
        "MMPretrain",
        "also in it: ema_state_dict.backbone.",
    ),
    "OpenSelfSup": (
        lambda: {
            "state_dict": one("encoder_q.0.") | linear("encoder_q.1.mlp.0.") | other("encoder_k.0.") | one("backbone.")
        },
        "OpenSelfSup",
        "also in it: encoder_k.0.",
    ),
    "Lightning": (
        lambda: {"state_dict": one("model."), "pytorch-lightning_version": "2.1.0", "hyper_parameters": {"lr": 1}},
        "Lightning checkpoint",
        "",
    ),
    "timm's training script": (
        lambda: {
            "arch": "resnet10t",
            "state_dict": other("") | linear("fc."),
            "state_dict_ema": one("") | linear("fc."),
            "args": argparse.Namespace(lr=0.1),
            "metric": 71.2,
        },
        "torchvision or timm",
        "the running average .*also in it: the one without a prefix",
    ),
    "compiled and DataParallel": (lambda: {"model": one("_orig_mod.module.")}, "plain state dict", ""),
    "a whole module": (lambda: {"net": types.SimpleNamespace(a=1), "model": WANTED}, "plain state dict", ""),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_right_network_is_taken_and_said(name: str, tmp_path: Path) -> None:
    build, said, choice = LAYOUTS[name]
    torch.save(build(), tmp_path / "file.pth")
    loaded = load_backbone(tmp_path / "file.pth")
    assert loaded.source_format == said
    taken = [note for note in loaded.notes if note.startswith("taken: ")]
    assert len(taken) == bool(choice)
    if choice:
        assert re.search(choice, taken[0]), taken[0]
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), WANTED(IMAGES), rtol=1e-6, atol=1e-6)


def test_another_branch_by_name(tmp_path: Path) -> None:
    torch.save(LAYOUTS["DINO"][0](), tmp_path / "dino.pth")
    loaded = load_backbone(tmp_path / "dino.pth", branch="student")
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), OTHER(IMAGES), rtol=1e-6, atol=1e-6)
    with pytest.raises(UserError, match=r"--branch pupil: no network of that name. In it: 'student.backbone.', 'teach"):
        load_backbone(tmp_path / "dino.pth", branch="pupil")


def test_every_command_says_which_network_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from simsiam.weights.pretrained import open_subject

    torch.save(LAYOUTS["DINO"][0](), tmp_path / "dino.pth")
    open_subject(str(tmp_path / "dino.pth"), seed=0)
    assert "dino.pth: taken: teacher.backbone. (the teacher" in capsys.readouterr().err


def test_two_networks_that_nothing_tells_apart(tmp_path: Path) -> None:
    torch.save(one("left.") | other("right."), tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"several networks in it, under 'left.', 'right.'. Name one: --branch NAME"):
        load_backbone(tmp_path / "two.pth")


class Colour(enum.Enum):
    RED = 1


class Settings:
    """A class of a training script, which is not there when the file is read."""

    def __init__(self) -> None:
        self.rates = [0.1]


BESIDE: dict[str, Callable[[], Any]] = {
    "Counter": lambda: collections.Counter([30, 60]),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "OrderedDict": lambda: collections.OrderedDict(a=1),
    "deque": lambda: collections.deque([1, 2]),
    "Namespace": lambda: argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a")),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=1),
    "enum": lambda: Colour.RED,
    "dtype": lambda: torch.float16,
    "device": lambda: torch.device("cuda", 1),
    "size": lambda: torch.Size([1, 2]),
    "layout": lambda: torch.strided,
    "posix path": lambda: pathlib.PosixPath("/a/b"),
    "Windows path": lambda: pathlib.PureWindowsPath("C:/a"),
    "numpy scalar": lambda: numpy.float32(1.5),
    "numpy array": lambda: numpy.arange(3),
    "numpy dtype": lambda: numpy.dtype("float32"),
    "random state": lambda: numpy.random.RandomState(0).get_state(),
    "datetime": lambda: __import__("datetime").datetime(2024, 1, 2),
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset([(1, 2)]),
    "own class": Settings,
    "partial": lambda: __import__("functools").partial(nn.LayerNorm, eps=1e-6),
    "sparse tensor": lambda: torch.eye(3).to_sparse(),
    "quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "complex tensor": lambda: torch.ones(2, dtype=torch.complex64),
    "module": lambda: nn.Linear(2, 2),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_weights_is_plain_data(name: str, protocol: int, tmp_path: Path) -> None:
    content = {"model": one(""), "beside": BESIDE[name](), "list": [BESIDE[name]()]}
    torch.save(content, tmp_path / "file.pth", pickle_protocol=protocol)
    loaded = load_backbone(tmp_path / "file.pth")
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), WANTED(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F", ">"])
def test_arrays_of_every_protocol_and_order(order: str, protocol: int, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, tensor in one("").items():
        array = tensor.numpy()
        arrays[name] = array.astype(array.dtype.newbyteorder(">")) if order == ">" else array.copy(order=order)  # type: ignore[call-overload]
    (tmp_path / "r.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=protocol))
    loaded = load_backbone(tmp_path / "r.pkl")
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), WANTED(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_that_share_are_cut_or_turned(dtype: torch.dtype, legacy: bool, tmp_path: Path) -> None:
    """Against torch's own reading: views of one storage, transposed, expanded, empty and of every kind of number."""
    base = torch.arange(24.0)
    content = {
        "state_dict": {
            "conv1.weight": base.to(dtype).reshape(2, 3, 4).permute(2, 0, 1)[1:],
            "other": base.to(dtype)[5:7],
            "expanded": base[:1].expand(6),
            "none": torch.zeros(0, 3),
            "flags": base > 3,
            "wide": torch.tensor(3, dtype=torch.uint16) if not legacy else torch.tensor(3),
            "parameter": nn.Parameter(base[3:9]),
        }
    }
    path = tmp_path / "f.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    from simsiam.weights.reading import read

    ours, theirs = read(path).raw["state_dict"], torch.load(path, weights_only=True)["state_dict"]
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].dtype == tensor.dtype


@pytest.mark.parametrize("stem", ["imagenet", "small", "small-stride2"])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_an_onnx_graph_comes_back(name: str, stem: str, tmp_path: Path) -> None:
    """What `simsiam export --to onnx` writes: the exporter folds each BatchNorm into the convolution before it."""
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    from simsiam.weights.export import write_onnx
    from simsiam.weights.save import write_import

    torch.manual_seed(0)
    network = shake(build_backbone(name, width=4, stem=stem))  # type: ignore[arg-type]
    torch.save(network.state_dict(), tmp_path / "f.pth")
    loaded = load_backbone(tmp_path / "f.pth", stem=stem)  # type: ignore[arg-type]
    again = load_backbone(write_onnx(loaded, tmp_path))
    assert again.source_format == "ONNX"
    with torch.no_grad():
        expected = network(IMAGES)
        scale = float(expected.abs().max())
        torch.testing.assert_close(again.backbone(IMAGES), expected, rtol=0, atol=1e-5 * scale)
        kept = load_backbone(write_import(again, tmp_path / "in")).backbone
        torch.testing.assert_close(kept(IMAGES), expected, rtol=0, atol=1e-5 * scale)


def test_an_onnx_graph_of_something_else_is_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"])], "g", [value], [value])
    onnx.save(helper.make_model(graph, producer_name="pytorch"), str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"an ONNX model that is none of resnet8.*its operations: Gelu"):
        load_backbone(tmp_path / "m.onnx")


WHAT_IT_IS = {
    "a ViT": ({"cls_token": torch.zeros(1, 1, 4), "blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "vision transformer"),
    "Swin": ({"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(3, 3)}, "Swin transformer"),
    "ConvNeXt": ({"stages.0.0.dwconv.weight": torch.zeros(3, 1, 7, 7)}, "ConvNeXt"),
    "a detector": ({"rpn.head.conv.weight": torch.zeros(3, 3, 3, 3)}, "a detector"),
    "a language model": ({"model.embed_tokens.weight": torch.zeros(3, 3)}, "language model"),
    "LoRA": ({"blocks.0.lora_A.weight": torch.zeros(3, 3)}, "LoRA adapter"),
    "VGG": ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "VGG or AlexNet"),
    "DenseNet": ({"features.denseblock1.denselayer1.norm1.weight": torch.zeros(3)}, "DenseNet"),
    "an optimizer": (
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}},
        "an optimizer's state",
    ),
    "an optimizer alone": (
        {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1}]},
        "an optimizer's state",
    ),
}


@pytest.mark.parametrize("name", WHAT_IT_IS)
def test_what_is_no_resnet_is_named(name: str, tmp_path: Path) -> None:
    content, said = WHAT_IT_IS[name]
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=said):
        load_backbone(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("name", "said"), [("resnext50_32x4d", r"ResNeXt \(32 groups\)"), ("wide_resnet50_2", "Wide ResNet")]
)
def test_variants_of_a_resnet_are_named(name: str, said: str, tmp_path: Path) -> None:
    import torchvision

    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)().state_dict()
    torch.save({key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.items()}, tmp_path / "f.pth")
    with pytest.raises(UserError, match=said):
        load_backbone(tmp_path / "f.pth")


def test_a_network_that_has_collapsed_is_said(tmp_path: Path) -> None:
    state = one("")
    state["bn1.weight"] = torch.zeros(8)
    torch.save(state, tmp_path / "f.pth")
    assert any("the same features" in note for note in load_backbone(tmp_path / "f.pth").notes)


def test_weights_that_diverged_are_said(tmp_path: Path) -> None:
    state = one("")
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError, match=r"these weights diverged: tensor layer2.0.conv1.weight"):
        load_backbone(tmp_path / "f.pth")
    state = one("")
    state["layer4.0.bn2.weight"] = torch.full((64,), 3e38)
    state["layer3.0.bn2.weight"] = torch.full((32,), 3e38)
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError, match="these weights diverged: the features of an image"):
        load_backbone(tmp_path / "f.pth")


@pytest.mark.parametrize(("channels", "said"), [(1, "takes 1 channel, .*--channels widen"), (4, "takes 4 channels")])
def test_a_first_layer_of_other_channels(channels: int, said: str, tmp_path: Path) -> None:
    state = one("")
    state["conv1.weight"] = torch.randn(8, channels, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError, match=said):
        load_backbone(tmp_path / "f.pth")
    if channels == 1:
        widened = load_backbone(tmp_path / "f.pth", channels="widen").backbone
        grey = nn.functional.conv2d(IMAGES[:, :1], state["conv1.weight"], stride=2, padding=3)
        torch.testing.assert_close(
            nn.functional.conv2d(IMAGES[:, :1].expand(-1, 3, -1, -1), widened.conv1.weight, stride=2, padding=3), grey
        )
