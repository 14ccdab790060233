"""The command line: verbs only. Nothing heavy is imported before a verb is run, so `--help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from simsiam import __version__
from simsiam.commands.verbs import VERBS, find_verb
from simsiam.errors import UserError

EXIT_USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code: 0, 2 for a mistake, 3 for a collapse, 4 for a partial one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # OpenMP threads that spin while they wait stall everything once another program wants a core: a busy neighbour
    # made CPU training up to ten times slower than with a short spin (LOG.md). Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        code = run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"simsiam: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except BrokenPipeError:  # the reader of our output went away; what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("simsiam: stopped", file=sys.stderr)
        code = 128 + signal.SIGINT
    sys.exit(code)


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
