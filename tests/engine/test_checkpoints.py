"""Checkpoints: atomic, few, foreign files refused, and nothing in them executed."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from simsiam.engine.checkpoints import Checkpoints, read
from simsiam.engine.logs import MetricsLog
from simsiam.errors import UserError
from simsiam.results import read_metrics


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_the_last_ones_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 10):
        checkpoints.save({"step": step}, global_step=step)
    assert [path.name for path in checkpoints.numbered()] == ["step-000000003.pt", "step-000000010.pt"]
    newest = checkpoints.latest()
    assert newest is not None
    assert newest["step"] == 10


def test_the_best_is_kept_beside_the_last_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save_best({"step": 1})
    for step in (2, 3):
        checkpoints.save({"step": step}, global_step=step)
    assert path == tmp_path / "best.pt"
    assert read(path)["step"] == 1
    assert checkpoints.numbered() == [tmp_path / "step-000000003.pt"]
    assert read(checkpoints.save_best({"step": 4}))["step"] == 4


def test_a_half_written_neighbour_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000000005.pt.77.part").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    checkpoints.save({"step": 6}, global_step=6)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000006.pt"]  # the half one went


def test_where_there_is_no_room_the_file_is_named_and_the_last_one_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save({"step": 1}, global_step=1)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))  # what the kernel then says is as of a full disk
    try:
        with pytest.raises(OSError, match=r"step-000000002\.pt") as stopped:
            checkpoints.save({"weights": torch.rand(10000)}, global_step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert stopped.value.errno == errno.EFBIG
    assert stopped.value.filename == str(tmp_path / "step-000000002.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]


def test_a_damaged_one_is_passed_over_and_all_damaged_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    first = checkpoints.save({"step": 1}, global_step=1)
    checkpoints.save({"step": 2}, global_step=2).write_bytes(b"cut short")
    found = checkpoints.latest()
    assert found is not None
    assert found["step"] == 1
    first.write_bytes(b"")
    with pytest.raises(UserError, match="step-00000000"):
        checkpoints.latest()


def test_only_the_first_process_says_that_one_was_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save({"step": 1}, global_step=1)
    assert checkpoints.latest() is not None
    assert capsys.readouterr().err == ""  # nothing is wrong, nothing is said
    damaged = checkpoints.save({"step": 2}, global_step=2)
    damaged.write_bytes(b"cut short")
    monkeypatch.setenv("RANK", "1")
    assert checkpoints.latest() is not None
    assert capsys.readouterr().err == ""
    damaged.unlink()  # by a person who reads the message of the first process
    checkpoints.save({"step": 3}, global_step=3)
    assert [path.name for path in checkpoints.numbered()] == ["step-000000001.pt", "step-000000003.pt"]


def test_flipped_bits_are_never_read_as_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save({"step": 1, "weights": torch.zeros(3000)}, global_step=1)
    newest = checkpoints.save({"step": 2, "weights": torch.rand(3000)}, global_step=2)
    whole, content = newest.read_bytes(), read(newest)
    random = np.random.default_rng(0)
    passed_over = 0
    for place in random.integers(0, len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        newest.write_bytes(changed)
        found = checkpoints.latest()
        assert found is not None
        said = capsys.readouterr().err
        if found["step"] == 2:  # a byte that means nothing, as the padding between two parts
            assert torch.equal(found["weights"], content["weights"])
            continue
        passed_over += 1
        assert f"{newest}: damaged: " in said
        assert "resuming from the checkpoint before" in said
    assert passed_over > 40


def test_a_file_cut_anywhere_is_passed_over_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save({"step": 1}, global_step=1)
    newest = checkpoints.save({"step": 2, "weights": torch.rand(3000)}, global_step=2)
    whole = newest.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        newest.write_bytes(whole[:length])
        found = checkpoints.latest()
        assert found is not None
        assert found["step"] == 1
        said = capsys.readouterr().err
        assert str(newest) in said
        assert "PytorchStreamReader" not in said
        assert "miniz" not in said
    checkpoints.save({"step": 3}, global_step=3)
    assert [path.name[:-3] for path in checkpoints.numbered()] == ["step-000000001", "step-000000003"], (
        "the damaged went"
    )


def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pt"
    path.write_bytes(pickle.dumps(Hostile()))
    torch.save({"format": "simsiam-checkpoint-1", "bad": Hostile()}, tmp_path / "zipped.pt")
    for file in (path, tmp_path / "zipped.pt"):
        with pytest.raises(UserError, match=file.name):
            read(file)
    assert not (tmp_path / "pwned").exists()


def test_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        read(tmp_path / "other.pt")


def test_a_rewound_log_loses_what_came_after(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write("step", step=1, loss=0.5)
    offset = log.offset
    log.write("step", step=2, loss=0.4)
    log.rewind(offset)
    log.write("step", step=2, loss=0.3)
    log.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(log.path)] == [(1, 0.5), (2, 0.3)]


def test_a_half_written_last_row_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, trackers=("tensorboard",))
    log.write("step", step=3, loss=-0.25, epoch=1)
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [(3, -0.25)]
