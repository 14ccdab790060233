"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) as a wish that long work grants where it can save its state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop, has saved its state, and can be resumed from there."""

    def __init__(self, signal_number: int | None, checkpoint: str) -> None:
        super().__init__(f"stopped and saved {checkpoint}; the same command resumes from there")
        self.signal_number = signal_number or signal.SIGTERM


class StopAsked(Exception):
    """A stop was asked for in the midst of work that is done again after a resume; whoever can save catches this."""

    def __init__(self, signal_number: int | None) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class StopRequest:
    """Whether someone asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def asked(self) -> bool:
        """True once a signal has come."""
        return self.signal_number is not None


_open: list[StopRequest] = []


def check() -> None:
    """Called between two batches of anything long: raises StopAsked where a stop was asked for.

    Only while somebody listens (`stop_requests`); else a signal ends the process by itself.
    """
    if _open and _open[0].asked:
        raise StopAsked(_open[0].signal_number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP while the body runs.

    A second Ctrl-C stops at once, as usual. The others often come twice (from a scheduler and torchrun, from the
    terminal and its shell) and are then one wish. A SIGHUP that is ignored, as under nohup, stays so.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    if _open:  # within another: a wish to stop is one wish, whoever looks at it
        yield _open[0]
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    caught = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    before = {number: signal.signal(number, remember) for number in caught}
    _open.append(request)
    try:
        yield request
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
