"""Sources: what is found, how it is labelled, and what a user is told when nothing is."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.config import cache_folder
from simsiam.data.reading import read_or_replace
from simsiam.data.sources import (
    ArraySource,
    FolderSource,
    ListSource,
    Source,
    as_source,
    imagenet_source,
    open_source,
    split_held_out,
)
from simsiam.errors import UserError
from tests import tiny


def test_folder_is_recursive_sorted_and_labelled(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "set", classes=3, images=2)
    (root / "circle" / "deep").mkdir()
    shutil.copy(root / "square" / "000.jpg", root / "circle" / "deep" / "x.JPEG")
    (root / ".hidden.jpg").write_bytes(b"")
    (root / "square" / "notes.txt").write_text("no image")
    source = FolderSource(root)
    paths = [source.path(index) for index in range(len(source))]
    assert paths == sorted(paths)
    assert paths[2] == "circle/deep/x.JPEG"
    assert len(source) == 7
    assert source.classes == ("circle", "square", "stripes")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert source.read(0).mode == "RGB"
    assert source.name == "set"


def test_folder_without_classes_is_unlabelled(tmp_path: Path) -> None:
    flat = FolderSource(tiny.flat_folder(tmp_path / "flat"))
    assert flat.labels is None
    assert flat.classes is None
    one_class = FolderSource(tiny.folder(tmp_path / "one", classes=1))
    assert one_class.labels is None
    mixed = tiny.folder(tmp_path / "mixed", classes=2)
    shutil.copy(mixed / "circle" / "000.jpg", mixed / "loose.jpg")
    assert FolderSource(mixed).labels is None


def test_symbolic_link_loop_ends(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "set", classes=2, images=3)
    tiny.symlink_loop(root)
    (root / "circle" / "up").symlink_to(root, target_is_directory=True)
    (root / "a link").symlink_to(root / "square", target_is_directory=True)
    source = FolderSource(root)
    assert len(source) == 6
    assert source.classes == ("circle", "square")
    (tmp_path / "far").mkdir()
    tiny.shape("circle", seed=9).save(tmp_path / "far" / "x.png")
    (root / "far").symlink_to(tmp_path / "far", target_is_directory=True)
    assert FolderSource(root).classes == ("circle", "far", "square")


def test_folder_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        FolderSource(tmp_path / "none")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match="a text file, not a folder"):
        FolderSource(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder is empty"):
        FolderSource(tmp_path / "empty")
    for index in range(3):
        (tmp_path / "empty" / f"{index}.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"only 3 x \.heic"):
        FolderSource(tmp_path / "empty")


def test_list_with_labels_spaces_and_tabs(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=3)
    (root / "list.txt").write_text("photo 000.png 4\nphoto 001.png\n\nphoto 002.png\t0\n")
    source = ListSource(root / "list.txt")
    assert [source.path(index) for index in range(3)] == ["photo 000.png", "photo 001.png", "photo 002.png"]
    assert source.labels is not None
    assert source.labels.tolist() == [1, -1, 0]
    assert source.classes == ("0", "4")
    assert source.read(0).size == (40, 40)


def test_list_with_words_and_a_root(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "set", classes=2, images=1)
    listed = tmp_path / "elsewhere.txt"
    listed.write_text("square/000.jpg boat\ncircle/000.jpg axe\n")
    source = ListSource(listed, root=root)
    assert source.classes == ("axe", "boat")
    assert source.labels is not None
    assert source.labels.tolist() == [1, 0]
    unlabelled = tmp_path / "plain.txt"
    unlabelled.write_text("square/000.jpg\n")
    assert ListSource(unlabelled, root=root).labels is None


def test_list_mistakes_are_told(tmp_path: Path) -> None:
    tiny.flat_folder(tmp_path, images=1)
    listed = tmp_path / "list.txt"
    listed.write_text("photo 000.png\ngone.png\nother/gone.png 3\n")
    with pytest.raises(UserError, match=r"2 of 3 lines point to no file, the first 'gone\.png'"):
        ListSource(listed)
    listed.write_text("\n \n")
    with pytest.raises(UserError, match="empty list"):
        ListSource(listed)
    listed.write_bytes(b"photo\0\xff\xfe\xfd")
    with pytest.raises(UserError, match="text"):
        ListSource(listed)
    with pytest.raises(UserError, match="no such list"):
        ListSource(tmp_path / "none.txt")
    with pytest.raises(UserError, match="a folder, not a list"):
        ListSource(tmp_path)


def test_imagenet_by_folders_and_by_list(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "train", classes=3, images=2)
    folders = imagenet_source(tmp_path)
    assert folders.name == "imagenet-train"
    assert folders.classes == ("circle", "square", "stripes")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "train.txt").write_text("square/001.jpg 1\ncircle/000.jpg 0\n")
    listed = imagenet_source(tmp_path)
    assert listed.path(0) == "square/001.jpg"
    assert listed.labels is not None
    assert listed.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="neither val/ nor meta/val"):
        imagenet_source(tmp_path, "val")
    tiny.flat_folder(tmp_path / "val")
    with pytest.raises(UserError, match="no class folders and no list"):
        imagenet_source(tmp_path, "val")


def test_open_source_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tiny.cifar_cache(tmp_path / "cache")
    root = tiny.folder(tmp_path / "set")
    (root / "list.txt").write_text("circle/000.jpg\n")
    tars = tiny.shards(tmp_path / "tars")
    lengths = {
        kind: len(open_source(data, kind=kind, cache=cache))
        for kind, data in (
            ("folder", root),
            ("list", root / "list.txt"),
            ("shards", tars),
            ("cifar10", ""),
            ("demo", ""),
        )
    }
    assert lengths == {"folder": 8, "list": 1, "shards": 15, "cifar10": 120, "demo": 120}
    with pytest.raises(UserError, match="data kind 'photos' is not known"):
        open_source(root, kind="photos")
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "named"))
    assert cache_folder(None) == tmp_path / "named"


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    source = ArraySource(tiny.pixels(50), name="shapes")
    first = source.order(seed=1, epoch=2)
    assert sorted(first.tolist()) == list(range(50))
    assert (first == source.order(seed=1, epoch=2)).all()
    assert (first != source.order(seed=1, epoch=3)).any()
    assert (first != source.order(seed=2, epoch=2)).any()


def test_subset_keeps_labels_pixels_paths_and_nests() -> None:
    pixels = tiny.pixels(10)
    source = ArraySource(pixels, np.arange(10) % 3, name="shapes")
    subset = source.subset([7, 2, 5]).subset(np.array([2, 0]))
    assert subset.labels is not None
    assert subset.pixels is not None
    assert subset.labels.tolist() == [2, 1]
    assert (subset.pixels == pixels[[5, 7]]).all()
    assert subset.path(0) == source.path(5)
    assert (np.asarray(subset.read(1)) == pixels[7]).all()
    assert sorted(subset.order(seed=0, epoch=0).tolist()) == [0, 1]
    assert sorted(source.subset([3, 3, 4]).order(seed=0, epoch=0).tolist()) == [0, 1, 2]
    assert subset.fingerprint() != source.fingerprint()


def test_fingerprint_follows_names_sizes_and_pixels(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "set")
    before = FolderSource(root).fingerprint()
    moved = Path(shutil.copytree(root, tmp_path / "copy"))
    assert FolderSource(moved).fingerprint() == before
    (moved / "circle" / "000.jpg").write_bytes(b"x")
    assert FolderSource(moved).fingerprint() != before
    pixels = tiny.pixels(3)
    one = ArraySource(pixels, name="a").fingerprint()
    changed = pixels.copy()
    changed[2, 5, 5, 1] ^= 1
    assert ArraySource(changed, name="a").fingerprint() != one


@pytest.mark.parametrize("total", [4, 19, 100])
def test_held_out_is_a_small_disjoint_lasting_part(total: int) -> None:
    source = ArraySource(np.zeros((total, 2, 2, 3), np.uint8), name="zeros")
    split = split_held_out(source, images=7, seed=3)
    assert len(split.held_out) == max(2, min(7, total // 10))
    both = _paths(split.train) | _paths(split.held_out)
    assert len(split.train) + len(split.held_out) == total == len(both)
    assert _paths(split.held_out) == _paths(split_held_out(source, images=7, seed=3).held_out)
    if total == 100:
        assert _paths(split.held_out) != _paths(split_held_out(source, images=7, seed=4).held_out)


def test_held_out_does_not_follow_the_order_of_files() -> None:
    source = ArraySource(np.zeros((60, 2, 2, 3), np.uint8), name="zeros")
    turned = source.subset(np.arange(59, -1, -1))
    assert _paths(split_held_out(source, images=6, seed=0).held_out) == _paths(
        split_held_out(turned, images=6, seed=0).held_out
    )
    held = sorted(int(path.rpartition("/")[2]) for path in _paths(split_held_out(source, images=6, seed=0).held_out))
    assert [number // 10 for number in held] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]  # one of each stretch: frames of one scene do not fill it
    with pytest.raises(UserError, match="too few"):
        split_held_out(source.subset([0, 1, 2]), images=2, seed=0)


def test_sources_travel_to_a_worker(tmp_path: Path) -> None:
    source = FolderSource(tiny.folder(tmp_path / "naïve set"))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.path(3) == source.path(3)
    assert (np.asarray(copy.read(3)) == np.asarray(source.read(3))).all()


def test_array_source_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        ArraySource(np.zeros((2, 3, 4, 4), np.uint8), name="x")
    with pytest.raises(ValueError, match="labels"):
        ArraySource(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3), name="x")


def test_the_last_readable_image_is_found(tmp_path: Path) -> None:
    tiny.damaged(tmp_path)
    tiny.shape("circle", seed=0).save(tmp_path / "whole.png")
    source = FolderSource(tmp_path)
    for index in range(len(source)):
        assert read_or_replace(source, index, []).size == (40, 40)


def _paths(source: Source) -> set[str]:
    return {source.path(index) for index in range(len(source))}


def test_a_torch_data_set_is_decoded_once_for_its_digests() -> None:
    class Counted(list[Image.Image]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(index)

    images = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 90, 0)]
    source = as_source(Counted(images))
    first = source.digests()
    assert (source.digests() == first).all()
    assert Counted.reads == 3
    assert (first[0] == first[2]).all()
    assert (first[0] != first[1]).any()
    assert source.stamp() == source.content()


@pytest.mark.parametrize("second", ["b b.png", "größe.png"])
def test_all_names_at_once_are_those_of_each(tmp_path: Path, second: str) -> None:
    outside = tmp_path / "c.png"
    (tmp_path / "below").mkdir()
    for file in (tmp_path / "a.png", tmp_path / "below" / second, outside):
        tiny.shape("circle", seed=0).save(file)
    (tmp_path / "list.txt").write_text(f"a.png\nbelow/{second}\n{outside}\n")
    source = ListSource(tmp_path / "list.txt")
    assert source.paths() == [source.path(index) for index in range(3)] == ["a.png", f"below/{second}", str(outside)]
    assert source.files() == [str(tmp_path / name) for name in source.paths()]
    assert source.subset([2, 0]).paths() == [str(outside), "a.png"]
