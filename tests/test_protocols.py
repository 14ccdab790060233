"""One table of protocols: a toy one defined here runs by command and by call, and `evaluate` takes modules."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torch import nn

from simsiam import cli, evaluate, protocols
from simsiam.backbones import PooledModule, as_backbone, build_backbone
from simsiam.config import Machine
from simsiam.errors import UserError
from simsiam.evaluation.datasets import DataFlags
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.recipes.scaled import Wanted
from simsiam.results import DataId, Result
from simsiam.weights.load import fingerprint
from simsiam.weights.pretrained import PretrainedBackbone, open_subject
from tests import tiny, tiny_masks, tiny_shapes


@dataclass(frozen=True, kw_only=True)
class Noise(DataFlags):
    """Images of noise."""

    count: int = 2  # How many images.

    def open(self, cache: Path | None) -> torch.Tensor:
        """The images, N x 3 x 32 x 32."""
        return torch.rand(self.count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True, kw_only=True)
class Length(Protocol[torch.Tensor]):
    """The mean length of the features."""

    protocol: ClassVar[str] = "toy_length"
    everyday: ClassVar[tuple[str, ...]] = ("power",)
    power: float  # Of the norm.

    @property
    def main_metric(self) -> str:
        return "length"

    def data_id(self, data: torch.Tensor) -> DataId:
        return DataId(name="noise", sha256=fingerprint({"images": data}), images=len(data))

    def score(self, subject: PretrainedBackbone, data: torch.Tensor, *, machine: Machine) -> Measured:
        with torch.inference_mode():
            lengths = subject.backbone.eval()(data).norm(self.power, dim=1)
        return Measured(metrics={"length": float(lengths.mean())})


TOY = protocols.Evaluation(
    about="The mean length of features.",
    data=Noise(),
    recipes={
        "toy": lambda wanted: Length(name="toy", power=2.0),
        "toy1": lambda wanted: Length(name="toy1", power=1.0),
    },
)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", *map(str, words)])
    return int(end.value.code or 0)


def test_a_protocol_of_one_file_and_one_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(protocols.PROTOCOLS, "toy", TOY)
    assert run("toy", "--count", 3, "random:resnet10", "--out", tmp_path / "a") == 0
    found = Result.read(tmp_path / "a" / "result.json")
    with torch.inference_mode():
        features = open_subject("random:resnet10", seed=0).backbone.eval()(Noise(count=3).open(None))
    expected = features.square().sum(1).sqrt().mean().item()
    assert found.metrics["length"] == pytest.approx(expected, rel=1e-6)
    assert "length" in capsys.readouterr().out
    assert evaluate("toy", "random:resnet10", count=3).metrics == found.metrics
    assert run("toy", "random:resnet10", "--power", 1, "--recipe", "toy", "--out", tmp_path / "b", "--count", 3) == 0
    assert Result.read(tmp_path / "b" / "result.json").metrics["length"] == pytest.approx(
        features.abs().sum(1).mean().item(), rel=1e-6
    )
    assert Result.read(tmp_path / "b" / "result.json").recipe["name"] == "toy (power 1.0)"
    assert evaluate("toy", "random:resnet10", count=3, recipe="toy1").recipe["power"] == 1.0
    for asked in (["toy", "--help"], ["--help"]):
        capsys.readouterr()
        assert run(*asked) == 0
        assert "The mean length of features." in capsys.readouterr().out
    with pytest.raises(UserError, match=r"counts: toy has no such argument. Did you mean count\? Known: count."):
        evaluate("toy", "random:resnet10", counts=3)


def _random_statistics(network: nn.Module) -> Any:
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_of_torchvision_keeps_its_maps_and_its_features(name: str) -> None:
    theirs = _random_statistics(getattr(torchvision.models, name)())
    ours = as_backbone(theirs)
    assert ours.name == name
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = nn.Sequential(*list(theirs.children())[:-1])(images).flatten(1)
        assert torch.equal(ours.eval()(images), expected)
        assert len(ours.stages(images)) == 5
    assert all(a is b for a, b in zip(ours.parameters(), list(theirs.parameters())[:-2], strict=True))
    assert as_backbone(ours) is ours


def test_any_module_with_a_pooled_output_is_a_backbone_and_others_are_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    found = as_backbone(flat, size=8)
    assert isinstance(found, PooledModule)
    assert (found.features, found.stage_channels, flat.training) == (4, (), True)
    with pytest.raises(UserError, match="gives pooled features only, and this needs feature maps"):
        found.stages(torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"Conv2d: gives \(2, 4, 6, 6\) for two images; expected pooled features"):
        as_backbone(nn.Conv2d(3, 4, 3), size=8)
    wide = as_backbone(torchvision.models.wide_resnet50_2(), size=32)
    assert (type(wide), wide.features) == (PooledModule, 2048), "without the classifier"


def test_a_module_scores_as_its_file_does_and_stays_as_it_was(tmp_path: Path) -> None:
    from simsiam.weights.save import write_backbone

    network = _random_statistics(build_backbone("resnet10", width=8)).train()
    write_backbone(tmp_path / "file", network, recipe=None)
    train = tiny.folder(tmp_path / "train", classes=3, images=9)
    test = tiny.folder(tmp_path / "test", classes=3, images=4)
    here = Machine(device="cpu", workers=0, cache=tmp_path / "cache")
    places = {"train": train, "test": test, "machine": here, "size": 32}
    by_module = evaluate("knn", network, **places)
    by_file = evaluate("knn", tmp_path / "file" / "backbone.safetensors", **places)
    assert by_module.metrics == by_file.metrics
    assert by_module.weights.sha256 == fingerprint(network.state_dict()) == by_file.weights.sha256
    assert network.training

    whole = nn.Module()
    whole.backbone = network
    assert evaluate("knn", whole, **places).metrics == by_file.metrics
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert set(evaluate("probe", flat, **places).metrics) >= {"top1"}
    with pytest.raises(UserError, match="feature map"):
        evaluate("linear-mhead", flat, **places)


def test_detection_and_segmentation_are_reached_from_python(tmp_path: Path) -> None:
    network = _random_statistics(build_backbone("resnet10", width=8, stem="small-stride2"))
    here = Machine(device="cpu", workers=0, cache=tmp_path / "cache")
    own = tiny_masks.folders(tmp_path / "shapes", train=4, val=2, size=(40, 32))
    from dataclasses import replace

    recipe: Any = protocols.find("segmentation-folder").recipe(None, Wanted(size=32))
    course = replace(recipe.segmentation.course, iterations=2, batch_size=4, evaluate_every=2)
    design = replace(recipe.segmentation.design, head_channels=8, auxiliary_channels=4)
    small = replace(recipe, segmentation=replace(recipe.segmentation, course=course, design=design))
    found = evaluate("segmentation-folder", network, data=own, recipe=small, machine=replace(here, out=tmp_path / "s"))
    assert 0 <= found.metrics["miou"] <= 100
    boxes = tiny_shapes.voc_folder(tmp_path / "boxes", images=6, side=64)
    with pytest.raises(UserError, match="detection needs a ResNet"):
        evaluate(
            "detection-folder", nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), data=boxes
        )


def test_all_names_are_documented_by_evaluate() -> None:
    assert len(protocols.PROTOCOLS) == 23
    said = inspect.getdoc(evaluate) or ""
    assert "simsiam evaluate --help" in said


def test_a_cpu_has_recipes_of_its_own() -> None:
    from simsiam.evaluation.segmentation.settings import CPU_WORK
    from simsiam.recipes.scaled import Wanted

    for name, kinds in (("detection-folder", "folder_masks"), ("segmentation-folder", "fcn_d8_512x512_4k_folder")):
        found = protocols.find(name)
        assert found.recipe(None, Wanted(device="cuda")).name == kinds
        assert found.recipe(None, Wanted(device="cpu")).name.endswith("_cpu")
    small: Any = protocols.find("segmentation-folder").recipe(None, Wanted(device="cpu"))
    assert small.segmentation.work == CPU_WORK
    assert protocols.find("detection-voc07").recipe(None, Wanted(device="cpu")).name == "transfer_c4_voc07"
