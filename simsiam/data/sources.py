"""The door to every kind of image set: `open_source` by kind, and the classes behind it."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from simsiam.config import cache_folder
from simsiam.data import content
from simsiam.data.classification import csv_table
from simsiam.data.folders import FolderSource, ListSource, imagenet_source
from simsiam.data.images import is_image
from simsiam.data.source import UNKNOWN, ArraySource, FileSource, Source, Subset
from simsiam.data.splits import HeldOut, split_held_out
from simsiam.errors import UserError
from simsiam.sniff import sniff

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
    """Folder (or an archive or table that stands for one), list or shards, by what lies there.

    A folder of tars is one of shards unless as many images lie in it: then the tars are strays among photos.
    """
    path = Path(data)
    if path.is_dir():
        tars = len(list(path.glob("*.tar")))
        return "shards" if tars and _images_in(path, enough=tars) < tars else "folder"
    if path.suffix == ".tar" or (not path.exists() and ("{" in str(data) or "*" in str(data))):
        return "shards"
    if not path.is_file():
        return "folder"
    kind = sniff(path)
    return "folder" if kind is not None and (kind.family == "archive" or kind.name == "parquet") else "list"


def open_source(data: str | Path, *, kind: str, split: str = "train", cache: Path | None = None) -> Source:
    """The images at `data`, read as `kind` says.

    `split` (train or test) counts where the set has one: imagenet, cifar10, demo, and a folder of train/ and val/ or
    test/, of which "all" gives every image.

    For cifar10 an empty `data` means: no local copy, fetch it. Raises UserError if nothing usable is there.
    """
    where = cache_folder(cache)
    match kind:
        case "folder":
            from simsiam.data.classification.datasets import images_of

            found = images_of(Path(data), every=split == "all", cache=where)
            if found is not None:
                return found
            return FolderSource(data, split="test" if split == "test" else "all" if split == "all" else "train")
        case "list":
            if Path(data).suffix.lower() in csv_table.SUFFIXES:
                from simsiam.data.classification.labels import listed_source

                return listed_source(Path(data))
            return ListSource(data)
        case "imagenet":
            from simsiam.data.classification.layouts import kaggle_imagenet

            kaggle = kaggle_imagenet(Path(data), where)
            return kaggle.part("train" if split == "train" else "test") if kaggle else imagenet_source(data, split)
        case "shards":
            from simsiam.data.shards import ShardSource

            return ShardSource(data, cache=where)
        case "cifar10":
            from simsiam.data.classification.torchvision_sets import known_set

            local = Path(data) if str(data) not in ("", "cifar10") else None
            return known_set("cifar10", local, cache=where, split=split)
        case "demo":
            from simsiam.data.classification.torchvision_sets import demo_sources

            demo = demo_sources(where)
            return demo.train if split == "train" else demo.test
    raise UserError(f"data kind {kind!r} is not known. Use one of: {', '.join(KINDS)}.")


class DatasetSource(Source):
    """The images of a torch data set, or of any sequence of PIL images or of (image, label) pairs.

    The transform of a torchvision data set is left out, also behind a torch `Subset`. Labels are its `targets`.
    """

    def __init__(self, dataset: Any) -> None:
        indices = np.arange(len(dataset))
        while hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # a Subset, of a Subset maybe
            indices, dataset = np.asarray(dataset.indices)[indices], dataset.dataset
        self._indices = indices
        self.name = type(dataset).__name__
        self.classes = None
        targets = getattr(dataset, "targets", None)
        self.labels = None if targets is None else np.asarray(targets, np.int64)[indices]
        self._digests: np.ndarray | None = None
        self._items = copy.copy(dataset)
        for name in ("transform", "transforms", "target_transform"):
            if hasattr(self._items, name):
                setattr(self._items, name, None)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UserError where the item holds none."""
        item = self._items[int(self._indices[index])]
        image = item[0] if isinstance(item, tuple | list) else item
        if not isinstance(image, Image.Image):
            raise UserError(
                f"{self.name}: item {index} is {type(image).__name__}; expected a PIL image, or (image, label)."
            )
        return image.convert("RGB")

    def path(self, index: int) -> str:
        """The set's name and the image's number."""
        return f"{self.name}/{int(self._indices[index]):06d}"

    def digests(self) -> np.ndarray:
        """Digests of the images' pixels, N x 16 uint8; every image is decoded for them, once."""
        if self._digests is None:
            self._digests = content.as_array(content.digest(self.read(at).tobytes()) for at in range(len(self)))
        return self._digests


def as_source(images: Any) -> Source:
    """Whatever holds images as a source: one of ours, a folder or list, N x H x W x 3 uint8, a torch data set.

    Raises UserError where nothing usable is there.
    """
    if isinstance(images, Source):
        return images
    if isinstance(images, np.ndarray):
        return ArraySource(images, name="array")
    if hasattr(images, "__getitem__") and not isinstance(images, str):
        return DatasetSource(images)
    return open_source(images, kind=kind_of(images), split="all")


def _images_in(folder: Path, *, enough: int) -> int:
    """The images below a folder, counted no further than `enough`."""
    found = 0
    for _, _, names in os.walk(folder):
        found += sum(map(is_image, names))
        if found >= enough:
            break
    return found
