"""Every kind of image set through the command line, and the demo with and without CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsiam import cli
from simsiam.data.classification import torchvision_sets
from simsiam.errors import UserError
from simsiam.results import Result
from tests import tiny

NETWORK = (
    "--views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone resnet8 --model.projector-layers 2 "
    "--model.projector-hidden 0 --model.projector-dim 32 --model.predictor-dim 8 --device cpu --workers 0 --epochs 1 "
    "--batch-size 8"
).split()


def run(out: Path, *arguments: str | Path) -> Result:
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", *NETWORK, "--out", str(out), *map(str, arguments)])
    assert end.value.code in (0, 4)
    return Result.read(out / "result.json")


def test_a_labelled_folder_gives_knn(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "classes", images=15)
    result = run(tmp_path / "run", root)
    assert "knn" in result.metrics
    assert "backbone.safetensors" in [path.name for path in (tmp_path / "run").iterdir()]


def test_a_text_list(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=24)
    listing = tmp_path / "train.txt"
    listing.write_text("".join(f"{path}\n" for path in sorted(root.iterdir())))
    assert run(tmp_path / "run", listing).data.images > 8


def test_tar_shards_are_recognised(tmp_path: Path) -> None:
    root = tiny.shards(tmp_path / "shards", samples=8)
    result = run(tmp_path / "run", root)
    assert result.recipe["data_kind"] == "shards"


def test_imagenet_folders(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "imagenet" / "train", images=15)
    tiny.folder(tmp_path / "imagenet" / "val")
    result = run(tmp_path / "run", tmp_path / "imagenet", "--recipe", "resnet50_8xb32-coslr-100e")
    assert result.recipe["name"] == "resnet50_8xb32-coslr-100e"
    assert "knn" in result.metrics


def test_cifar10_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tiny.cifar_cache(tmp_path / "cache")))
    result = run(tmp_path / "run", "cifar10")
    assert result.recipe["name"] == "cifar10"
    assert result.data.name.startswith("cifar10")


def test_the_demo_without_a_network_takes_digits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise UserError("CIFAR-10 is not on this machine and cannot be fetched.")

    monkeypatch.setattr(torchvision_sets, "known_set", unreachable)
    result = run(tmp_path / "run", "--recipe", "demo", "--cache", tmp_path / "empty", "--batch-size", "64")
    assert any("digits" in note for note in result.detail["data_notes"])
    assert "digits" in (tmp_path / "run" / "report.html").read_text()
    assert result.metrics["knn"] > 10


@pytest.mark.slow
def test_the_demo_beats_the_random_network_and_raw_pixels(tmp_path: Path) -> None:
    """The README's main job at full length on real CIFAR-10 (about six minutes on two cores)."""
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "--recipe", "demo", "--out", str(tmp_path / "run")])
    assert end.value.code == 0
    rows = Result.read(tmp_path / "run" / "result.json").detail["baselines"]
    knn, view = ({row["name"]: row for row in rows[measure]} for measure in ("knn", "view_recall"))
    assert knn["trained"]["value"] > knn["random network"]["value"] + 5
    assert knn["trained"]["low"] > knn["raw pixels"]["high"]
    for other in ("random network", "raw pixels"):
        assert view["trained"]["value"] > 2 * view[other]["value"]
