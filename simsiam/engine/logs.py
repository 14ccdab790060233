"""What a run writes down and shows: metrics.jsonl always, a progress display, TensorBoard or W&B on request."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from simsiam.errors import UserError, install_extra
from simsiam.results import naming
from simsiam.wording import duration

Tracker = Literal["tensorboard", "wandb"]


class MetricsLog:
    """Rows of JSON in `metrics.jsonl`, flushed at once; `rewind` cuts what a resumed run will write again.

    Args:
        folder: the run folder.
        trackers: also send the numbers there.
        writes: False in all processes but the main one.
    """

    def __init__(self, folder: Path, *, trackers: Iterable[Tracker] = (), writes: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self._file: TextIO | None = None
        self._trackers = [_open_tracker(name, folder) for name in trackers] if writes else []
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    @property
    def offset(self) -> int:
        """Bytes written so far; a checkpoint remembers it."""
        return os.path.getsize(self.path) if self.path.exists() else 0

    def rewind(self, offset: int) -> None:
        """Cut the file back to where it was when the checkpoint was made."""
        if self._file is not None:
            self._file.truncate(min(offset, self.offset))
            self._file.seek(0, os.SEEK_END)

    def write(self, kind: str, **row: Any) -> None:
        """Add one row."""
        if self._file is None:
            return
        with naming(self.path):
            self._file.write(json.dumps({"kind": kind, **row}) + "\n")
            self._file.flush()
        for tracker in self._trackers:
            tracker(kind, row)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with naming(self.path):  # a row that found no room is tried once more
                self._file.close()


def _open_tracker(name: Tracker, folder: Path) -> Any:
    if name == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"--track tensorboard needs: {install_extra('tensorboard')}") from error
        writer = SummaryWriter(str(folder / "tensorboard"))

        def to_tensorboard(kind: str, row: dict[str, Any]) -> None:
            for key, value in _numbers(row):
                writer.add_scalar(f"{kind}/{key}", value, row.get("step"))
            writer.flush()

        return to_tensorboard
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"--track wandb needs: {install_extra('wandb')}") from error
    run = wandb.init(project="simsiam", dir=str(folder), name=folder.name, resume="allow", id=folder.name)

    def to_wandb(kind: str, row: dict[str, Any]) -> None:
        run.log({f"{kind}/{key}": value for key, value in _numbers(row)}, step=row.get("step"))

    return to_wandb


def _numbers(row: dict[str, Any]) -> list[tuple[str, float]]:
    return [(k, float(v)) for k, v in row.items() if isinstance(v, int | float) and k not in ("step", "epoch")]


class Display:
    """A live bar on a terminal; elsewhere one plain line every `every` seconds. A terminal that closes ends neither.

    Args:
        total: steps of the whole run.
        shows: False in all processes but the main one.
    """

    def __init__(self, total: int, *, shows: bool = True, every: float = 15.0) -> None:
        self.total, self.every = total, every
        self.console = Console(stderr=True)
        self._shows = shows
        self._live = shows and self.console.is_terminal
        self._last_line = 0.0
        self._started = time.monotonic()
        self._first_done = 0
        self._bar: Progress | None = None

    def start(self, done: int) -> None:
        """Begin at `done` steps."""
        self._started, self._first_done = time.monotonic(), done
        if self._live:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:3.0f}%"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=self.total, completed=done)
            self._bar.start()

    def update(self, done: int, text: str) -> None:
        """Show the state after `done` steps."""
        if not self._shows:
            return
        if self._bar is not None:
            with suppress(OSError):
                self._bar.update(self._task, completed=done, description=text)
        elif time.monotonic() - self._last_line >= self.every:
            self._last_line = time.monotonic()
            with suppress(OSError):
                print(f"{text}  left {duration(self.seconds_left(done))}", file=sys.stderr, flush=True)

    def seconds_left(self, done: int) -> float:
        """An estimate from the mean pace since the start or the resume."""
        fresh = done - self._first_done
        return (time.monotonic() - self._started) / fresh * (self.total - done) if fresh else float("nan")

    def say(self, text: str) -> None:
        """A lasting line above the bar."""
        if not self._shows:
            return
        with suppress(OSError):
            if self._bar is not None:
                self._bar.console.print(text, highlight=False, markup=False)
            else:
                print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
            self._bar = None


@contextmanager
def share_bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error while the block runs; call what is given with the share done, 0 to 1."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)
