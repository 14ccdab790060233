"""What is read of the words of a command line before the whole is parsed."""

from __future__ import annotations


def plain(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text).strip("-.")
