"""The one exception that a user's mistake raises, and hints for misspelt names and missing packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


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


def install_extra(extra: str) -> str:
    """The command that adds one of the package's extras to this installation, from where it was installed."""
    import json
    import shlex
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    def command(what: str) -> str:
        return f"pip install {shlex.quote(what)}"

    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").exists():
        return command(f"{'.' if checkout == Path.cwd() else checkout}[{extra}]")
    try:
        origin = json.loads(metadata.distribution("simsiam").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        origin = {}
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        return command(f"simsiam[{extra}] @ {vcs['vcs']}+{url}")
    if url.startswith("file:"):
        return command(f"{unquote(urlsplit(url).path)}[{extra}]")
    return command(f"simsiam[{extra}]")
