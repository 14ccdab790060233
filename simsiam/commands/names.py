"""What is read of the words of a command line before the whole is parsed."""

from __future__ import annotations


def value_of(flag: str, arguments: list[str]) -> str | None:
    """The value of one flag before the whole line is read: it decides the defaults of the others."""
    found = None
    for n, argument in enumerate(arguments):
        if argument == flag and n + 1 < len(arguments):
            found = arguments[n + 1]
        elif argument.startswith(flag + "="):
            found = argument.partition("=")[2]
    return found  # of several the last counts, as with every flag


def plain(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text).strip("-.")
