"""What verbs that train or measure for long have in common."""

from __future__ import annotations

import sys
from contextlib import suppress


def is_first_process() -> bool:
    """Whether this process is the one that prints, of those that torchrun started."""
    import os

    return os.environ.get("RANK", "0") == "0"


def several_processes() -> bool:
    """Whether torchrun, or a job of several tasks, started more than this one."""
    import os

    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def say(text: str) -> None:
    """Tell the person, on stderr and once, however many processes run; a closed terminal is no reason to stop."""
    if is_first_process():
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def say_unfinished(source: str) -> None:
    """Say where weights come from a pre-training that is not finished, and how it resumes."""
    from simsiam.weights.load import unfinished

    if (words := unfinished(source)) is not None:
        say(f"note: {words}")
