"""Threads that wait shortly while other programs want the cores."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from simsiam.engine import neighbours
from simsiam.engine.neighbours import IdleTeam, queued, short_waits_when_busy

TASKS = Path(neighbours.TASKS)
pytestmark = pytest.mark.skipif(not TASKS.exists(), reason="Linux lists the threads of a process there")


def settles(count: int) -> bool:
    """Whether so many threads live before long."""
    deadline = time.monotonic() + 10
    while len(os.listdir(TASKS)) != count and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(os.listdir(TASKS)) == count


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(2**18).sum()
    yield None
    torch.set_num_threads(before)


def test_a_team_more_lives_until_it_is_let_go(two_threads: None) -> None:
    alone = len(os.listdir(TASKS))
    team = IdleTeam()
    assert settles(alone + 2)  # the thread that asked, and one of OpenMP's beside it
    team.end()
    assert settles(alone)


def test_the_team_is_kept_while_threads_queue(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([0.0, 0.0, 0.4, 0.8, 0.8, *[0.8] * 1000])  # of one thread, at each look
    kept: list[str] = []

    class Team:
        def __init__(self) -> None:
            kept.append("kept")

        def end(self) -> None:
            kept.append("ended")

    monkeypatch.setattr(neighbours, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(neighbours, "QUEUEING", 25.0)  # of a second's hundredth: 0.25 s
    monkeypatch.setattr(neighbours, "IdleTeam", Team)
    monkeypatch.setattr(neighbours, "queued", lambda: {"1": next(waits), "2": 5.0})
    with short_waits_when_busy():
        deadline = time.monotonic() + 10
        while kept != ["kept", "ended"] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert kept == ["kept", "ended"]


def test_a_team_still_kept_ends_with_the_work(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(neighbours, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(neighbours, "queued", lambda: {"1": float(next(seconds))})
    alone = len(os.listdir(TASKS))
    with short_waits_when_busy():
        assert settles(alone + 3)  # the watch, and the team
    assert settles(alone)


def test_nothing_is_watched_where_one_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = len(os.listdir(TASKS))
    with short_waits_when_busy():
        assert len(os.listdir(TASKS)) == alone


def test_a_thread_that_works_has_hardly_waited_and_unknown_counts_are_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = queued()
    assert str(os.getpid()) in found
    assert all(seconds >= 0 for seconds in found.values())
    monkeypatch.setattr(neighbours, "TASKS", str(tmp_path / "none"))
    assert queued() == {}
