"""Photos decoded once: the same pixels whatever became of the files, nothing wrong read, the disk not filled."""

from __future__ import annotations

import builtins
import errno
import hashlib
import multiprocessing
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from simsiam.data import photos
from simsiam.data.images import UnreadableImage, read_image
from simsiam.data.loading import WorkerPool
from simsiam.data.photos import KeptPhotos, choose, kept_side
from simsiam.data.sources import FolderSource, Source
from simsiam.data.two_views.draws import crop_boxes, decoded_side, draw, step_generator
from simsiam.data.two_views.engines import opencv_crop
from simsiam.data.two_views.loader import ViewLoader
from tests import tiny
from tests.data.published import views

CPU = torch.device("cpu")
SMALL = views(size=16)  # 42 pixels suffice, so photos are kept at 96
SIDE, COUNT = 96, 8
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight photos of 240 x 200 pixels, a day old."""
    root = tmp_path / "photos"
    root.mkdir()
    for index in range(COUNT):
        write(root / f"{index}.jpg", seed=index)
    return root


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def write(file: Path, *, seed: int, size: tuple[int, int] = (240, 200)) -> None:
    tiny.shape("circle", seed=seed, size=size).save(file, quality=92)
    os.utime(file, ns=(0, file.stat().st_mtime_ns - 86_400_000_000_000))


def read(folder: Path, root: Path, **settings: Any) -> list[bytes]:
    """Every photo's pixels, as a process that comes anew reads them."""
    opened = KeptPhotos(folder, SIDE, **settings)
    return [opened.read(file, name=file.name).tobytes() for file in sorted(root.iterdir())]


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from now on."""
    names: list[str] = []

    def noting(file: Any, *, name: str, short_side: int | None = None) -> Image.Image:
        names.extend([] if isinstance(file, bytes) else [name])
        return read_image(file, name=name, short_side=short_side)

    monkeypatch.setattr(photos, "read_image", noting)
    return names


def test_a_photo_is_decoded_once_and_has_the_same_pixels_ever_after(
    root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = decoded(monkeypatch)
    first = read(kept, root)
    assert len(names) == COUNT
    assert read(kept, root) == first == read(kept, root, writes=False)
    assert len(names) == COUNT
    assert read(kept / "nowhere", root) == first  # what cannot be kept is decoded to the same pixels
    with Image.open(root / "0.jpg") as whole:
        shown = np.frombuffer(first[0], np.uint8).reshape(SIDE, 115, 3)
        assert np.abs(np.asarray(whole.resize((115, SIDE)), np.int16) - shown).mean() < 4


def test_a_smaller_photo_is_read_as_it_is(root: Path, kept: Path) -> None:
    write(root / "small.jpg", seed=1, size=(120, 90))
    opened = KeptPhotos(kept, SIDE)
    whole = read_image(root / "small.jpg", name="small.jpg")
    assert opened.read(root / "small.jpg", name="small.jpg").tobytes() == whole.tobytes()
    assert not list(kept.iterdir())
    (root / "cut.jpg").write_bytes((root / "0.jpg").read_bytes()[:300])
    with pytest.raises(UnreadableImage, match=r"cut\.jpg"):
        opened.read(root / "cut.jpg", name="cut.jpg")


def test_a_photo_replaced_in_place_is_decoded_anew(root: Path, kept: Path) -> None:
    first = read(kept, root)
    write(root / "3.jpg", seed=77)
    second = read(kept, root)
    assert [a == b for a, b in zip(first, second, strict=True)] == [index != 3 for index in range(COUNT)]
    assert second == read(kept / "nowhere", root)


def test_a_photo_written_this_moment_is_not_kept(root: Path, kept: Path) -> None:
    opened = KeptPhotos(kept, SIDE)
    (root / "0.jpg").touch()  # it may change again within the same tick of the clock
    opened.read(root / "0.jpg", name="0.jpg")
    assert not list(kept.iterdir())


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 1)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def flipped(file: Path) -> None:
    content, chance = bytearray(file.read_bytes()), random.Random(5)
    for _ in range(12):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def turned_round(file: Path) -> None:
    file.write_bytes(file.read_bytes()[::-1])


@pytest.mark.parametrize("damage", [cut, emptied, flipped, turned_round, Path.unlink])
@pytest.mark.parametrize("suffix", [".pack", ".index"])
def test_nothing_wrong_is_read_from_damaged_files(
    root: Path, kept: Path, damage: Callable[[Path], None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(kept, root)
    (file,) = kept.glob(f"*{suffix}")
    damage(file)
    assert read(kept, root) == whole
    names = decoded(monkeypatch)
    assert read(kept, root) == whole
    assert not names  # what was damaged has been kept again


def test_a_record_without_its_photo_is_passed_over(root: Path, kept: Path) -> None:
    """As after a loss of power, where the disk has the later write and not the earlier one."""
    whole = read(kept, root)
    (pack,), (index,) = kept.glob("*.pack"), kept.glob("*.index")
    os.truncate(pack, pack.stat().st_size - 100)
    with open(index, "ab") as file:
        file.write(photos._RECORD.pack(b"k" * 16, 2**63, 2**32 - 1, b"c" * 16) + b"torn")
    assert read(kept, root) == whole


def _fill(folder: Path, root: Path, out: Any) -> None:
    out.put(read(folder, root))


def test_two_processes_fill_one_folder_at_once(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    both = [context.Process(target=_fill, args=(kept, root, out)) for _ in range(2)]
    for process in both:
        process.start()
    found = [out.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    names = decoded(monkeypatch)
    assert found == [read(kept, root)] * 2
    assert not names


def loader(source: Source, workers: int = 0) -> ViewLoader:
    return ViewLoader(source, SMALL, engine="opencv", batch_size=4, seed=3, device=CPU, workers=workers)


def epochs(source: Source, *, workers: int = 0) -> list[torch.Tensor]:
    batches = loader(source, workers)
    found = [view for epoch in (0, 1) for batch in batches.epoch(epoch) for view in (batch.x1, batch.x2)]
    batches.close()
    return found


def test_views_do_not_depend_on_workers_nor_on_what_is_kept(root: Path, tmp_path: Path) -> None:
    source, places = FolderSource(root), [tmp_path / f"kept{number}" for number in range(3)]
    runs = []
    for workers, place in enumerate(places):
        place.mkdir()
        runs.append(epochs(source.kept_in(KeptPhotos(place, SIDE)), workers=workers))
    runs.append(epochs(source.kept_in(KeptPhotos(places[2], SIDE)), workers=1))  # all is there
    runs.append(epochs(source.kept_in(KeptPhotos(tmp_path / "nowhere", SIDE))))
    assert len(runs[0]) == 8
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))
    without = epochs(source)
    assert not torch.equal(without[0], runs[0][0])
    assert torch.equal(without[0], epochs(source.kept_in(None))[0])


def test_the_folder_of_photos_is_left_as_it_was(root: Path, kept: Path) -> None:
    def state() -> dict[str, tuple[str, int]]:
        return {
            file.name: (hashlib.md5(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in root.iterdir()
        }

    before = state()
    epochs(FolderSource(root).subset(np.arange(4, COUNT)).kept_in(KeptPhotos(kept, SIDE)), workers=1)
    assert list(kept.glob("*.pack"))
    assert state() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_said_once_and_the_work_continues(
    root: Path, kept: Path, workers: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = epochs(FolderSource(root).kept_in(KeptPhotos(kept / "nowhere", SIDE)))
    whole = builtins.open

    def full(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "ab" and str(file).endswith(".index"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(file, mode, *rest, **more)

    monkeypatch.setattr(photos, "open", full, raising=False)
    monkeypatch.setattr(WorkerPool, "_said", set())
    capfd.readouterr()
    found = epochs(FolderSource(root).kept_in(KeptPhotos(kept, SIDE)), workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    said = capfd.readouterr().err
    assert said.count("No space left on device") == 1
    assert str(kept) in said
    monkeypatch.undo()
    assert epochs(FolderSource(root).kept_in(KeptPhotos(kept, SIDE)))[0].equal(expected[0])


def test_no_more_than_a_quarter_of_the_free_disk_is_taken(
    root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = 60_000

    def usage(place: Any) -> Usage:
        used = sum(file.stat().st_size for file in kept.iterdir())
        return Usage(disk, used, disk - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    whole = read(kept / "nowhere", root)
    opened = KeptPhotos(kept, SIDE)
    assert [opened.read(file, name=file.name).tobytes() for file in sorted(root.iterdir())] == whole
    taken = sum(file.stat().st_size for file in kept.glob("*.pack"))
    assert 0 < taken <= disk / 4
    assert opened.note is not None
    assert "25% of the free disk" in opened.note
    choice = choose(FolderSource(root).files(), needed=42, cache=kept.parent)
    assert "still fit into a quarter of the free disk" in choice.notes[0]


def test_photos_are_kept_where_they_are_much_larger_than_needed(root: Path, tmp_path: Path) -> None:
    source = FolderSource(root)
    choice = choose(source.files(), needed=42, cache=tmp_path)
    assert choice.photos is not None
    assert (choice.photos.side, choice.photos.folder) == (SIDE, tmp_path / "decoded-photos")
    (note,) = choice.notes
    assert note.startswith("photos of 200 px (the short side) where 42 suffice: decoded once, at 96 px, and kept in ")
    assert "MB for 8 photos" in note
    assert not list((tmp_path / "decoded-photos").iterdir())  # nothing is made before that is said
    assert choose(source.files(), needed=124, cache=tmp_path).photos is None  # they would be kept at 192
    assert choose([], needed=42, cache=tmp_path).photos is None  # as in tar shards
    (tmp_path / "file").touch()
    refused = choose(source.files(), needed=42, cache=tmp_path / "file")
    assert refused.photos is not None  # so that the pixels do not depend on it
    assert "they cannot be kept" in refused.notes[0]


@pytest.mark.parametrize("size", [32, 48, 64, 96, 112, 128, 224])
def test_crops_of_kept_photos_show_the_same_part_and_are_never_enlarged(size: int) -> None:
    """Same draws: each crop lies where it lay in the photo, to a pixel or two of the kept one.

    In one of a hundred another try is taken, for a box fits into one of both sizes only by the rounding of a pixel.
    """
    recipe, count = views(size=size), 4000
    side = kept_side(decoded_side(recipe))
    assert side is not None
    assert side >= 1.1 * decoded_side(recipe)
    draws = draw(recipe, count, step_generator(seed=1, epoch=0, step=0)).crop
    height, width = 3024, 4032  # a phone's
    wide = round(width * side / height)
    whole = crop_boxes(recipe, draws, np.full(count, height), np.full(count, width)) * (side / height)
    ours = crop_boxes(recipe, draws, np.full(count, side), np.full(count, wide))
    assert np.mean(np.abs(whole - ours).max(axis=1) < 2) > 0.98
    area, ratio = (np.log(whole[:, 2] / ours[:, 2]) + sign * np.log(whole[:, 3] / ours[:, 3]) for sign in (1, -1))
    assert abs(area.mean()) < 0.01
    assert abs(ratio.mean()) < 0.001
    assert np.prod(ours[:, 2:], axis=1).min() > size**2


@pytest.mark.parametrize(("size", "mean", "most"), [(48, 2.6, 6.0), (224, 2.2, 6.0)])
def test_views_differ_little_from_those_of_whole_photos(size: int, mean: float, most: float, kept: Path) -> None:
    """In levels of 255, of real photographs at 12 megapixels; JPEG's own scales alone differ by 1.0 and 1.4."""
    recipe = views(size=size)
    side = kept_side(decoded_side(recipe))
    assert side is not None
    draws = draw(recipe, 24, step_generator(seed=0, epoch=0, step=0))
    off = []
    for number, pixels in enumerate(load_sample_images().images):
        file = kept / f"{number}.jpg"
        Image.fromarray(pixels).resize((4000, 3000)).save(file, quality=90)
        whole, ours = read_image(file, name="whole"), KeptPhotos(kept, side).read(file, name="kept")
        for row in range(12 * number, 12 * number + 12):
            crops = [opencv_crop(image, recipe, draws, row).astype(np.float32) for image in (whole, ours)]
            off.append(np.abs(crops[0] - crops[1]).mean())
    assert 0 < np.mean(off) < mean
    assert np.max(off) < most
