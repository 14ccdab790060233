"""The door to every kind of image set: `open_source` by kind, and the classes behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from simsiam.config import cache_folder
from simsiam.data.folders import FolderSource, ListSource, imagenet_source
from simsiam.data.images import is_image
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


def kind_of(data: str | Path) -> Literal["folder", "list", "shards"]:
    """Folder, list or shards, by what lies there.

    A folder of tars is one of shards unless as many images lie in it: then the tars are strays among photos.
    """
    path = Path(data)
    if path.is_dir():
        tars = len(list(path.glob("*.tar")))
        return "shards" if tars and _images_in(path, enough=tars) < tars else "folder"
    if path.suffix == ".tar" or (not path.exists() and ("{" in str(data) or "*" in str(data))):
        return "shards"
    return "list" if path.is_file() else "folder"


def open_source(data: str | Path, *, kind: str, split: str = "train", cache: Path | None = None) -> Source:
    """The images at `data`, read as `kind` says.

    `split` (train or test) counts where the set has one: imagenet, cifar10, demo, and a folder of train/ and val/ or
    test/, of which "all" gives every image.

    For cifar10 an empty `data` means: no local copy, fetch it. Raises UserError if nothing usable is there.
    """
    where = cache_folder(cache)
    match kind:
        case "folder":
            return FolderSource(data, split="test" if split == "test" else "all" if split == "all" else "train")
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


def _images_in(folder: Path, *, enough: int) -> int:
    """The images below a folder, counted no further than `enough`."""
    found = 0
    for _, _, names in os.walk(folder):
        found += sum(map(is_image, names))
        if found >= enough:
            break
    return found
