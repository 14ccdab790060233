"""Labelled batches: order, processes, damaged files; the class checks; the layouts of the published sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.data.classification.loader import (
    AugmentedCopy,
    LabelledBatch,
    LabelledLoader,
    augmented_copy,
    class_count,
    labels_of,
    stratified_rows,
)
from simsiam.data.classification.named_sets import (
    convert_inaturalist,
    imagenet_part,
    inaturalist_source,
    places205_source,
)
from simsiam.data.classification.transforms import Augmentation, Augmenter
from simsiam.data.folders import FolderSource
from simsiam.data.sources import ArraySource
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from tests import tiny

AUGMENTATION = Augmentation(
    crop="resized", size=16, min_scale=0.08, resize=16, flip_probability=0.5, jitter=0.4, lighting=0.1
)
AUGMENTER = Augmenter(augmentation=AUGMENTATION, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def _array(count: int = 23) -> ArraySource:
    return ArraySource(tiny.pixels(count), np.arange(count) % 3, name="shapes", classes=tiny.SHAPES)


def _loader(source: ArraySource | FolderSource, *, rank: int = 0, world: int = 1, workers: int = 0) -> LabelledLoader:
    return LabelledLoader(source, AUGMENTER, batch_size=8, seed=3, device=CPU, rank=rank, world=world, workers=workers)


def _equal(one: LabelledBatch, other: LabelledBatch) -> None:
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.indices, other.indices)


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_kept() -> None:
    loader = _loader(_array())
    batches = list(loader.epoch(0))
    assert loader.steps == 3
    assert [len(batch.labels) for batch in batches] == [8, 8, 7]
    indices = torch.cat([batch.indices for batch in batches])
    assert sorted(indices.tolist()) == list(range(23))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), indices % 3)
    assert batches[0].images.shape == (8, 3, 16, 16)
    again = torch.cat([batch.indices for batch in loader.epoch(1)])
    assert not torch.equal(indices, again)


@pytest.mark.parametrize(
    "augmentation",
    [
        replace(AUGMENTATION, flip_probability=0.0, jitter=0.0, lighting=0.0),  # drawn by the workers
        replace(AUGMENTATION, crop="resize-then-random", flip_probability=0.0, jitter=0.0),  # drawn with the batch
    ],
)
def test_an_image_is_drawn_anew_each_epoch(augmentation: Augmentation) -> None:
    augmenter = replace(AUGMENTER, augmentation=augmentation)
    loader = LabelledLoader(_array(1), augmenter, batch_size=1, seed=3, device=CPU)
    shown = [next(loader.epoch(epoch)).images for epoch in (0, 1, 2, 1)]
    assert torch.equal(shown[1], shown[3])
    assert not any(torch.equal(shown[one], shown[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_resuming_inside_an_epoch_gives_the_same_batches() -> None:
    whole = list(_loader(_array()).epoch(2))
    rest = list(_loader(_array()).epoch(2, first_step=1))
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        _equal(one, other)


def test_three_ranks_together_give_the_batch_of_one() -> None:
    whole = list(_loader(_array()).epoch(0))
    ranks = [list(_loader(_array(), rank=rank, world=3).epoch(0)) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [ranks[rank][step] for rank in range(3)]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)


def test_workers_change_nothing(tmp_path: Path) -> None:
    source = FolderSource(tiny.folder(tmp_path / "data", classes=3, images=5))
    loader = _loader(source, workers=2)
    for one, other in zip(_loader(source).epoch(1), loader.epoch(1), strict=True):
        _equal(one, other)
    loader.close()


def test_damaged_images_are_left_out_and_reported(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "data", classes=2, images=5)
    (root / "circle" / "002.jpg").write_bytes(b"")
    batches = list(_loader(FolderSource(root)).epoch(0))
    assert sum(len(batch.labels) for batch in batches) == 9
    assert [bad.path for batch in batches for bad in batch.bad] == ["circle/002.jpg"]


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "data", classes=2, images=5)
    for file in root.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="not one image"):
        list(_loader(FolderSource(root)).epoch(0))


def test_a_copy_shows_each_image_as_that_epoch_does_and_can_start_anywhere() -> None:
    source = _array()
    by_index: dict[int, torch.Tensor] = {}
    for batch in _loader(source).epoch(4):
        by_index |= dict(zip(batch.indices.tolist(), batch.images, strict=True))

    def copied(first: int) -> Iterator[LabelledBatch]:
        return augmented_copy(
            source, AugmentedCopy(augmenter=AUGMENTER, copy=4, seed=3), batch_size=5, device=CPU, first=first
        )

    whole = torch.cat([batch.images for batch in copied(0)])
    assert torch.equal(whole, torch.stack([by_index[index] for index in range(23)]))
    assert torch.equal(whole[7:], torch.cat([batch.images for batch in copied(7)]))


def test_more_processes_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match="9 processes"):
        _loader(_array(), world=9)


def test_unlabelled_images_are_refused() -> None:
    with pytest.raises(UserError, match="no labels"):
        labels_of(ArraySource(tiny.pixels(4), name="plain"))
    with pytest.raises(UserError, match="1 of 4 images has no label"):
        labels_of(ArraySource(tiny.pixels(4), np.array([0, 1, -1, 0]), name="some"))


def _labelled(labels: list[int], classes: tuple[str, ...] | None, name: str = "set") -> ArraySource:
    return ArraySource(tiny.pixels(len(labels)), np.array(labels), name=name, classes=classes)


def _classes(train: ArraySource, test: ArraySource) -> int:
    both = Splits(train=train, test=test)
    return class_count(both.train, both.test)


def test_class_count() -> None:
    assert _classes(_labelled([0, 1, 2], ("a", "b", "c")), _labelled([2], ("a", "b", "c"))) == 3
    assert _classes(_labelled([0, 1], None), _labelled([1], None)) == 2
    assert _classes(_labelled([0, 1, 2], ("0", "1", "2")), _labelled([1], ("0", "1"))) == 3
    assert _classes(_labelled([0, 1], ("a", "b")), _labelled([0, 1], ("b", "a"))) == 2


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (([0, 1], ("a", "b")), ([0, 1], ("a", "c")), r"only in training: b \(1.*only in test: c"),
        (([0, 1], None), ([0, 2], None), r"no training image \(id 2\)"),
        (([0, 2, 2], ("a", "b", "c")), ([0], ("a", "b", "c")), r"1 of 3 classes has no training image \(b\)"),
        (([0, 0], None), ([0], None), "only one class"),
    ],
)
def test_sets_that_disagree_are_refused(
    train: tuple[list[int], tuple[str, ...] | None], test: tuple[list[int], tuple[str, ...] | None], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _classes(_labelled(*train), _labelled(*test))


def test_stratified_rows_take_some_of_each_class_and_never_all() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 2)
    source = ArraySource(np.zeros((62, 4, 4, 3), np.uint8), labels, name="set")
    drawn = stratified_rows(source, fraction=0.2, seed=0)
    assert [int(drawn[labels == label].sum()) for label in range(3)] == [10, 2, 1]
    assert np.array_equal(drawn, stratified_rows(source, fraction=0.2, seed=0))
    assert not np.array_equal(drawn, stratified_rows(source, fraction=0.2, seed=1))
    with pytest.raises(UserError, match="class 1 has one image"):
        stratified_rows(_labelled([0, 0, 1], None), fraction=0.5, seed=0)


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (200, 30, 30)).save(path)


def _inaturalist(root: Path) -> None:
    images = [{"id": 7 + n, "file_name": f"train_val2018/Aves/{n}/{n}.jpg"} for n in range(4)]
    for image in images:
        _image(root / str(image["file_name"]))
    notes = [{"image_id": 7 + n, "category_id": n % 3} for n in (3, 2, 1, 0)]
    content = {"images": images, "annotations": notes, "categories": [{"id": n} for n in range(3)]}
    (root / "train2018.json").write_text(json.dumps(content))


def test_inaturalist_from_json_and_from_the_converted_list(tmp_path: Path) -> None:
    _inaturalist(tmp_path)
    source = inaturalist_source(tmp_path, "train")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2, 0]
    assert source.read(2).size == (20, 16)

    assert convert_inaturalist(tmp_path / "train2018.json", tmp_path / "meta" / "train.txt") == 4
    (tmp_path / "train2018.json").unlink()
    listed = inaturalist_source(tmp_path, "train")
    assert listed.labels is not None
    assert listed.labels.tolist() == [0, 1, 2, 0]
    assert listed.fingerprint() == source.fingerprint()


def test_inaturalist_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither meta/train\.txt nor train2018\.json"):
        inaturalist_source(tmp_path, "train")
    _inaturalist(tmp_path)
    whole = json.loads((tmp_path / "train2018.json").read_text())

    def given(**changes: object) -> None:
        (tmp_path / "train2018.json").write_text(json.dumps(whole | changes))

    given(annotations=whole["annotations"][:2])
    with pytest.raises(UserError, match="2 of 4 images have no annotation"):
        inaturalist_source(tmp_path, "train")
    given(categories=[{"id": 0}, {"id": 1}])
    with pytest.raises(UserError, match=r"category ids \[2\]"):
        inaturalist_source(tmp_path, "train")
    given(images=[*whole["images"][:3], {"id": 10, "file_name": "train_val2018/gone.jpg"}])
    with pytest.raises(UserError, match="1 of 4 lines points to no file"):
        inaturalist_source(tmp_path, "train")
    (tmp_path / "train2018.json").write_text("{")
    with pytest.raises(UserError, match="not an iNaturalist annotation file"):
        inaturalist_source(tmp_path, "train")


def test_places205_lists(tmp_path: Path) -> None:
    lists = tmp_path / "trainvalsplit_places205"
    lists.mkdir()
    for name in ("a/abbey/1.jpg", "b/bar/2.jpg"):
        _image(tmp_path / "images256" / name)
    (lists / "train_places205.csv").write_text("a/abbey/1.jpg 0\nb/bar/2.jpg 204\n")
    source = places205_source(tmp_path, "train")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 204]
    (lists / "val_places205.csv").write_text("a/abbey/1.jpg,3\n")
    assert places205_source(tmp_path, "val").path(0) == "a/abbey/1.jpg"

    (lists / "val_places205.csv").write_text("a/abbey/1.jpg 205\n")
    with pytest.raises(UserError, match=r"line 1: id 205 is outside 0\.\.204"):
        places205_source(tmp_path, "val")
    (lists / "val_places205.csv").write_text("a/abbey/1.jpg abbey\n")
    with pytest.raises(UserError, match=r"line 1: found 'a/abbey/1\.jpg abbey'"):
        places205_source(tmp_path, "val")
    (lists / "val_places205.csv").unlink()
    with pytest.raises(UserError, match=r"val_places205\.csv: no such list"):
        places205_source(tmp_path, "val")


def test_a_part_of_imagenet_by_list(tmp_path: Path) -> None:
    for wnid in ("n01", "n02"):
        for number in range(3):
            _image(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG")
    part = tmp_path / "1percent.txt"
    part.write_text("n02_1.JPEG\nn01/n01_2.JPEG 0\n")
    source = imagenet_part(tmp_path, part)
    assert source.labels is not None
    assert source.labels.tolist() == [1, 0]
    assert [source.path(index) for index in range(2)] == ["n02/n02_1.JPEG", "n01/n01_2.JPEG"]

    part.write_text("n02_9.JPEG\n")
    with pytest.raises(UserError, match="1 of 1 image is not in"):
        imagenet_part(tmp_path, part)
    part.write_text("n02_1.JPEG 0\n")
    with pytest.raises(UserError, match="has id 0 here but n02"):
        imagenet_part(tmp_path, part)
