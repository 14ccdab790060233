"""The linear protocols from end to end on trees shaped like ImageNet, iNaturalist 2018, Places205, and on folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from simsiam.data.classification.named_sets import imagenet_part, inaturalist_source, places205_source
from simsiam.data.sources import FolderSource, imagenet_source
from simsiam.data.splits import Splits
from simsiam.evaluation.classification.linear import StageHeads
from simsiam.evaluation.protocol import Protocol
from simsiam.recipes import linear as recipes
from simsiam.results import Result
from tests import tiny, trees
from tests.evaluation.classification.labelled_subjects import machine, subject


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _short(heads: StageHeads) -> StageHeads:
    optimisation = replace(heads.schooling.optimisation, epochs=2, batch_size=8)
    augmentation = replace(heads.schooling.augmentation, size=32, resize=36)
    schooling = replace(heads.schooling, optimisation=optimisation, augmentation=augmentation, test_resize=36)
    return replace(heads, schooling=schooling)


def _measure(protocol: Protocol[Splits], data: Splits, out: Path, name: str) -> Result:
    protocol.run(subject(), data, machine=machine(out))
    result = Result.read(out / "result.json")
    assert result.protocol == name
    assert result.data.images == len(data.train) + len(data.test)
    assert all(0 <= value <= 100 for value in result.metrics.values())
    return result


def test_imagenet_shaped_trees_by_folder_and_by_list(tmp_path: Path) -> None:
    root = trees.imagenet(tmp_path / "imagenet")
    data = Splits(train=imagenet_source(root, "train"), test=imagenet_source(root, "val"))
    recipe = recipes.resnet50_mhead_8xb32_steplr_90e()
    result = _measure(replace(recipe, heads=_short(recipe.heads)), data, tmp_path / "mhead", "linear_mhead")
    assert set(result.metrics) == {f"feature{stage}" for stage in range(1, 6)}  # three classes: no top-5
    assert result.recipe["heads"]["schooling"]["augmentation"]["lighting"] == 0.1

    trees.imagenet_lists(root)
    listed = Splits(train=imagenet_source(root, "train"), test=imagenet_source(root, "val"))
    pooled = recipes.adapted(recipes.resnet50_8xb512_coslr_90e_in1k(), size=32)
    assert not isinstance(pooled, recipes.LinearProbe)
    _measure(_two_epochs(pooled), listed, tmp_path / "avgpool", "linear_avgpool")

    few = Splits(train=imagenet_part(root, root / "10pct.txt"), test=listed.test)
    semi = replace(recipes.semi_supervised_10_percent(), lrs=(0.01,), head_multipliers=(10.0,))
    result = _measure(_two_epochs(recipes.adapted(semi, size=32)), few, tmp_path / "semi", "semi_supervised")
    assert result.detail["train_images"] == 6


def _two_epochs(recipe: recipes.LinearRecipe) -> Protocol[Splits]:
    assert isinstance(recipe, recipes.LinearAvgPool | recipes.SemiSupervised)
    optimisation = replace(recipe.schooling.optimisation, epochs=2, batch_size=8)
    return replace(recipe, schooling=replace(recipe.schooling, optimisation=optimisation))


def test_an_inaturalist_shaped_tree(tmp_path: Path) -> None:
    trees.inaturalist(tmp_path)
    data = Splits(train=inaturalist_source(tmp_path, "train"), test=inaturalist_source(tmp_path, "val"))
    recipe = recipes.resnet50_mhead_8xb32_steplr_84e_inat18()
    result = _measure(replace(recipe, heads=_short(recipe.heads)), data, tmp_path / "out", "inaturalist2018")
    assert any("the published protocol is on 8142" in note for note in result.notes)


def test_a_places205_shaped_tree_with_a_damaged_image(tmp_path: Path) -> None:
    trees.places205(tmp_path)
    (tmp_path / "images256" / "train" / "0" / "3.jpg").write_bytes(b"")
    (tmp_path / "images256" / "val" / "1" / "1.jpg").write_bytes(b"")
    data = Splits(train=places205_source(tmp_path, "train"), test=places205_source(tmp_path, "val"))
    recipe = recipes.resnet50_mhead_8xb32_steplr_28e_places205()
    result = _measure(replace(recipe, heads=_short(recipe.heads)), data, tmp_path / "out", "places205")
    assert result.detail["test_images"] == 5
    assert any(note.startswith("2 images could not be read") for note in result.notes)
    skipped = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in skipped[1:]] == ["train/0/3.jpg", "val/1/1.jpg"]


def test_a_users_own_folders(tmp_path: Path) -> None:
    train = FolderSource(tiny.folder(tmp_path / "train", classes=3, images=6))
    test = FolderSource(tiny.folder(tmp_path / "test", classes=3, images=3))
    probe = replace(recipes.linear_probe(32), epochs=5)
    protocol_machine = machine(tmp_path / "out", cache=tmp_path / "cache")
    result = probe.run(subject(), Splits(train=train, test=test), machine=protocol_machine)
    assert result.protocol == "linear_probe"
    assert result.detail["classes"] == ["circle", "square", "stripes"]
