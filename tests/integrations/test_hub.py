"""Our weights through torch.hub's and timm's own doors."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam.errors import UserError
from simsiam.weights import cards, zoo
from simsiam.weights.load import load_backbone
from tests.weights import foreign

ROOT = Path(__file__).parents[2]


def _hub(entry: str, **arguments: Any) -> Any:
    return torch.hub.load(str(ROOT), entry, source="local", **arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(foreign.resnet().state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_hub_gives_the_backbone_with_its_preprocessing(file: Path) -> None:
    network = _hub("simsiam_backbone", weights=str(file))
    loaded = load_backbone(file)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(x), loaded.backbone(x))
    assert network.preprocess == loaded.preprocess
    assert not network.training


def test_hub_lists_the_zoo_and_loads_a_fetched_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = runpy.run_path(str(ROOT / "hubconf.py"))
    assert {"simsiam_backbone", "mmselfsup_100e_v0_7_0", "official_100e_bs256"} <= set(entries)
    assert len([name for name in entries if name.startswith(("mmselfsup", "official"))]) == len(cards.CARDS)
    assert "CC BY-NC" in entries["official_100e_bs256"].__doc__
    torch.save({"state_dict": foreign.resnet().state_dict()}, tmp_path / "model.pth")
    asked = []
    monkeypatch.setattr(zoo, "get", lambda name: asked.append(name) or tmp_path / "model.pth")
    network = _hub("official_100e_bs256")
    assert asked == ["official-100e-bs256"]
    assert network.features == 512
    assert "no commercial use" in capsys.readouterr().err


def test_timm_makes_the_model_with_our_weights(file: Path) -> None:
    timm = pytest.importorskip("timm")
    import simsiam.integrations.timm_models

    assert set(simsiam.integrations.timm_models.__all__) <= set(timm.list_models("simsiam_*"))
    loaded = load_backbone(file)
    network = timm.create_model("simsiam_resnet18", weights=file).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(x), loaded.backbone(x), rtol=1e-4, atol=1e-5)
        headed = timm.create_model("simsiam_resnet18", weights=file, num_classes=7).eval()
        assert headed(x).shape == (2, 7)
        maps = timm.create_model("simsiam_resnet18", weights=file, features_only=True, out_indices=(1, 3)).eval()
        ours = loaded.backbone.stages(x)
        for found, expected in zip(maps(x), (ours[1], ours[3]), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    config = timm.data.resolve_data_config({}, model=network)
    assert config["input_size"] == (3, loaded.preprocess.size, loaded.preprocess.size)
    assert config["mean"] == loaded.preprocess.mean


def test_timms_checkpoint_path_takes_an_exported_file(file: Path) -> None:
    timm = pytest.importorskip("timm")
    import simsiam.integrations.timm_models  # noqa: F401

    network = timm.create_model("simsiam_resnet18", checkpoint_path=str(file)).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(x), load_backbone(file).backbone(x), rtol=1e-4, atol=1e-5)


def test_timm_mistakes_are_named(file: Path) -> None:
    timm = pytest.importorskip("timm")
    import simsiam.integrations.timm_models  # noqa: F401

    with pytest.raises(UserError, match="it has no resnet18"):
        timm.create_model("simsiam_resnet50", weights=file)
    with pytest.raises(UserError, match="pretrained=True does not say which"):
        timm.create_model("simsiam_resnet50", pretrained=True)
    with pytest.raises(UserError, match="no tensor for"):
        timm.create_model("simsiam_resnet18", weights=file, stem_type="deep")
