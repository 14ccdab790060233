"""The Result record: what every protocol writes and every table reads (standard library only)."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simsiam.errors import UserError

SCHEMA = 1
REMEMBERED = "among the training images"  # of a note on test images that were learnt from
CAVEATS = (REMEMBERED, "exact cop")


@dataclass(frozen=True, kw_only=True)
class WeightsId:
    """Which weights a number belongs to."""

    source: str  # what the user named: a run folder, a file, or "random"
    sha256: str  # over names, shapes and bytes of the backbone tensors, see weights.load.fingerprint


@dataclass(frozen=True, kw_only=True)
class DataId:
    """Which data a number belongs to."""

    name: str  # "cifar10", or the folder's name
    sha256: str  # over the images' content and all that is annotated on them, see data.source
    images: int
    hashed: str = "names and sizes"  # as earlier versions did, which do not write this field; now "content"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured row: `metrics` holds the numbers (percent where the field prints percent)."""

    protocol: str
    main_metric: str
    metrics: dict[str, float]
    recipe: dict[str, Any]
    weights: WeightsId
    data: DataId
    seed: int
    seconds: float
    versions: dict[str, str]
    detail: dict[str, Any] = field(default_factory=dict)  # per class, per cost, intervals
    notes: list[str] = field(default_factory=list)
    created: str = field(default_factory=lambda: now())
    schema: int = SCHEMA

    @property
    def caveats(self) -> list[str]:
        """The notes that the figure is never quoted without."""
        notes = [*self.notes, *self.detail.get("data_notes", ())]  # the latter of a pre-training
        return [note for note in notes if any(words in note for words in CAVEATS)]

    def write(self, path: Path) -> None:
        """Write the record as JSON, atomically."""
        write_json(path, dataclasses.asdict(self))

    @staticmethod
    def read(path: Path) -> Result:
        """Read a record; raises UserError if the file is no result of this schema."""
        raw = read_json(path)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
            raise UserError(f"{path}: not a result of schema {SCHEMA} (found {found!r}).")
        try:
            raw["weights"] = WeightsId(**raw["weights"])
            raw["data"] = DataId(**raw["data"])
            return Result(**raw)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged result file ({error}). Run the evaluation again.") from error


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=True) + "\n")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, through a temporary neighbour and a rename.

    Bytes of a file's name that are no text are `?` in it.
    Raises OSError that names the file, a full disk say; the neighbour is then gone, and an older file as it was.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path):
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError:
        with suppress(OSError):  # a place that cannot be written may refuse this too
            part.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError name the file that it is about: that of a full disk names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def file_digest(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """A file's digest in hexadecimal; raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def require_writable(folder: Path, *, flag: str = "--out") -> None:
    """Try whether files can be written in a folder that is there or shall be made; nothing is left behind.

    Raises UserError that names the flag with which to name another place: before hours of work, not after them.
    """
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest):
        raise UserError(f"{folder}: {nearest} is no folder, so nothing can be written there. Give another {flag}.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: nothing can be written in {nearest} ({error.strerror}). Give another {flag}."
        ) from error


def require_writable_file(file: Path, *, flag: str = "--out") -> None:
    """The same for a file that is to be written; raises UserError as well where a folder has its name."""
    if file.is_dir():
        raise UserError(f"{flag} {file}: that is a folder. Name a file.")
    require_writable(file.parent, flag=flag)


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError that names the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order; a half-written last line (a killed run) is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "simsiam")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    from importlib import metadata
    from platform import python_version

    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree that was never installed
            found[package] = "not installed"
    return found
