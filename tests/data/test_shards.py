"""Tar shards: found, indexed once, read by offset, in an order that stays near in the files."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

import simsiam.data.shard_index
from simsiam.data.images import UnreadableImage
from simsiam.data.shards import ShardSource, find_shards
from simsiam.errors import UserError
from tests import tiny


def test_samples_and_labels(tmp_path: Path) -> None:
    source = ShardSource(tiny.shards(tmp_path / "photos"))
    assert len(source) == 15
    assert source.name == "photos"
    assert source.labels is not None
    assert source.labels.tolist() == [k % 3 for k in range(15)]
    assert source.path(6) == "train-000001.tar/000006.jpg"
    with tarfile.open(tmp_path / "photos" / "train-000001.tar") as tar:
        member = tar.extractfile("000006.jpg")
        assert member is not None
        content = member.read()
    from simsiam.data.images import read_image

    assert (np.asarray(source.read(6)) == np.asarray(read_image(content, name="x"))).all()


def test_unlabelled_json_and_other_members(tmp_path: Path) -> None:
    assert ShardSource(tiny.shards(tmp_path / "plain", labels=False)).labels is None
    image = tiny.jpeg(tiny.shape("circle", seed=1))
    with tarfile.open(tmp_path / "mixed.tar", "w") as tar:
        tiny.add(tar, "a/0.json", json.dumps({"label": 5}).encode())
        tiny.add(tar, "a/0.jpg", image)
        tiny.add(tar, "a/0.txt", b"a caption")
        tiny.add(tar, "b/0.jpg", image)
        tiny.add(tar, "b/0.seg.png", image)
        tiny.add(tar, "c/" + "long" * 60 + ".PNG", image)
        tiny.add(tar, "c/broken.jpg", b"")
    source = ShardSource(tmp_path / "mixed.tar")
    assert source.labels is not None
    assert source.labels.tolist() == [0, -1, -1, -1]
    assert source.classes == ("5",)
    assert source.path(2).endswith("long.PNG")
    with pytest.raises(UnreadableImage, match="empty"):
        source.read(3)


@pytest.mark.parametrize("pattern", ["", "/train-*.tar", "/train-{000000..000002}.tar", "/train-{000000,000002}.tar"])
def test_patterns(tmp_path: Path, pattern: str) -> None:
    tiny.shards(tmp_path)
    found = [path.name for path in find_shards(f"{tmp_path}{pattern}")]
    wanted = [0, 2] if "," in pattern else [0, 1, 2]
    assert found == [f"train-{number:06d}.tar" for number in wanted]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.tar shard"):
        ShardSource(tmp_path)
    tiny.shards(tmp_path)
    with pytest.raises(UserError, match=r"2 shards missing.*000003"):
        ShardSource(f"{tmp_path}/train-{{000000..000004}}.tar")
    whole = (tmp_path / "train-000001.tar").read_bytes()
    packed = tmp_path / "packed.tar"
    packed.write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match=r"packed\.tar: compressed by gzip.*Decompress"):
        ShardSource(packed)
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.tar: an empty file"):
        ShardSource(tmp_path / "empty.tar")
    (tmp_path / "text.tar").write_bytes(b"words " * 500)
    with pytest.raises(UserError, match=r"text\.tar: not a whole tar file"):
        ShardSource(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "none.tar", "w") as tar:
        tiny.add(tar, "a.txt", b"no image")
    with pytest.raises(UserError, match="1 shard, but no image in it "):
        ShardSource(tmp_path / "none.tar")


def test_a_cut_at_any_place_is_noticed(tmp_path: Path) -> None:
    tiny.shards(tmp_path, count=1)
    whole = (tmp_path / "train-000000.tar").read_bytes()
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        members = tar.getmembers()
    starts = [member.offset for member in members[1:]]  # cut between two members
    inside = [members[-1].offset_data + 1, members[2].offset_data + 100, members[3].offset + 200]
    for place in starts + inside:
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"cut\.tar: not a whole tar file"):
            ShardSource(cut)


def test_index_is_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.shards(tmp_path / "tars")
    first = ShardSource(root)
    kept = list(root.glob(".simsiam-index-*.npz"))
    assert len(kept) == 1
    monkeypatch.setattr(simsiam.data.shard_index, "_build", lambda _: pytest.fail("the kept index was not used"))
    assert ShardSource(root).fingerprint() == first.fingerprint()
    monkeypatch.undo()
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # damaged: made again
    assert ShardSource(root).fingerprint() == first.fingerprint()
    tiny.shards(root, count=1, samples=2)  # the first shard changes
    assert len(ShardSource(root)) == 12


def test_index_goes_to_the_cache_where_the_folder_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.shards(tmp_path / "tars")
    real = simsiam.data.shard_index.write_atomic

    def refuse_beside(path: Path, content: bytes) -> None:
        if path.parent == root:
            raise PermissionError(13, "read-only")
        real(path, content)

    monkeypatch.setattr(simsiam.data.shard_index, "write_atomic", refuse_beside)
    assert len(ShardSource(root, cache=tmp_path / "cache")) == 15
    assert len(list((tmp_path / "cache" / "shards").glob("*.npz"))) == 1
    monkeypatch.setattr(simsiam.data.shard_index, "_build", lambda _: pytest.fail("the kept index was not used"))
    assert len(ShardSource(root, cache=tmp_path / "cache")) == 15


def test_order_stays_inside_windows(tmp_path: Path) -> None:
    source = ShardSource(tiny.shards(tmp_path, count=6, samples=4), window=8)
    order = source.order(seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(24))
    shard_of = order // 4
    windows = [set(shard_of[start : start + 8].tolist()) for start in (0, 8, 16)]
    assert all(len(window) == 2 for window in windows)  # eight samples from two shards, then from the next two
    assert (order != source.order(seed=0, epoch=1)).any()
    assert (order == source.order(seed=0, epoch=0)).all()
    half = source.subset(np.arange(0, 24, 2)).order(seed=0, epoch=0)
    assert (half == order[order % 2 == 0] // 2).all()


def test_few_files_stay_open_and_a_copy_reads_on(tmp_path: Path) -> None:
    source = ShardSource(tiny.shards(tmp_path, count=12, samples=1))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    images = [np.asarray(source.read(index)) for index in range(12)]
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 8
    copy = pickle.loads(pickle.dumps(source))
    assert all((np.asarray(copy.read(index)) == images[index]).all() for index in range(12))
    for each in (source, copy):
        each.close()


def test_a_shard_that_vanishes_is_a_bad_image(tmp_path: Path) -> None:
    source = ShardSource(tiny.shards(tmp_path))
    (tmp_path / "train-000001.tar").unlink()
    with pytest.raises(UnreadableImage, match="shard cannot be read"):
        source.read(6)
