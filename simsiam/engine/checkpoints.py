"""Checkpoints: atomic, self-describing (the recipe is inside), and read without executing anything."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simsiam.errors import UserError
from simsiam.results import write_atomic

FORMAT = "simsiam-checkpoint-1"
_NAME = re.compile(r"^step-(\d{9})\.pt$")


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: whole epochs done, and steps done in the epoch under way."""

    epoch: int
    step: int


class Checkpoints:
    """The checkpoints of one run: `step-NNNNNNNNN.pt` by global step, and `best.pt`.

    Args:
        folder: where they lie.
        keep: how many of the last ones to keep.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._damaged: set[Path] = set()

    def save(self, content: dict[str, Any], *, global_step: int) -> Path:
        """Write one and delete those older than the last `keep`, and what a killed process left half written."""
        for half in self.folder.glob(".*.part"):
            half.unlink(missing_ok=True)
        path = self.folder / f"step-{global_step:09d}.pt"
        write_atomic(path, serialise(content))
        for old in self._damaged - {path}:
            old.unlink(missing_ok=True)
        self._damaged.clear()
        for old in self.numbered()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, content: dict[str, Any]) -> Path:
        """Write the best one so far."""
        path = self.folder / "best.pt"
        write_atomic(path, serialise(content))
        return path

    def numbered(self) -> list[Path]:
        """The kept ones, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.match(path.name))

    def latest(self) -> dict[str, Any] | None:
        """The newest that reads whole; a damaged one is passed over for the one before, and that is said.

        Raises UserError where there are some and none can be read.
        """
        wrong: list[str] = []
        for path in reversed(self.numbered()):
            try:
                content = read(path)
            except UserError as error:
                wrong.append(str(error))
                self._damaged.add(path)
                continue
            if wrong and os.environ.get("RANK", "0") == "0":
                print("\n".join([*wrong, f"resuming from the checkpoint before: {path}"]), file=sys.stderr)
            return content
        if wrong:
            raise UserError("\n".join([*wrong, f"{self.folder}: no checkpoint is left to resume from. Start over."]))
        return None


def _damage(path: Path) -> str | None:
    """What is wrong with the archive that torch wrote: it holds a checksum of each part, which torch.load ignores."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error):
        return f"no whole archive as a checkpoint is one (cut short at {path.stat().st_size:,} bytes, or overwritten)"
    return None if changed is None else f"bytes of it were changed ({changed})"


def serialise(content: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Any]:
    """Read one of our own checkpoints on the CPU, weights only; raises UserError that names the file."""
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint.")
    if (cause := _damage(path)) is not None:
        raise UserError(f"{path}: damaged: {cause}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:  # torch's reader of archives
        raise UserError(f"{path}: damaged: its parts do not fit together.") from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this program; as weights to start from, --init reads foreign formats."
        )
    return content
