"""Batches of images with boxes: pure in seed, epoch and step; shared out; padded; and mapped back."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.config import IMAGENET_MEAN, IMAGENET_STD
from simsiam.data.detection.boxes import BoxBatch, BoxSample, BoxSource, Frame, Target
from simsiam.data.detection.coco import open_coco2017
from simsiam.data.detection.loader import BoxLoader, network_images, ordered_batches
from simsiam.data.detection.transforms import BoxTransform, transform
from simsiam.data.detection.voc import open_voc_folder
from simsiam.data.preprocess import Normalisation
from simsiam.errors import UserError
from tests.data.detection.test_voc import write
from tests.tiny_shapes import coco_folder

HOW = BoxTransform(short_sides=(40, 48, 56), long_side=80, flip_probability=0.5)
IMAGENET = Normalisation(mean=IMAGENET_MEAN, std=IMAGENET_STD)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> BoxSource:
    return open_coco2017(coco_folder(tmp_path_factory.mktemp("coco"), train=10, test=3, side=48)).train


@pytest.fixture(scope="module")
def wide_and_tall(tmp_path_factory: pytest.TempPathFactory) -> BoxSource:
    folder = tmp_path_factory.mktemp("voc")
    for number in range(15):
        size = (20, 16) if number < 8 else (16, 20)
        write(folder, f"{number:02d}", [("cat", (1, 2, 9, 8))], size=size)
    return open_voc_folder(folder)


def loader(
    source: BoxSource, *, batch_size: int = 4, seed: int = 3, rank: int = 0, world: int = 1, workers: int = 0
) -> BoxLoader:
    return BoxLoader(
        source,
        HOW,
        normalisation=IMAGENET,
        batch_size=batch_size,
        seed=seed,
        device=CPU,
        rank=rank,
        world=world,
        workers=workers,
    )


def same(one: BoxBatch, other: BoxBatch) -> bool:
    return (
        torch.equal(one.images, other.images)
        and one.frames == other.frames
        and (one.epoch, one.step) == (other.epoch, other.step)
        and all(
            torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels) and torch.equal(masks(a), masks(b))
            for a, b in zip(one.targets, other.targets, strict=True)
        )
    )


def masks(target: object) -> torch.Tensor:
    found = target.masks  # type: ignore[attr-defined]
    return found if found is not None else torch.zeros(0)


def test_an_image_is_drawn_anew_each_pass(shapes: BoxSource) -> None:
    one = loader(shapes.subset([0]), batch_size=1)
    shown = [next(one.epoch(epoch)).images for epoch in range(12)]
    assert len({images.numpy().tobytes() for images in shown}) >= 4  # of six: three sizes, mirrored or not
    assert torch.equal(next(one.epoch(5)).images, shown[5])


def test_each_pass_shows_every_image(shapes: BoxSource) -> None:
    one = loader(shapes)
    assert one.steps == 3
    batches = list(one.epoch(0))
    seen = [frame.index for batch in batches for frame in batch.frames]
    assert len(seen) == 12
    assert set(seen) == set(range(10))
    assert seen[10:] == seen[:2]  # filled up from the beginning
    assert [frame.index for batch in one.epoch(1) for frame in batch.frames] != seen


def test_resumed_batches_are_the_same(shapes: BoxSource) -> None:
    whole = list(loader(shapes).run(0, 7))
    assert [(batch.epoch, batch.step) for batch in whole] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    for ours, theirs in zip(loader(shapes).run(4, 7), whole[4:], strict=True):
        assert same(ours, theirs)
    for ours, theirs in zip(loader(shapes).epoch(1, 1), whole[4:6], strict=True):
        assert same(ours, theirs)
    assert not same(next(loader(shapes, seed=4).run(0, 1)), whole[0])


def test_workers_change_nothing(shapes: BoxSource) -> None:
    alone = list(loader(shapes).run(0, 5))
    helped = loader(shapes, workers=2)
    for ours, theirs in zip(helped.run(0, 5), alone, strict=True):
        assert same(ours, theirs)
    helped.close()


@pytest.mark.gpu
def test_a_gpu_gets_the_same_batches(shapes: BoxSource) -> None:
    """Made on a side stream, one ahead of the step, from page-locked memory."""
    cuda = torch.device("cuda")
    on_gpu = BoxLoader(shapes, HOW, normalisation=IMAGENET, batch_size=4, seed=3, device=cuda, workers=2)
    for ours, theirs in zip(on_gpu.run(0, 5), loader(shapes).run(0, 5), strict=True):
        assert ours.images.is_cuda
        assert ours.frames == theirs.frames
        assert torch.allclose(ours.images.cpu(), theirs.images, atol=1e-5)
        for one, other in zip(ours.targets, theirs.targets, strict=True):
            assert one.boxes.is_cuda
            assert torch.equal(one.boxes.cpu(), other.boxes)
            assert torch.equal(masks(one).cpu(), masks(other))
    on_gpu.close()


def test_processes_share_a_batch(shapes: BoxSource) -> None:
    whole = list(loader(shapes).run(0, 3))
    halves = [list(loader(shapes, rank=rank, world=2).run(0, 3)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert batch.frames == first.frames + second.frames
        for row, frame in enumerate(batch.frames):
            part, place = (first, row) if row < 2 else (second, row - 2)
            ours = batch.images[row, :, : frame.height, : frame.width]
            assert torch.equal(ours, part.images[place, :, : frame.height, : frame.width])
    with pytest.raises(UserError, match="multiple of the 3 processes"):
        loader(shapes, world=3)


def test_neighbours_have_the_same_orientation(wide_and_tall: BoxSource) -> None:
    one = loader(wide_and_tall, batch_size=2)
    for epoch in range(4):
        order = one.order(epoch)
        wide = order < 8
        pairs = wide.reshape(-1, 2)
        assert (pairs[:, 0] == pairs[:, 1]).sum() >= 7  # all but the pair of what is left over
        assert set(order.tolist()) == set(range(15))
    assert any((a != b).any() for a, b in pairwise(one.order(epoch) for epoch in range(4)))
    mixed = Counter(bool(one.order(epoch)[0] < 8) for epoch in range(30))
    assert min(mixed[True], mixed[False]) >= 8  # pairs themselves come in any order


def test_a_set_smaller_than_a_batch(shapes: BoxSource) -> None:
    one = loader(shapes.subset([4]), batch_size=3)
    assert [frame.index for batch in one.run(0, 2) for frame in batch.frames] == [0] * 6
    with pytest.raises(UserError, match="no image to train on"):
        loader(shapes.subset([]))


def test_normalised_then_padded_with_noughts(shapes: BoxSource) -> None:
    batch = next(loader(shapes).run(0, 1))
    assert batch.images.dtype == torch.float32
    assert batch.images.shape[2] % 32 == 0
    assert batch.images.shape[3] % 32 == 0
    for row, frame in enumerate(batch.frames):
        one = transform(shapes.read(frame.index), HOW, np.random.default_rng((3, 0, frame.index, 0)))
        assert one.pixels.shape == (frame.height, frame.width, 3)
        expected = (one.pixels.numpy() / 255 - IMAGENET.mean) / IMAGENET.std
        ours = batch.images[row, :, : frame.height, : frame.width].permute(1, 2, 0)
        assert np.allclose(ours.numpy(), expected, atol=1e-5)
        assert batch.images[row, :, frame.height :].abs().sum() == 0
        assert batch.images[row, :, :, frame.width :].abs().sum() == 0
        assert torch.equal(batch.targets[row].boxes, one.target.boxes)


def test_red_is_the_first_channel() -> None:
    red = transform(
        BoxSample(image=Image.new("RGB", (40, 40), (255, 0, 0)), target=Target.empty()), HOW, np.random.default_rng(0)
    )
    batch = network_images([red], Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    assert batch[0, :, 5, 5].tolist() == [1, 0, 0]


def test_scoring_takes_each_image_once_in_order(shapes: BoxSource) -> None:
    still = BoxTransform(short_sides=(56,), long_side=80, flip_probability=0.5)

    def batches(**options: int) -> list[BoxBatch]:
        return list(ordered_batches(shapes, still, normalisation=IMAGENET, batch_size=3, device=CPU, **options))

    alone = batches()
    assert [[frame.index for frame in batch.frames] for batch in alone] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    for batch in alone:
        for frame, target in zip(batch.frames, batch.targets, strict=True):
            full = shapes.target(frame.index)
            assert torch.allclose(frame.to_image(target.boxes), full.boxes[full.ordinary], atol=1e-4)  # never mirrored
    shared = sorted(batches(rank=0, world=2) + batches(rank=1, world=2), key=lambda batch: batch.frames[0].index)
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, shared, strict=True))


def test_boxes_back_in_the_image() -> None:
    frame = Frame(index=0, height=480, width=640, original_height=375, original_width=500)
    boxes = torch.tensor([[0.0, 0.0, 640.0, 480.0], [64.0, 48.0, 128.0, 96.0], [-5.0, 10.0, 700.0, 500.0]])
    expected = torch.tensor([[0, 0, 500, 375], [50, 37.5, 100, 75], [0, 7.8125, 500, 375]])
    assert torch.allclose(frame.to_image(boxes), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_ends_the_run_by_name(tmp_path: Path, workers: int) -> None:
    write(tmp_path, "a", [("cat", (1, 2, 4, 5))])
    (tmp_path / "a.jpg").write_bytes(b"")
    source = open_voc_folder(tmp_path)
    with pytest.raises(UserError, match=r"a\.jpg: empty file"):
        next(loader(source, batch_size=1, workers=workers).run(0, 1))
