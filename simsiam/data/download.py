"""Fetching a file so that nothing half-done is ever taken for whole: one process at a time, resumed, verified."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from simsiam.results import file_digest

CONNECT_SECONDS = 5.0  # also the longest silence of a server
_ATTEMPTS = 5  # resumptions, each of which must have brought something
_PIECE = 1 << 18


class Unavailable(Exception):
    """One way to get a data set failed; the message says why."""


def fetch(url: str, path: Path, *, md5: str) -> Path:
    """Download to `path`, resuming an interrupted call; the file appears there only once its md5 is right.

    Raises Unavailable with the reason; what has arrived stays in `path`.part for the next call.
    """

    def fault(file: Path) -> str | None:
        found = file_digest(file, "md5")
        return None if found == md5 else f"md5 {found}, not {md5}"

    return fetch_checked(url, path, fault=fault)


def fetch_checked(url: str, path: Path, *, fault: Callable[[Path], str | None]) -> Path:
    """As `fetch`, for any check: `fault` says what is wrong with a whole file, or None."""
    if path.is_file() and fault(path) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        failure = _continue(url, part, before)
        if failure is None:
            break
        if part.exists() and part.stat().st_size > before:
            continue
        raise Unavailable(failure)
    wrong = fault(part) if part.exists() else "nothing arrived"
    if wrong is not None:
        part.unlink(missing_ok=True)
        raise Unavailable(f"{url}: the file that arrived is damaged ({wrong})")
    os.replace(part, path)
    return path


def _continue(url: str, part: Path, have: int) -> str | None:
    """Append what is missing to `part`; returns the reason if the connection fails or breaks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
            resumed = answer.status == 206
            total = int(answer.headers.get("Content-Length") or 0) + (have if resumed else 0)
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            with (
                open(part, "ab" if resumed else "wb") as file,
                Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress,
            ):
                task = progress.add_task(url.rsplit("/", 1)[-1], total=total or None, completed=have if resumed else 0)
                while piece := answer.read(_PIECE):
                    file.write(piece)
                    progress.advance(task, len(piece))
        arrived = part.stat().st_size
        return f"{url}: the connection broke off at {arrived:,} of {total:,} bytes" if arrived < total else None
    except urllib.error.HTTPError as error:
        error.close()  # it holds the answer's body as an open file
        if error.code == 416:  # nothing is left to send: the part is whole, or it is not this file's
            return None
        return f"{url}: the server answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', None) or error}"
