"""Vectors against the literal computation, search against a sort, near duplicates against the rule."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simsiam
from simsiam.backbones import ResNet
from simsiam.config import Machine
from simsiam.data.sources import ArraySource, FolderSource
from simsiam.embedding import similarity
from simsiam.embedding.embedder import Embedder
from simsiam.embedding.similarity import Index, near_duplicates
from simsiam.embedding.vectors import embed_source, embedding, unit_rows
from simsiam.errors import UserError
from simsiam.features import store as feature_files
from simsiam.weights.load import Loaded
from simsiam.weights.pretrained import PretrainedBackbone, open_subject, untrained
from tests import tiny


@pytest.fixture(scope="module")
def subject() -> PretrainedBackbone:
    return open_subject("random:resnet10", seed=0, size=32)


def _untrained() -> Loaded:
    loaded = untrained("resnet10", seed=0)
    return replace(loaded, preprocess=replace(loaded.preprocess, size=32))


def _by_hand(subject: PretrainedBackbone, image: Image.Image, size: int) -> torch.Tensor:
    """1 x 3 x S x S: short edge to `size`, centre, [0, 1], mean and std, written out."""
    scale = size / min(image.size)
    width, height = (max(size, int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float64) / 255
    pixels = (pixels - subject.mean) / subject.std
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))


@pytest.mark.parametrize("layer", ["pooled", "feature1", "feature3", "feature5"])
def test_vectors_equal_the_literal_computation(tmp_path: Path, subject: PretrainedBackbone, layer: str) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=5, size=(50, 40))
    settings = replace(embedding(32), layer=layer, batch_size=2)
    embedded = embed_source(subject, FolderSource(root), settings, machine=Machine(cache=tmp_path, workers=0))
    found = np.concatenate(list(embedded.blocks(rows=2)))
    backbone = subject.backbone
    assert isinstance(backbone, ResNet)
    for row, file in enumerate(sorted(root.iterdir())):
        x = _by_hand(subject, Image.open(file), 32)
        with torch.no_grad():
            maps = backbone.stages(x)
        stage = maps[-1] if layer == "pooled" else maps[int(layer[-1]) - 1]
        np.testing.assert_allclose(found[row], stage.mean((2, 3))[0].numpy(), rtol=2e-4, atol=2e-5)
    assert [embedded.path(row) for row in range(5)] == sorted(file.name for file in root.iterdir())


def test_pictures_at_hand_and_files_give_the_same_vectors(tmp_path: Path) -> None:
    files = sorted(tiny.flat_folder(tmp_path / "photos", images=4).iterdir())
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    loaded = _untrained()
    from_files = simsiam.embed(files, loaded, device="cpu")
    assert from_files.shape == (4, 512)
    assert from_files.dtype == np.float32
    for same in (pictures, arrays, [file.read_bytes() for file in files], [str(file) for file in files]):
        np.testing.assert_array_equal(simsiam.embed(same, loaded, device="cpu"), from_files)
    np.testing.assert_allclose(simsiam.embed(np.stack(arrays), loaded, device="cpu"), from_files, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(simsiam.embed(files[2], loaded, device="cpu")[0], from_files[2], rtol=1e-3, atol=1e-6)
    folder = simsiam.embed_folder(
        tmp_path / "photos", loaded, normalise="l2", machine=Machine(cache=tmp_path, device="cpu", workers=0)
    )
    (block,) = folder.blocks()
    np.testing.assert_allclose(block, from_files / np.linalg.norm(from_files, axis=1, keepdims=True), rtol=1e-4)


def test_transparent_and_grey_pictures_count_as_their_files_do(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (5, 5, 30, 30))
    deep = Image.fromarray(np.linspace(0, 65535, 1600).reshape(40, 40).astype(np.uint16))
    loaded = _untrained()
    for picture in (clear, deep):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        np.testing.assert_array_equal(
            simsiam.embed([picture], loaded, device="cpu"), simsiam.embed([buffer.getvalue()], loaded, device="cpu")
        )


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu(tmp_path: Path) -> None:
    files = sorted(tiny.flat_folder(tmp_path / "photos", images=6).iterdir())
    loaded = _untrained()
    on_cpu = simsiam.embed(files, loaded, normalise="l2", device="cpu")
    np.testing.assert_allclose(simsiam.embed(files, loaded, normalise="l2", device="cuda"), on_cpu, atol=2e-3)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    loaded = _untrained()
    good = np.zeros((40, 40, 3), np.uint8)
    bad = [tmp_path / "none.jpg", tmp_path / "text.jpg"]
    bad[1].write_text("words")
    with pytest.raises(UserError, match=r"2 of 3 images cannot be read:\n.*none.jpg: no such file\n.*text.jpg"):
        simsiam.embed([good, *bad], loaded, device="cpu")
    with pytest.raises(UserError, match=r"image 1: an array of float64 .*255\)\.round"):
        simsiam.embed([good, good / 255], loaded, device="cpu")
    with pytest.raises(UserError, match="embed_folder"):
        simsiam.embed(tmp_path, loaded, device="cpu")
    with pytest.raises(UserError, match="no image"):
        simsiam.embed([], loaded, device="cpu")
    with pytest.raises(UserError, match="int is no picture"):
        simsiam.embed([3], loaded, device="cpu")


def test_a_layer_that_the_network_lacks(subject: PretrainedBackbone) -> None:
    small = open_subject("random:resnet8", seed=0, size=32)
    with pytest.raises(UserError, match=r"resnet8 has 4 stages\. Use pooled, feature1, feature2, feature3, feature4"):
        Embedder(small, replace(embedding(32), layer="feature5"), device="cpu")


def test_an_interrupted_extraction_goes_on(
    tmp_path: Path, subject: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=12)
    settings = replace(embedding(32), batch_size=3)
    whole = embed_source(subject, FolderSource(root), settings, machine=Machine(cache=tmp_path / "a", workers=0))
    monkeypatch.setattr(feature_files, "SAVE_SECONDS", -1.0)
    reads: list[int] = []
    usual = FolderSource.read

    def read(self: FolderSource, index: int) -> Image.Image:
        if index == 7 and 7 not in reads:
            reads.append(7)
            raise KeyboardInterrupt
        reads.append(index)
        return usual(self, index)

    monkeypatch.setattr(FolderSource, "read", read)
    machine = Machine(cache=tmp_path / "b", workers=0)
    with pytest.raises(KeyboardInterrupt):
        embed_source(subject, FolderSource(root), settings, machine=machine)
    reads.clear()
    reads.append(7)
    again = embed_source(subject, FolderSource(root), settings, machine=machine)
    assert reads[1:] == [6, 7, 8, 9, 10, 11], "what was done is not read again"
    np.testing.assert_array_equal(again.features.pooled, whole.features.pooled)


def test_search_finds_what_a_full_sort_finds() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(200, 16)))
    index = Index(rows)
    query = np.random.default_rng(1).normal(size=16).astype(np.float32)
    cosines = rows @ (query / np.linalg.norm(query))
    hits = index.nearest(query, 12)
    assert [hit.row for hit in hits] == np.argsort(-cosines, kind="stable")[:12].tolist()
    np.testing.assert_allclose([hit.similarity for hit in hits], np.sort(cosines)[::-1][:12], rtol=1e-5)
    assert index.nearest(rows[5], 1)[0].row == 5
    without = index.nearest(rows[5], 500, leave_out=5)
    assert len(without) == 199
    assert 5 not in {hit.row for hit in without}


def test_equal_images_keep_their_order_and_zero_vectors_are_like_nothing() -> None:
    rows = unit_rows(np.array([[0, 0], [1, 0], [2, 0], [0, 1], [3, 0]], np.float32))
    hits = Index(rows).nearest(np.array([1, 0], np.float32), 5)
    assert [hit.row for hit in hits] == [1, 2, 4, 0, 3]
    assert [hit.similarity for hit in hits] == [1, 1, 1, 0, 0]


def test_background_is_the_distribution_of_pairs() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(60, 8)) + 1)
    pairs = (rows @ rows.T)[np.triu_indices(60, 1)]
    background = Index(rows).background()
    assert background.median == pytest.approx(np.median(pairs), abs=0.02)
    assert background.high == pytest.approx(np.quantile(pairs, 0.999), abs=0.02)


def _literal_groups(rows: np.ndarray, threshold: float) -> list[list[int]]:
    """The rule, one image after the other."""
    left, groups = list(range(len(rows))), []
    while left:
        first = left.pop(0)
        alike = [row for row in left if float(rows[first] @ rows[row]) >= threshold]
        left = [row for row in left if row not in alike]
        if alike:
            groups.append([first, *alike])
    return sorted(groups, key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("block", "chunk"), [(7, 10), (64, 1000), (256, 16_384)])
def test_groups_are_those_of_the_literal_rule(
    monkeypatch: pytest.MonkeyPatch, threshold: float, block: int, chunk: int
) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    random = np.random.default_rng(3)
    centres = random.normal(size=(25, 12))
    noise = random.normal(size=(150, 12)) * random.uniform(0, 1, (150, 1))
    rows = unit_rows(centres[random.integers(0, 25, 150)] + noise)
    shares: list[float] = []
    groups = near_duplicates(rows, threshold=threshold, digests=_different(len(rows)), progress=shares.append)
    assert [[member.row for member in group.members] for group in groups] == _literal_groups(rows, threshold)
    assert len(groups) > 5
    assert min(member.similarity for group in groups for member in group.members) >= threshold - 1e-4
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_copies_are_told_from_likenesses(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path, images=3)
    (root / "a copy.png").write_bytes((root / "photo 001.png").read_bytes())
    Image.open(root / "photo 001.png").save(root / "b same pixels.webp", lossless=True)
    source = FolderSource(root)
    vectors = unit_rows(np.array([[1, 0], [1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32))
    groups = near_duplicates(vectors, threshold=1.0, digests=source.digests())
    assert len(groups) == 1
    rows = {member.row: member.same_as for member in groups[0].members}
    assert {source.path(row): same for row, same in rows.items()} == {
        "a copy.png": None,
        "b same pixels.webp": None,
        "photo 001.png": 0,
    }
    assert groups[0].copies == 1
    assert (source.subset([3]).digests()[0] == source.digests()[3]).all()
    pixels = ArraySource(np.stack([tiny.pixels(1)[0]] * 2), name="two").digests()
    assert (pixels[0] == pixels[1]).all()


def _different(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8)


def test_a_threshold_out_of_range_and_broken_vectors() -> None:
    rows = unit_rows(np.eye(3, dtype=np.float32))
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="threshold"):
            near_duplicates(rows, threshold=threshold, digests=_different(len(rows)))
    with pytest.raises(UserError, match="first in row 1"):
        unit_rows(np.array([[1, 0], [np.nan, 0]]))
    with pytest.raises(UserError, match="two or more"):
        Index(rows[:1]).background()
