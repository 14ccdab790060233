"""Locks between real processes: refused, waited for, and taken over from the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from simsiam import locks
from simsiam.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from simsiam import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
COUNT = """
import sys
from pathlib import Path
from simsiam import locks
number = Path(sys.argv[2])
for _ in range(20):
    with locks.held(Path(sys.argv[1])):
        number.write_text(str(int(number.read_text()) + 1))
"""


def holder(lock: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the lock by now."""
    words = [sys.executable, "-c", HOLD, str(lock), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Kill a process and close its pipe."""
    process.send_signal(number)
    process.communicate()


def test_second_is_refused_with_the_host_and_process_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = holder(lock, 60)
    refused = pytest.raises(UserError, match=f"busy: process {first.pid} on {os.uname().nodename}")
    with refused, locks.held(lock, refusal="busy: {holder}"):
        pytest.fail("two processes hold one lock")
    end(first)


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    end(holder(lock, 60))
    assert lock.exists()
    with locks.held(lock, refusal="busy: {holder}"):
        assert locks.Holder.of(lock) == locks.Holder.this()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_an_earlier_process_with_the_same_number_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    mine = locks.Holder.this()
    earlier = {"host": mine.host, "machine": mine.machine, "pid": other.pid, "started": "1"}
    lock.write_text(json.dumps(earlier))
    with locks.held(lock, refusal="busy: {holder}"):
        pass
    end(other)


def test_lock_of_another_machine_holds_until_it_falls_silent(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"host": "node7", "machine": "elsewhere", "pid": 41, "started": "1"}))
    refused = pytest.raises(UserError, match=r"process 41 on node7.* 120 seconds after its last sign of life")
    with refused, locks.held(lock, refusal="busy: {holder}."):
        pytest.fail("two processes hold one lock")
    silent = time.time() - locks.SILENCE - 5
    os.utime(lock, (silent, silent))
    with locks.held(lock, refusal="busy: {holder}"):
        pass


def test_empty_lock_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    old = time.time() - 60
    os.utime(lock, (old, old))
    with locks.held(lock):
        pass


def test_without_a_refusal_it_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = holder(tmp_path / "lock", 1)
    with locks.held(tmp_path / "lock"):
        assert f"waiting for process {first.pid}" in capsys.readouterr().err
    end(first)


def test_four_processes_never_hold_it_together(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    words = [sys.executable, "-c", COUNT, str(tmp_path / "lock"), str(tmp_path / "number")]
    for process in [subprocess.Popen(words) for _ in range(4)]:
        assert process.wait(timeout=120) == 0
    assert (tmp_path / "number").read_text() == "80"


def test_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with locks.held(tmp_path / "lock"):
        assert locks.Holder.of(tmp_path / "lock") == locks.Holder.this()
        with pytest.raises(UserError, match="busy"), locks.held(tmp_path / "lock", refusal="busy"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_holder_gives_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    lock = tmp_path / "lock"
    with locks.held(lock):
        os.utime(lock, (0, 0))
        until = time.monotonic() + 30
        while lock.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert lock.stat().st_mtime > 1


def test_threads_take_turns_too(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with locks.held(tmp_path / "lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
