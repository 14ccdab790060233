"""The one exception that a user's mistake raises, and the hint that goes with a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend.

    The message names the file or flag, says what was found and what to do. The command line prints it
    without a traceback and exits with 2.
    """


def did_you_mean(word: str, known: Iterable[str], *, most: int = 2) -> str:
    """A hint at the nearest known words, with a space before it, or nothing."""
    import difflib  # only a misspelt name needs it, and every start of the program reads this file

    near = difflib.get_close_matches(word, list(known), n=most)
    return f" Did you mean {' or '.join(near)}?" if near else ""
