"""Each export is loaded by the program that it is for, and gives the same features on real photographs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast, get_args

import pytest
import torch

from simsiam.backbones import build_backbone
from simsiam.claims import MANIFEST
from simsiam.config import IMAGENET_MEAN, IMAGENET_STD, Stem
from simsiam.errors import UserError
from simsiam.results import WeightsId
from simsiam.weights import export as module
from simsiam.weights.export import FORMS, Form, Target, export, sample_images
from simsiam.weights.load import Loaded, Preprocess, fingerprint, load_backbone
from simsiam.weights.targets import Reader, detectron2_name
from tests.weights import foreign


def loaded(name: str = "resnet18", *, width: int = 64, stem: str = "imagenet", size: int = 64) -> Loaded:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = foreign.shake(build_backbone(name, width=width, stem=cast(Stem, stem)))
    return Loaded(
        backbone=network,
        recipe=None,
        weights=WeightsId(source="runs/x", sha256=fingerprint(network.state_dict())),
        projector=None,
        predictor=None,
        source_format="run folder",
        preprocess=Preprocess(size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD, origin="assumed"),
        notes=("a note | with a bar",),
    )


EXPECTED = {"torchvision": "torchvision", "timm": "timm", "onnx": "onnxruntime", "pt2": "torch", "huggingface": "timm"}


@pytest.mark.parametrize("target", get_args(Target))
def test_export_and_reload(target: Target, tmp_path: Path) -> None:
    if target == "onnx":
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
        pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    if target in ("timm", "huggingface"):
        pytest.importorskip("timm", reason="the timm extra is not installed")
    model = loaded("resnet10", width=8) if target in ("onnx", "pt2", "safetensors") else loaded()
    done = export(model, to=target, out=tmp_path)
    assert done.path.exists()
    assert done.max_relative_difference <= done.tolerance
    assert done.library.startswith(EXPECTED.get(target, ("simsiam", "mmpretrain")))
    assert done.images == 4
    assert "features differ by at most" in str(done)
    assert [path.name for path in tmp_path.glob(".*")] == [MANIFEST]
    card = done.card.read_text()
    assert card.startswith("---\nlicense: unknown\n")
    assert done.path.name in card
    assert model.weights.sha256 in card


@pytest.mark.parametrize("target", ["torchvision", "timm", "onnx", "pt2", "safetensors"])
def test_the_cards_code_runs(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip({"timm": "timm", "onnx": "onnxscript"}.get(target, "torch"))
    width = 64 if target in ("torchvision", "timm") else 8
    model = loaded(width=width, stem="small-stride2", size=32)
    done = export(model, to=target, out=tmp_path)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", done.card.read_text(), re.S)
    assert code
    names: dict[str, object] = {}
    exec(code[1], names)
    images = sample_images(model.preprocess)
    with torch.no_grad():
        if target == "onnx":
            features = names["session"].run(["features"], {"images": images.numpy()})[0]  # type: ignore[attr-defined]
            torch.testing.assert_close(torch.from_numpy(features), model.backbone(images), rtol=1e-4, atol=1e-4)
        else:
            features = names["network"](images)  # type: ignore[operator]
            torch.testing.assert_close(features, model.backbone(images), rtol=1e-5, atol=1e-5)


def test_narrow_network_goes_out_where_it_can(tmp_path: Path) -> None:
    model = loaded("resnet10", width=8, stem="small", size=32)
    for target in ("safetensors", "huggingface", "pt2"):
        done = export(model, to=target, out=tmp_path / target)
        assert done.max_relative_difference <= 1e-5
    again = load_backbone(tmp_path / "huggingface/model.safetensors")
    assert again.weights.sha256 == model.weights.sha256
    for target, reason in (
        ("torchvision", "64 channels wide"),
        ("detectron2", "no resnet10"),
        ("mmdet", "no resnet10"),
    ):
        with pytest.raises(UserError, match=f"--to {target}: .*{reason}.*Use --to safetensors"):
            export(model, to=cast(Target, target), out=tmp_path)


def test_small_stem_has_no_place_in_detectron2(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stem 'small'"):
        export(loaded(stem="small"), to="detectron2", out=tmp_path)


def test_timm_networks_go_out_too(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the timm extra is not installed")
    model = loaded("timm:resnet26d")
    assert export(model, to="timm", out=tmp_path).max_relative_difference <= 1e-5
    with pytest.raises(UserError, match=r"README\.md: is there already"):
        export(model, to="huggingface", out=tmp_path)
    assert export(model, to="timm", out=tmp_path).max_relative_difference <= 1e-5
    assert export(model, to="huggingface", out=tmp_path / "hub").library.startswith("timm")
    with pytest.raises(UserError, match="no ResNet of this program"):
        export(model, to="torchvision", out=tmp_path)


def test_huggingface_folder_is_one_that_timm_opens(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the timm extra is not installed")
    model = loaded()
    export(model, to="huggingface", out=tmp_path, licence="Apache-2.0")
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert tuple(network.pretrained_cfg["input_size"]) == (3, 64, 64)
    images = sample_images(model.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(network(images), model.backbone(images), rtol=1e-5, atol=1e-5)
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


def test_detectron2_names() -> None:
    pairs = {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.conv2.weight": "res2.0.conv2.weight",
        "layer4.2.bn3.bias": "res5.2.conv3.norm.bias",
        "layer2.0.downsample.0.weight": "res3.0.shortcut.weight",
        "layer2.0.downsample.1.running_mean": "res3.0.shortcut.norm.running_mean",
    }
    assert {name: detectron2_name(name) for name in pairs} == pairs
    names = foreign.resnet("resnet50").state_dict()
    assert [detectron2_name(name) for name in names] == list(foreign.detectron2_names(foreign.resnet("resnet50")))


def test_a_file_that_gives_other_features_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FORMS["safetensors"]

    def read_wrongly(model: Loaded, path: Path) -> Reader:
        reader = whole.read(model, path)
        return Reader(run=lambda images: reader.run(images) * 1.001, library="a library")

    monkeypatch.setitem(module.FORMS, "safetensors", Form(write=whole.write, read=read_wrongly, tolerance=1e-5))
    with pytest.raises(UserError, match=r"removed. Loaded with a library, its features differ from ours by 1.0e-03"):
        export(loaded("resnet10", width=8, size=32), to="safetensors", out=tmp_path)
    assert not (tmp_path / "backbone.safetensors").exists()


def test_unknown_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--to tensorflow: unknown\. Known: torchvision"):
        export(loaded("resnet10", width=8), to=cast(Target, "tensorflow"), out=tmp_path)
