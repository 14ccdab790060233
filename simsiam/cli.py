"""The command line: verbs only. Nothing heavy is imported before a verb is run, so `--help` answers at once."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

from simsiam import __version__
from simsiam.commands.running import say
from simsiam.commands.verbs import VERBS, find_verb
from simsiam.engine.stopping import Interrupted
from simsiam.errors import UserError

EXIT_USER_ERROR = 2
_ANOTHER = "Name another place."
OF_THE_PLACE = {  # what a disk or its rights may say no matter which verb runs, and the cure
    errno.EACCES: "Give yourself the right to it, or name another place.",
    errno.EPERM: "Give yourself the right to it, or name another place.",
    errno.EROFS: _ANOTHER,
    errno.ENOTDIR: "A file stands where a folder should be. " + _ANOTHER,
    errno.EEXIST: "A file stands where a folder should be. " + _ANOTHER,
    errno.ENOSPC: "Free some space; the same command resumes from what was saved.",
    errno.EDQUOT: "Free some space; the same command resumes from what was saved.",
}
OUT_OF_MEMORY = (
    "the memory of the device is full. Give a smaller --batch-size (rates follow it) or smaller images, or on a GPU "
    "--precision bf16; what was saved stays."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code: 0, 2 for a mistake, 3 for a collapse, 4 for a partial one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    write_to_any_terminal()
    try:
        try:
            code = run(arguments)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"simsiam: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except BrokenPipeError:  # the reader of our output went away; what is left of it goes nowhere
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = 0
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"simsiam: {where}{error.strerror}. {OF_THE_PLACE[error.errno]}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"simsiam: {OUT_OF_MEMORY}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except Interrupted as stopped:
        say(f"simsiam: {stopped}")
        code = 128 + stopped.signal_number
    except KeyboardInterrupt:
        print("simsiam: stopped", file=sys.stderr)
        code = 128 + signal.SIGINT
    sys.exit(code)


def write_to_any_terminal() -> None:
    """Let what a terminal's encoding lacks (ASCII, cp1252) appear as `?`; what was closed takes every word."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, for as long as the program runs
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left: for Python, for torch on a GPU, or for torch on the CPU."""
    # By name, as importing torch would take a second where it is not loaded yet.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def run(arguments: list[str]) -> int:
    """Run one verb, or answer for the program itself; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else EXIT_USER_ERROR
    if arguments[0] == "--version":
        print(f"simsiam {__version__}")
        return 0
    return find_verb(arguments[0])(arguments[1:])


def usage() -> str:
    """What `simsiam --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {about}" for name, (_, about) in VERBS.items())
    return (
        "usage: simsiam VERB ...\n\nSimSiam self-supervised pre-training of image backbones, and its benchmarks.\n\n"
        f"verbs:\n{verbs}\n\n`simsiam VERB --help` explains each."
    )
