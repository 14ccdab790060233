"""Batches depend on the seed alone: not on ranks, workers, resumption or unreadable files."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
import torch.utils.data._utils
from torch import Tensor

from simsiam.data.loading import WorkerPool, image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.reading import Request
from simsiam.data.shards import ShardSource
from simsiam.data.sources import ArraySource, FolderSource, Source
from simsiam.data.two_views.loader import Batch, TrainingWork, ViewLoader, pair_batches
from simsiam.errors import UserError
from tests import tiny
from tests.data.published import PUBLISHED, views

CPU = torch.device("cpu")
ENGINES = ("pil", "batch")
SMALL = views(size=24)
PLAIN = Preprocess(kind="center", resize=24, size=24, mean=PUBLISHED.mean, std=PUBLISHED.std)


@pytest.fixture(scope="module")
def memory() -> ArraySource:
    return ArraySource(tiny.pixels(40), np.arange(40) % 3, name="shapes")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    return FolderSource(tiny.folder(tmp_path_factory.mktemp("loader") / "set", classes=3, images=10))


def loader(source: Source, engine: str = "batch", **options: object) -> ViewLoader:
    settings = {"batch_size": 8, "seed": 5, "device": CPU, **options}
    return ViewLoader(source, SMALL, engine=engine, **settings)


def same(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return bool(pairs) and all(torch.equal(x.x1, y.x1) and torch.equal(x.x2, y.x2) for x, y in pairs)


def sources(request: pytest.FixtureRequest, kind: str) -> Source:
    source: Source = request.getfixturevalue(kind)
    return source


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_shapes_steps_and_epochs(request: pytest.FixtureRequest, kind: str, engine: str) -> None:
    source = sources(request, kind)
    views_of = loader(source, engine, channels_last=True)
    assert views_of.steps == len(source) // 8
    batches = list(views_of.epoch(1))
    assert [(batch.epoch, batch.step) for batch in batches] == [(1, step) for step in range(views_of.steps)]
    for batch in batches:
        assert batch.x1.shape == batch.x2.shape == (8, 3, 24, 24)
        assert batch.x1.dtype == torch.float32
        assert batch.x1.is_contiguous(memory_format=torch.channels_last)
        assert not torch.equal(batch.x1, batch.x2)
        assert batch.bad == []
    assert not same(batches, views_of.epoch(2))
    assert same(batches, views_of.epoch(1))
    assert not same(batches, loader(source, engine, seed=6).epoch(1))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_image_is_seen_once_an_epoch(engine: str) -> None:
    pixels = np.zeros((12, 24, 24, 3), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None] * 20
    still = views(
        size=24,
        jitter_probability=0.0,
        grayscale_probability=0.0,
        blur_probability=0.0,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    source = ArraySource(pixels, name="levels")
    made = ViewLoader(source, still, batch_size=4, seed=0, engine=engine, device=CPU)
    batches = list(made.epoch(0))
    one, two = (torch.cat([getattr(batch, name) for batch in batches]) * 255 for name in ("x1", "x2"))
    assert sorted(one.mean(dim=(1, 2, 3)).round().int().tolist()) == list(range(0, 240, 20))
    assert torch.allclose(one, two)  # row i of both views shows the same image


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_make_the_global_batch(
    request: pytest.FixtureRequest, kind: str, engine: str, world: int
) -> None:
    source = sources(request, kind)
    whole = list(loader(source, engine).epoch(3))
    shares = [list(loader(source, engine, rank=rank, world=world).epoch(3)) for rank in range(world)]
    for step, batch in enumerate(whole):
        for name in ("x1", "x2"):
            parts: list[Tensor] = [getattr(share[step], name) for share in shares]
            assert all(len(part) == 8 // world for part in parts)
            joined, wanted = torch.cat(parts), getattr(batch, name)
            assert torch.equal(joined, wanted)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_resuming_inside_an_epoch_changes_nothing(request: pytest.FixtureRequest, kind: str, engine: str) -> None:
    source = sources(request, kind)
    whole = list(loader(source, engine).epoch(2))
    for first in range(len(whole)):
        assert same(whole[first:], loader(source, engine).epoch(2, first_step=first))
    assert list(loader(source, engine).epoch(2, first_step=len(whole))) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_change_nothing(files: FolderSource, engine: str) -> None:
    with_workers = loader(files, engine, workers=2)
    for epoch in (0, 1):
        assert same(loader(files, engine).epoch(epoch), with_workers.epoch(epoch))
    broken_off = with_workers.epoch(0)
    next(broken_off)
    broken_off.close()
    assert same(loader(files, engine).epoch(2), with_workers.epoch(2))  # nothing of the epoch left early comes after
    with_workers.close()


def test_shards_through_workers(tmp_path: Path) -> None:
    source = ShardSource(tiny.shards(tmp_path, count=4, samples=6), window=12)
    source.read(0)  # opened before the workers start
    with_workers = loader(source, workers=2)
    assert same(loader(source).epoch(0), with_workers.epoch(0))
    with_workers.close()


def test_pictures_in_memory_and_on_disk_give_the_same_views(tmp_path: Path) -> None:
    from PIL import Image

    pixels = tiny.pixels(16)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    on_disk, in_memory = FolderSource(tmp_path), ArraySource(pixels, name="same")
    for engine, within in (("pil", 0.0), ("batch", 30.0)):
        a = next(loader(on_disk, engine, batch_size=16).epoch(0))
        b = next(loader(in_memory, engine, batch_size=16).epoch(0))
        assert (a.x1 - b.x1).abs().max() * 0.23 * 255 <= within
        assert (a.x1 - b.x1).abs().mean() * 0.23 * 255 <= within / 30


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_and_told(tmp_path: Path, engine: str, workers: int) -> None:
    root = tiny.folder(tmp_path / "set", classes=2, images=8)
    damaged = {path.relative_to(root).as_posix() for path in tiny.damaged(root / "circle")}
    source = FolderSource(root)
    runs = []
    for _ in range(2):
        views_of = loader(source, engine, workers=workers)
        batches = list(views_of.epoch(0))
        views_of.close()
        assert all(batch.x1.shape[0] == 8 and torch.isfinite(batch.x1).all() for batch in batches)
        runs.append((batches, {bad.path for batch in batches for bad in batch.bad}))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    seen = {source.path(index) for index in source.order(seed=5, epoch=0)[: len(runs[0][0]) * 8]}
    assert damaged & seen <= runs[0][1] <= damaged


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_with_no_readable_image_is_an_error(tmp_path: Path, workers: int) -> None:
    tiny.damaged(tmp_path)
    (tmp_path / "bomb.png").unlink()
    views_of = loader(FolderSource(tmp_path), batch_size=4, workers=workers)
    with pytest.raises(UserError, match=r"8 images in a row cannot be read, the first .*\. Check that"):
        next(views_of.epoch(0))
    views_of.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 64}, r"40 images are fewer than one batch of 64\. Use a batch size of 40 or less"),
        ({"batch_size": 64, "world": 3, "rank": 0}, r"64: cannot be shared by 3 processes\. Use 63 or 66"),
        ({"batch_size": 2, "world": 3, "rank": 0}, r"Use 3\."),
    ],
)
def test_impossible_batches_are_told(memory: ArraySource, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loader(memory, **options)


def test_a_killed_worker_is_told(files: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    before = signal.getsignal(signal.SIGCHLD)
    views_of = loader(files, "pil", batch_size=2, workers=1)
    batches = views_of.epoch(0)
    next(batches)
    children = torch.multiprocessing.active_children()
    assert len(children) == 1
    os.kill(children[0].pid, signal.SIGKILL)
    children[0].join()
    assert signal.getsignal(signal.SIGCHLD) == before  # nothing may be raised outside the loader
    with pytest.raises(UserError, match=r"data worker process died .*fewer workers"):
        list(batches)


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_batches(files: FolderSource, workers: int) -> None:
    with_workers = loader(files, "pil", workers=workers)
    assert same(loader(files, "pil").epoch(0), with_workers.epoch(0))
    with_workers.close()
    alone, shared = (list(image_batches(files, PLAIN, batch_size=7, device=CPU, workers=n)) for n in (0, workers))
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, shared, strict=True))


def test_full_shared_memory_slows_but_changes_nothing(
    files: FolderSource, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(tensor: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", full)  # before the worker is forked
    monkeypatch.setattr(WorkerPool, "_said", set())  # an earlier test may have heard it
    through_pipes = loader(files, "pil", workers=1)
    assert same(loader(files, "pil").epoch(0), through_pipes.epoch(0))
    through_pipes.close()
    assert capfd.readouterr().err.count("shared memory (/dev/shm) is full") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_files_deleted_under_way_are_skipped_and_named(tmp_path: Path, workers: int) -> None:
    source = FolderSource(tiny.folder(tmp_path / "set", classes=2, images=8))
    order = source.order(seed=5, epoch=0)
    views_of = loader(source, "pil", batch_size=4, workers=workers)
    (source.root / source.path(int(order[-1]))).unlink()
    batches = list(views_of.epoch(0))
    views_of.close()
    assert [len(batch.x1) for batch in batches] == [4, 4, 4, 4]
    assert [(bad.path, bad.reason) for batch in batches for bad in batch.bad] == [
        (source.path(int(order[-1])), "no such file")
    ]


_LEFT_OPEN = """
import sys, torch
from simsiam.data.folders import FolderSource
from simsiam.data.two_views.loader import ViewLoader
from tests.data.published import views
loader = ViewLoader(FolderSource(sys.argv[1]), views(size=24), batch_size=4, seed=0, engine="pil",
                    device=torch.device("cpu"), workers=2)
batches = loader.epoch(0)
next(batches)
loader.itself = loader  # kept alive to the very end
"""


def test_a_program_ends_though_its_workers_were_never_stopped(files: FolderSource) -> None:
    subprocess.run([sys.executable, "-c", _LEFT_OPEN, str(files.root)], check=True, timeout=120)


def test_workers_leave_ctrl_c_to_the_main_process(files: FolderSource) -> None:
    views_of = loader(files, "pil", batch_size=2, workers=1)
    batches = views_of.epoch(0)
    first = next(batches)
    for child in torch.multiprocessing.active_children():
        os.kill(child.pid, signal.SIGINT)
        os.kill(child.pid, signal.SIGTERM)
    rest = list(batches)
    assert same([first, *rest], loader(files, "pil", batch_size=2).epoch(0))
    views_of.close()


def test_work_travels_to_a_spawned_process(files: FolderSource) -> None:
    work = TrainingWork(source=files, views=SMALL, batch_size=4, seed=0, first_row=2, engine="batch")
    request = Request(epoch=0, step=1, indices=np.array([3, 1]))
    a, b = work[request], pickle.loads(pickle.dumps(work))[request]
    assert all(torch.equal(x, y) for x, y in zip(a.items, b.items, strict=True))


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_image_batches_keep_the_order(request: pytest.FixtureRequest, kind: str) -> None:
    source = sources(request, kind)
    batches = list(image_batches(source, PLAIN, batch_size=7, device=CPU))
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(len(source)))
    images = torch.cat([batch.images for batch in batches])
    for index in (0, 7, len(source) - 1):
        assert (images[index] - PLAIN.apply(source.read(index))).abs().max() < 0.03
    chosen = next(image_batches(source, PLAIN, batch_size=7, device=CPU, indices=np.array([9, 2])))
    assert chosen.indices.tolist() == [9, 2]
    assert torch.allclose(chosen.images, images[[9, 2]], atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_image_batches_leave_out_bad_files(tmp_path: Path, workers: int) -> None:
    root = tiny.folder(tmp_path / "set", classes=2, images=4)
    damaged = {path.relative_to(root).as_posix() for path in tiny.damaged(root / "circle")}
    source = FolderSource(root)
    batches = list(image_batches(source, PLAIN, batch_size=5, device=CPU, workers=workers))
    assert {bad.path for batch in batches for bad in batch.bad} == damaged
    kept = torch.cat([batch.indices for batch in batches]).tolist()
    assert kept == [index for index in range(len(source)) if source.path(index) not in damaged]
    assert all(len(batch.images) == len(batch.indices) for batch in batches)


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_are_fixed_by_the_seed(request: pytest.FixtureRequest, kind: str, engine: str) -> None:
    source = sources(request, kind).subset(np.arange(3, 14))

    def pairs(size: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        made = list(pair_batches(source, SMALL, seed=seed, batch_size=size, device=CPU, engine=engine))
        assert torch.cat([pair.indices for pair in made]).tolist() == list(range(11))
        return torch.cat([pair.x1 for pair in made]), torch.cat([pair.x2 for pair in made])

    (a1, a2), (b1, b2), (c1, _) = pairs(4), pairs(11), pairs(4, seed=2)
    assert torch.allclose(a1, b1, atol=2e-5)
    assert torch.allclose(a2, b2, atol=2e-5)
    assert not torch.allclose(a1, a2)
    assert not torch.allclose(a1, c1)


def test_pairs_leave_out_bad_files(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "set", images=5)
    whole = next(pair_batches(FolderSource(root), SMALL, seed=0, batch_size=9, device=CPU))
    (root / "photo 002.png").write_bytes(b"")
    damaged = next(pair_batches(FolderSource(root), SMALL, seed=0, batch_size=9, device=CPU))
    assert damaged.indices.tolist() == [0, 1, 3, 4]
    assert [bad.path for bad in damaged.bad] == ["photo 002.png"]
    assert torch.allclose(damaged.x1, whole.x1[[0, 1, 3, 4]], atol=2e-5)


@pytest.mark.gpu
def test_batches_reach_a_gpu_unchanged(files: FolderSource) -> None:
    cuda = torch.device("cuda")
    for engine, within in (("pil", 1e-5), ("batch", 0.02)):
        on_gpu = loader(files, engine, workers=2, device=cuda)
        for a, b in zip(loader(files, engine).epoch(0), on_gpu.epoch(0), strict=True):
            assert b.x1.device.type == "cuda"
            assert (a.x1 - b.x1.cpu()).abs().max() < within
        on_gpu.close()
