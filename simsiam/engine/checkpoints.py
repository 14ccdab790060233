"""Checkpoints: atomic, self-describing (the recipe is inside), and read without executing anything."""

from __future__ import annotations

import io
import re
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

    def save(self, content: dict[str, Any], *, global_step: int) -> Path:
        """Write one and delete those older than the last `keep`, and what a killed process left half written."""
        for half in self.folder.glob(".*.part"):
            half.unlink(missing_ok=True)
        path = self.folder / f"step-{global_step:09d}.pt"
        write_atomic(path, serialise(content))
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
        """The newest that reads whole; a damaged one (a full disk, say) is passed over for the one before."""
        damaged = None
        for path in reversed(self.numbered()):
            try:
                return read(path)
            except UserError as error:
                damaged = error
        if damaged is not None:
            raise damaged
        return None


def serialise(content: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Any]:
    """Read one of our own checkpoints on the CPU, weights only; raises UserError that names the file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint.") from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this program; as weights to start from, --init reads foreign formats."
        )
    return content
