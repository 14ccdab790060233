"""The door to every kind of image set: `open_source` by kind, and the classes behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from simsiam.config import cache_folder
from simsiam.data.folders import FolderSource, ListSource, imagenet_source
from simsiam.data.source import UNKNOWN, ArraySource, FileSource, HeldOut, Source, Subset, split_held_out
from simsiam.errors import UserError

__all__ = [
    "KINDS",
    "UNKNOWN",
    "ArraySource",
    "FileSource",
    "FolderSource",
    "HeldOut",
    "ListSource",
    "Source",
    "Subset",
    "imagenet_source",
    "kind_of",
    "open_source",
    "split_held_out",
]

KINDS = ("folder", "list", "imagenet", "cifar10", "shards", "demo")


def open_source(data: str | Path, *, kind: str, split: str = "train", cache: Path | None = None) -> Source:
    """The images at `data`, read as `kind` says; `split` counts where the set has one (imagenet, cifar10, demo).

    For cifar10 an empty `data` means: no local copy, fetch it. Raises UserError if nothing usable is there.
    """
    where = cache_folder(cache)
    match kind:
        case "folder":
            return FolderSource(data)
        case "list":
            return ListSource(data)
        case "imagenet":
            return imagenet_source(data, split)
        case "shards":
            from simsiam.data.shards import ShardSource

            return ShardSource(data, cache=where)
        case "cifar10":
            from simsiam.data.classification.cifar import cifar10

            return cifar10(Path(data) if str(data) not in ("", "cifar10") else None, cache=where, split=split)
        case "demo":
            from simsiam.data.classification.cifar import demo_sources

            demo = demo_sources(where)
            return demo.train if split == "train" else demo.test
    raise UserError(f"data kind {kind!r} is not known. Use one of: {', '.join(KINDS)}.")


def kind_of(data: str) -> Literal["folder", "list", "shards"]:
    """Folder, list or shards, by what lies there."""
    path = Path(data)
    if path.suffix == ".tar" or "{" in data or "*" in data:
        return "shards"
    if path.is_file():
        return "list"
    if path.is_dir() and any(path.glob("*.tar")):
        return "shards"
    return "folder"
