"""Other programs on the same cores: OpenMP's threads wait as suits them, from second to second.

OpenMP's threads spin while they wait for each other. Alone on a machine that is fastest; beside other programs they
spin away the time that the thread they wait for needs. GNU's OpenMP spins three hundred times shorter as soon as it
counts more threads of its own than there are cores, and it counts anew at every wait. So while this process's threads
have to queue for a core, one small team more is kept, which does nothing. No result changes by it, since the teams
that compute keep their size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import torch

LOOK_SECONDS = 1.0
QUEUEING = 0.25  # seconds that all threads together waited for a core, a second; alone 0.03 to 0.1, beside one loop 0.5
TASKS = "/proc/self/task"


@contextmanager
def short_waits_when_busy() -> Iterator[None]:
    """Within it, torch's threads on the CPU spin shortly while the machine is busy, and as usual while it is not.

    Does nothing where one thread computes, or where Linux does not say how long threads queued.
    """
    if torch.get_num_threads() == 1 or not queued():
        yield
        return
    leave = Event()
    watch = Thread(target=_follow, args=(leave,), daemon=True)
    watch.start()
    try:
        yield
    finally:
        leave.set()
        watch.join()


def _follow(leave: Event) -> None:
    before, team = queued(), None
    while not leave.wait(LOOK_SECONDS):
        now = queued()
        busy = sum(seconds - before.get(thread, seconds) for thread, seconds in now.items()) > QUEUEING * LOOK_SECONDS
        if busy and team is None:
            team = IdleTeam()
        elif not busy and team is not None:
            team.end()
            team = None
        before = now
    if team is not None:
        team.end()


class IdleTeam:
    """An OpenMP team of two threads that has computed once and waits until `end`."""

    def __init__(self) -> None:
        self._done, begun = Event(), Event()
        self._thread = Thread(target=self._hold, args=(begun,), daemon=True)
        self._thread.start()
        begun.wait()

    def _hold(self, begun: Event) -> None:
        torch.ones(2**18).sum()  # large enough for torch to share it out
        begun.set()
        self._done.wait()

    def end(self) -> None:
        """Let the threads go."""
        self._done.set()
        self._thread.join()


def queued() -> dict[str, float]:
    """Seconds that each thread of this process, by its number, has waited for a core; empty where that is unknown."""
    found = {}
    try:
        for thread in os.listdir(TASKS):
            try:
                with open(f"{TASKS}/{thread}/schedstat") as file:
                    found[thread] = int(file.read().split()[1]) / 1e9
            except FileNotFoundError:
                continue  # it ended, or the kernel keeps no such count
    except (OSError, IndexError, ValueError):
        return {}
    return found
