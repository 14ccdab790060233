"""Ctrl-C and SIGTERM as a wish that the training loop grants between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop, has saved its state, and can go on from there."""

    def __init__(self, signal_number: int, checkpoint: str) -> None:
        super().__init__(f"stopped and saved {checkpoint}; the same command goes on from there")
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


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM once; a second Ctrl-C stops at once, as usual."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    if _open:  # within another: a wish to stop is one wish, whoever looks at it
        yield _open[0]
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    _open.append(request)
    try:
        yield request
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
