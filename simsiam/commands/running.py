"""What verbs that train or measure for long have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable


def interruptible(work: Callable[[], int]) -> int:
    """The exit code of `work`; where it was asked to stop and saved its state, 128 + the signal's number."""
    try:
        return work()
    except Exception as error:
        if "simsiam.engine.stopping" not in sys.modules:  # nothing that could have been stopped was ever loaded
            raise
        from simsiam.engine.stopping import Interrupted

        if not isinstance(error, Interrupted):
            raise
        print(f"simsiam: {error}", file=sys.stderr)
        return 128 + error.signal_number


def is_first_process() -> bool:
    """Whether this process is the one that prints, of those that torchrun started."""
    import os

    return os.environ.get("RANK", "0") == "0"


def several_processes() -> bool:
    """Whether torchrun, or a job of several tasks, started more than this one."""
    import os

    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def say(text: str) -> None:
    """Tell the person, on stderr and once, however many processes run."""
    if is_first_process():
        print(text, file=sys.stderr)


def say_unfinished(source: str) -> None:
    """Say where weights come from a pre-training that is not finished, and how it resumes."""
    from simsiam.weights.load import unfinished

    if (words := unfinished(source)) is not None:
        say(f"note: {words}")
