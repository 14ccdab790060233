"""What the page is made of: work in the background, the map's plane, thumbnails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam.browse import collection
from simsiam.browse.collection import Job
from simsiam.browse.pictures import picture
from simsiam.data.sources import FolderSource
from simsiam.embedding.similarity import plane
from tests import tiny


def test_a_job_that_nobody_waits_for_ends() -> None:
    steps: list[int] = []
    running = threading.Event()

    def work(progress: Callable[[float], None]) -> str:
        for step in range(1000):
            steps.append(step)
            running.set()
            progress(step / 1000)
            time.sleep(0.005)
        return "done"

    job = Job(work)
    assert running.wait(5)
    job.cancel()
    assert job.wait(5)
    assert job.result is None
    assert len(steps) < 1000


def test_a_job_that_breaks_says_so() -> None:
    def work(progress: Callable[[float], None]) -> str:
        raise ZeroDivisionError("by nothing")

    job = Job(work)
    assert job.wait(5)
    assert job.error == "ZeroDivisionError: by nothing"


def test_pca_keeps_the_directions_of_largest_variance() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(size=(80, 2)) * (9, 3), random.normal(size=(80, 6)) * 0.01], 1)
    points = plane(rows.astype(np.float32), "pca")
    for axis in (0, 1):
        assert abs(np.corrcoef(points[:, axis], rows[:, axis])[0, 1]) > 0.98
    assert plane(rows[:2].astype(np.float32), "tsne").shape == (2, 2)
    assert plane(rows[:4].astype(np.float32), "tsne").shape == (4, 2)
    assert len(collection.chosen(50_000, "tsne")) == collection.MOST["tsne"]


def test_large_jpegs_are_decoded_small_and_upright(tmp_path: Path) -> None:
    whole = tiny.shape("stripes", seed=3, size=(2000, 1200))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    whole.save(tmp_path / "a.jpg", quality=95)
    whole.save(tmp_path / "b.jpg", quality=95, exif=exif)
    whole.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    (tmp_path / "d.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    source = FolderSource(tmp_path)
    assert picture(source, 0, side=256).size == (256, 154)
    assert picture(source, 1, side=256).size == (154, 256)
    assert picture(source, 3, side=256).getpixel((9, 9)) == (128, 128, 128), "damaged since: a grey square"
    for index in range(3):
        plain = source.read(index)
        plain.thumbnail((256, 256), Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(picture(source, index, side=256), float) - np.asarray(plain, float))
        assert difference.mean() < 4
