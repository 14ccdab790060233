"""The store of features: resumption, what tells sets apart, damaged files, two writers, full and read-only disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simsiam.data.classification.loader import AugmentedCopy
from simsiam.data.classification.transforms import Augmenter
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import FolderSource, Source
from simsiam.features import store
from simsiam.features.extraction import Features
from simsiam.features.store import Extraction
from simsiam.recipes.linear import crop_and_flip
from simsiam.weights.pretrained import PretrainedBackbone
from tests import tiny
from tests.evaluation.classification.labelled_subjects import machine, splits, subject
from tests.processes import Forked

PREPROCESS = Preprocess(kind="center", resize=32, size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
EXTRACTION = Extraction(
    preprocess=PREPROCESS, layers="pooled", pooling="specified", precision="fp32", storage="fp32", batch_size=16
)
AUGMENTER = Augmenter(augmentation=crop_and_flip(32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
COPY = replace(EXTRACTION, preprocess=AugmentedCopy(augmenter=AUGMENTER, copy=1, seed=0))


def kept(
    source: Source, cache: Path, extraction: Extraction = EXTRACTION, who: PretrainedBackbone | None = None
) -> Features:
    return store.features_of(who or subject(), source, extraction, machine=machine(cache=cache))


def counting() -> tuple[PretrainedBackbone, list[int]]:
    """A subject and the numbers of images that go through it."""
    who, computed = subject(), list[int]()
    who.backbone.register_forward_hook(lambda module, inputs, output: computed.append(len(output)))
    return who, computed


class Interrupted(Exception):
    pass


def interrupted_after(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Make the extraction save after every block and fail after some."""
    whole = store.stream

    def part(*args: object, **kwargs: object) -> object:
        for number, block in enumerate(whole(*args, **kwargs)):  # type: ignore[arg-type]
            if number == blocks:
                raise Interrupted
            yield block

    monkeypatch.setattr(store, "stream", part)
    monkeypatch.setattr(store, "SAVE_SECONDS", 0.0)


@pytest.mark.parametrize("blocks", [1, 3, 5])
@pytest.mark.parametrize("extraction", [EXTRACTION, COPY], ids=["plain", "augmented"])
def test_an_interrupted_extraction_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, extraction: Extraction
) -> None:
    source = splits(train=90, test=6).train
    whole = kept(source, tmp_path / "whole", extraction)
    with monkeypatch.context() as patched:
        interrupted_after(patched, blocks)
        with pytest.raises(Interrupted):
            kept(source, tmp_path / "cache", extraction)
    state = next((tmp_path / "cache").rglob("state.json"))
    assert json.loads(state.read_text())["images"] == 16 * blocks
    who, computed = counting()
    resumed = kept(source, tmp_path / "cache", extraction, who)
    np.testing.assert_array_equal(resumed.pooled, whole.pooled)
    assert sum(computed) == 90 - 16 * blocks
    kept(source, tmp_path / "cache", extraction, who)
    assert sum(computed) == 90 - 16 * blocks  # the second time they are read


def test_augmented_features_are_those_of_the_augmented_image(tmp_path: Path) -> None:
    source = splits().train
    rows = kept(source, tmp_path, COPY).pooled
    image = AUGMENTER.crop(source.read(5), np.random.default_rng((0, 1, 5, 0)))
    with torch.no_grad():
        expected = subject().backbone(AUGMENTER.finish(torch.from_numpy(image)[None], [np.random.default_rng(0)]))
    assert rows[5] == pytest.approx(expected[0].numpy(), abs=1e-5)


def test_sets_are_told_apart_by_all_that_matters(tmp_path: Path) -> None:
    data = splits(train=20, test=12)
    base = subject()
    settings: list[tuple[PretrainedBackbone, Extraction]] = [
        (base, EXTRACTION),
        (replace(base, weights=replace(base.weights, sha256="1" * 64)), EXTRACTION),
        (base, replace(EXTRACTION, layers="stages")),
        (base, replace(EXTRACTION, storage="fp16")),
        (base, replace(EXTRACTION, preprocess=replace(PREPROCESS, size=24))),
        (base, COPY),
        (base, replace(COPY, preprocess=AugmentedCopy(augmenter=AUGMENTER, copy=0, seed=0))),
        (base, replace(COPY, preprocess=AugmentedCopy(augmenter=AUGMENTER, copy=1, seed=1))),
    ]
    for one, extraction in settings:
        for source in (data.train, data.test):
            kept(source, tmp_path, extraction, one)
    kept(data.train, tmp_path, replace(EXTRACTION, batch_size=3))
    assert len(list(tmp_path.rglob("state.json"))) == 16
    assert kept(data.train, tmp_path, settings[3][1]).pooled.dtype == np.float16


def test_features_follow_the_content_and_not_the_place_or_the_labels(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "photos", classes=2, images=5)
    first = kept(FolderSource(root), tmp_path / "cache").pooled
    who, computed = counting()
    moved = Path(shutil.move(root, tmp_path / "elsewhere"))
    for file in moved.rglob("*.jpg"):
        os.utime(file)
    again = kept(FolderSource(moved), tmp_path / "cache", who=who)
    np.testing.assert_array_equal(again.pooled, first)
    assert computed == []
    kept(FolderSource(moved).subset([0, 1, 2]), tmp_path / "cache", who=who)
    assert sum(computed) == 3


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["pooled.npy", "indices.npy", "state.json"])
@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink, lambda file: file.write_bytes(b"")])
def test_damaged_files_are_computed_again(tmp_path: Path, name: str, damage: object) -> None:
    source = splits(train=20, test=6).train
    expected = np.array(kept(source, tmp_path).pooled)
    damage(next(tmp_path.rglob(name)))  # type: ignore[operator]
    np.testing.assert_array_equal(kept(source, tmp_path).pooled, expected)
    who, computed = counting()
    np.testing.assert_array_equal(kept(source, tmp_path, who=who).pooled, expected)
    assert computed == []


def test_a_flipped_bit_in_rows_half_done_begins_them_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = splits(train=90, test=6).train
    expected = np.array(kept(source, tmp_path / "whole").pooled)
    for name, redone in (("pooled.npy", 90), ("indices.npy", 90), (None, 42)):
        with monkeypatch.context() as patched:
            interrupted_after(patched, 3)
            with pytest.raises(Interrupted):
                kept(source, tmp_path / str(name))
        if name is not None:
            file = next((tmp_path / name).rglob(name))
            content = bytearray(file.read_bytes())
            content[128 + 7] ^= 64  # of the first row
            file.write_bytes(bytes(content))
        who, computed = counting()
        np.testing.assert_array_equal(kept(source, tmp_path / str(name), who=who).pooled, expected)
        assert sum(computed) == redone


@pytest.mark.parametrize("state", ["[]", '{"images": "many"}', '{"images": 20, "rows": 7, "files": {}}', "null"])
def test_a_state_of_another_form_counts_as_damaged(tmp_path: Path, state: str) -> None:
    source = splits(train=20, test=6).train
    expected = np.array(kept(source, tmp_path).pooled)
    next(tmp_path.rglob("state.json")).write_text(state)
    np.testing.assert_array_equal(kept(source, tmp_path).pooled, expected)


def test_a_full_disk_is_a_note_and_the_features_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = splits(train=20, test=6).train
    expected = np.array(kept(source, tmp_path / "whole").pooled)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = kept(source, tmp_path / "cache")
    np.testing.assert_array_equal(found.pooled, expected)
    said = capsys.readouterr().err
    assert "the features are not kept for the next command" in said
    assert "No space left on device" in said
    monkeypatch.undo()
    np.testing.assert_array_equal(kept(source, tmp_path / "cache").pooled, expected)
    assert list((tmp_path / "cache").rglob("state.json"))


def test_features_too_large_for_the_disk_are_not_begun_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = splits(train=20, test=6).train
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    assert len(kept(source, tmp_path).pooled) == 20
    assert "0.00 MB are free" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npy"))


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert len(kept(splits(train=20, test=6).train, tmp_path / "file").pooled) == 20
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


WRITER = """
import sys
from pathlib import Path
from tests.evaluation.classification.labelled_subjects import splits
from tests.features.test_store import counting, kept
who, computed = counting()
print(kept(splits(train=90, test=6).train, Path(sys.argv[1]), who=who).pooled.sum(), sum(computed))
"""


def test_two_writers_compute_the_features_once(tmp_path: Path) -> None:
    both = [Forked([tmp_path], env=os.environ, code=WRITER) for _ in range(2)]
    said = [each.communicate()[0].split()[-2:] for each in both]  # one may first say that it waits
    assert said[0][0] == said[1][0]
    assert sorted(int(images) for _, images in said) == [0, 90]
