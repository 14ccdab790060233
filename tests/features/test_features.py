"""Features: the published pooling by hand, streaming against one pass, damaged images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simsiam.backbones import build_backbone
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import FolderSource
from simsiam.errors import UserError
from simsiam.features.extraction import extract
from simsiam.features.store import Extraction, features_of
from tests import tiny
from tests.evaluation.classification.labelled_subjects import machine, splits, subject

CPU = torch.device("cpu")
PREPROCESS = Preprocess(kind="center", resize=32, size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
EXTRACTION = Extraction(
    preprocess=PREPROCESS, layers="pooled", pooling="specified", precision="fp32", storage="fp32", batch_size=16
)


def test_stage_features_have_the_published_lengths_at_224() -> None:
    backbone = build_backbone("resnet50")
    source = splits(train=6, test=6).train.subset([0])
    squash = replace(PREPROCESS, kind="squash", resize=256, size=224)
    for pooling in ("specified", "adaptive"):
        found = extract(
            backbone, image_batches(source, squash, batch_size=1, device=CPU), layers="stages", pooling=pooling
        )
        # 64 x 12 x 12, 256 x 6 x 6, 512 x 4 x 4, 1024 x 3 x 3, 2048 x 2 x 2
        assert [rows.shape[1] for rows in found.arrays.values()] == [9216, 9216, 8192, 9216, 8192]
        assert list(found.arrays) == [f"feature{number}" for number in range(1, 6)]
        assert found.notes == []


def test_padding_counts_in_the_mean_of_the_first_stage() -> None:
    backbone = build_backbone("resnet50")
    source = splits(train=6, test=6).train.subset([0])
    squash = replace(PREPROCESS, kind="squash", resize=256, size=224)
    batch = next(image_batches(source, squash, batch_size=1, device=CPU))
    with torch.no_grad():
        stem = backbone.eval().stages(batch.images)[0][0]  # 64 x 112 x 112
    found = extract(backbone, [batch], layers="stages").arrays["feature1"].reshape(64, 12, 12)
    # the corner window covers rows and columns -4 ... 5, of which 6 x 6 lie in the map; the mean is over all 100
    np.testing.assert_allclose(found[:, 0, 0], stem[:, :6, :6].sum((1, 2)).numpy() / 100, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[:, 1, 1], stem[:, 6:16, 6:16].mean((1, 2)).numpy(), rtol=1e-4, atol=1e-6)


def test_other_networks_are_pooled_to_about_the_same_length_and_say_so() -> None:
    found = extract(
        subject().backbone,
        image_batches(splits(train=6, test=6).train, PREPROCESS, batch_size=4, device=CPU),
        layers="stages",
    )
    assert all(rows.shape[1] <= 9216 for rows in found.arrays.values())
    assert len(found.notes) == 1
    assert "adaptive" in found.notes[0]


def test_batches_change_nothing_and_the_mode_is_kept() -> None:
    network = subject().backbone.train()
    network.stage_modules()[0][1].eval()  # one part frozen, as fine-tuning may leave it
    source = splits(train=30, test=6).train
    before = [module.training for module in network.modules()]
    one = extract(network, image_batches(source, PREPROCESS, batch_size=30, device=CPU))
    many = extract(network, image_batches(source, PREPROCESS, batch_size=7, device=CPU))
    assert [module.training for module in network.modules()] == before
    np.testing.assert_allclose(one.pooled, many.pooled, atol=1e-5)
    with torch.no_grad():
        network.eval()
        expected = network(next(image_batches(source, PREPROCESS, batch_size=30, device=CPU)).images)
    np.testing.assert_allclose(one.pooled, expected.numpy(), atol=1e-5)
    assert one.labels(source).tolist() == source.labels.tolist()


def test_bad_images_are_left_out_and_labels_stay_with_their_rows(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "photos", classes=2, images=5)
    broken = sorted(root.rglob("*.jpg"))[2]
    broken.write_bytes(broken.read_bytes()[:200])
    source = FolderSource(root)
    found = features_of(subject(), source, EXTRACTION, machine=machine(cache=tmp_path / "cache"))
    assert len(found.pooled) == 9
    assert found.indices.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert found.labels(source).tolist() == [0] * 4 + [1] * 5
    assert [bad.path for bad in found.bad] == [str(broken.relative_to(root))]
    assert "1 of 10 images could not be read" in found.skipped(source)[0]
    for file in root.rglob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 10 images could be read"):
        features_of(subject(), FolderSource(root), EXTRACTION, machine=machine(cache=tmp_path / "cache"))


def test_unlabelled_images_are_told(tmp_path: Path) -> None:
    source = FolderSource(tiny.flat_folder(tmp_path / "photos", images=3))
    found = extract(subject().backbone, image_batches(source, PREPROCESS, batch_size=2, device=CPU))
    with pytest.raises(UserError, match="have no labels"):
        found.labels(source)
