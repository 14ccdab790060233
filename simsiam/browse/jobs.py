"""Work that takes longer than a page should wait for: done in a thread, asked about while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from simsiam.errors import UserError

T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work in a thread of its own.

    Attributes:
        share: how much is done, 0 to 1.
        result: what came out; None until then.
        error: what went wrong, in words; None where nothing did.
    """

    def __init__(self, work: Callable[[Callable[[float], None]], T]) -> None:
        self.share = 0.0
        self.result: T | None = None
        self.error: str | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Let the work end at its next word of progress: nobody waits for it any more."""
        self._stop = True

    def wait(self, seconds: float) -> bool:
        """Whether it has ended after at most this long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self, work: Callable[[Callable[[float], None]], T]) -> None:
        try:
            self.result = work(self._progress)
        except _Cancelled:
            self.error = "cancelled"
        except UserError as error:
            self.error = str(error)
        except Exception as error:  # a page that asks for it must learn of it, or it asks for ever
            self.error = f"{type(error).__name__}: {error}"

    def _progress(self, share: float) -> None:
        self.share = share
        if self._stop:
            raise _Cancelled


class _Cancelled(Exception):
    """Nobody waits for the work any more."""
