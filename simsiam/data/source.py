"""What a set of images is to the rest of the package: an indexed source of RGB pictures, with or without labels."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.images import read_image
from simsiam.data.inventory import Inventory
from simsiam.data.photos import KeptPhotos
from simsiam.wording import counted

UNKNOWN = -1  # the label of an image whose class nobody has said


class Source(ABC):
    """An indexed set of images.

    `labels` is N int64 (-1: unknown) or None; `pixels` is N x H x W x 3 uint8 where the set lives decoded in memory.
    """

    name: str
    classes: tuple[str, ...] | None
    labels: np.ndarray | None
    short_side: int | None = None  # pixels that suffice of an image, see `at_scale`
    photos: KeptPhotos | None = None  # where large ones are kept decoded, see `kept_in`
    published: bool = False  # one that published figures are of: evaluations decode its images at full size
    _inventory: Inventory | None = None
    _pixels: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray | None:
        """All images decoded, N x H x W x 3 uint8, or None where they are read one by one."""
        return self._pixels

    @property
    def inventory(self) -> Inventory:
        """What was found, what is used and what was left out."""
        return self._inventory or Inventory(found=len(self), used=len(self))

    def note(self, *sentences: str) -> None:
        """Put sentences on how the set was understood before those of its account."""
        self._inventory = replace(self.inventory, notes=(*sentences, *self.inventory.notes))

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UnreadableImage."""

    @abstractmethod
    def path(self, index: int) -> str:
        """The image's lasting name, relative to the set: what skipped.csv and the held-out split go by."""

    def files(self) -> list[str]:
        """The file of every image; none where they lie in memory or in archives."""
        return []

    def paths(self) -> list[str]:
        """The names of all images, in order."""
        return [self.path(index) for index in range(len(self))]

    @abstractmethod
    def digests(self) -> np.ndarray:
        """A digest of every image's content, N x 16 uint8: of its file's bytes, or of the pixels of a set in memory."""

    def content(self) -> str:
        """sha256 over the images' content, in order: what features depend on."""
        return hashlib.sha256(np.ascontiguousarray(self.digests()).tobytes()).hexdigest()

    def stamp(self) -> str:
        """What stands for the content where nothing may be read: it changes with a file's name, size or time."""
        return self.content()

    def fingerprint(self) -> str:
        """sha256 over the images' content and their classes by name: what a result depends on.

        The same on every machine: file names, places and times do not count.
        """
        return self._with_classes(self.content())

    def stamped(self) -> str:
        """The same by the stamp: cheap, but of this machine."""
        return self._with_classes(self.stamp())

    def _with_classes(self, images: str) -> str:
        whole = hashlib.sha256(images.encode())
        if self.labels is not None:
            used, codes = np.unique(self.labels, return_inverse=True)
            whole.update(repr([self.class_name(int(label)) for label in used]).encode("utf-8", "surrogateescape"))
            whole.update(codes.astype(np.int64).tobytes())
        return whole.hexdigest()

    def class_name(self, label: int) -> str | None:
        """The name of a class, its number where it has none, or None where the label is unknown."""
        if label < 0:
            return None
        return self.classes[label] if self.classes is not None and label < len(self.classes) else str(label)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """The epoch's permutation of all indices, a pure function of its arguments."""
        return np.random.default_rng([seed, epoch, 1]).permutation(len(self))

    def subset(self, indices: np.ndarray | Iterable[int]) -> Source:
        """A view of some images, in the order given."""
        return Subset(self, np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices, np.int64))

    def at_scale(self, short_side: int) -> Source:
        """The same set, with larger JPEG files decoded at a lower scale that still has `short_side` pixels."""
        scaled = copy.copy(self)
        scaled.short_side = short_side
        return scaled

    def kept_in(self, photos: KeptPhotos | None) -> Source:
        """The same set, its large files decoded once where `at_scale` lets them; None: every time."""
        kept = copy.copy(self)
        kept.photos = photos
        return kept


class Subset(Source):
    """Some images of another source."""

    def __init__(self, base: Source, indices: np.ndarray) -> None:
        self.base: Source = base.base if isinstance(base, Subset) else base
        self.indices: np.ndarray = base.indices[indices] if isinstance(base, Subset) else indices
        self.name = base.name
        self.classes = base.classes
        self.published, self.photos = base.published, base.photos
        self.labels = None if base.labels is None else base.labels[indices]

    @property
    def pixels(self) -> np.ndarray | None:
        """The chosen images decoded, copied out of the base set once."""
        if self._pixels is None and self.base.pixels is not None:
            self._pixels = self.base.pixels[self.indices]
        return self._pixels

    @property
    def inventory(self) -> Inventory:
        """That of the base set."""
        return self.base.inventory

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB; raises UnreadableImage."""
        return self.base.read(int(self.indices[index]))

    def at_scale(self, short_side: int) -> Source:
        """The same choice from the base set at that scale."""
        scaled = copy.copy(self)
        scaled.base = self.base.at_scale(short_side)
        return scaled

    def kept_in(self, photos: KeptPhotos | None) -> Source:
        """The same choice from the base set, kept there."""
        kept = copy.copy(self)
        kept.base, kept.photos = self.base.kept_in(photos), photos
        return kept

    def path(self, index: int) -> str:
        """The name that the base set gives it."""
        return self.base.path(int(self.indices[index]))

    def files(self) -> list[str]:
        """Those of the chosen images."""
        files = self.base.files()
        return [files[index] for index in self.indices.tolist()] if files else []

    def digests(self) -> np.ndarray:
        """Those of the chosen images, N x 16 uint8."""
        chosen: np.ndarray = self.base.digests()[self.indices]
        return chosen

    def stamp(self) -> str:
        """That of the base set, with the choice."""
        return hashlib.sha256(self.base.stamp().encode() + self.indices.tobytes()).hexdigest()

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """The base set's order without the images left out, so that shards are still read in sequence."""
        if len(np.unique(self.indices)) != len(self.indices):  # an image named twice has no place of its own there
            return super().order(seed=seed, epoch=epoch)
        place = np.full(len(self.base), -1, np.int64)
        place[self.indices] = np.arange(len(self.indices))
        order: np.ndarray = place[self.base.order(seed=seed, epoch=epoch)]
        return order[order >= 0]


class ArraySource(Source):
    """Images that live decoded in memory (N x H x W x 3 uint8)."""

    _pixels: np.ndarray

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray | None = None, *, name: str, classes: tuple[str, ...] | None = None
    ) -> None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"{name}: pixels must be N x H x W x 3 uint8, not {pixels.dtype} {pixels.shape}")
        if labels is not None and len(labels) != len(pixels):
            raise ValueError(f"{name}: {counted(len(pixels), 'image')} but {counted(len(labels), 'label')}")
        self.name = name
        self.classes = classes
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self._pixels = pixels
        self._digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, index: int) -> Image.Image:
        """One image as PIL RGB."""
        return Image.fromarray(np.asarray(self._pixels[index]))

    def path(self, index: int) -> str:
        """The set's name and the image's number."""
        return f"{self.name}/{index:06d}"

    def digests(self) -> np.ndarray:
        """Digests of the images' shape and pixels, N x 16 uint8; the pixels of a source are not to be changed."""
        if self._digests is None:
            shape = repr(self._pixels.shape[1:]).encode()
            self._digests = content.as_array(content.digest(shape + pixels.tobytes()) for pixels in self._pixels)
        return self._digests


class FileSource(Source):
    """Image files under one root, with names held in one block of bytes (a million paths cost a worker little)."""

    def __init__(
        self,
        root: Path,
        names: list[str],
        labels: np.ndarray | None,
        *,
        name: str,
        classes: tuple[str, ...] | None,
        inventory: Inventory | None = None,
    ) -> None:
        self._inventory = inventory
        self.root = root
        self.name = name
        self.classes = classes
        self.labels = labels
        encoded = [each.encode("utf-8", "surrogatepass") for each in names]
        self._ends = np.cumsum([len(each) for each in encoded], dtype=np.int64)
        self._block = b"".join(encoded)
        self._stamp: str | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> Image.Image:
        """One file as 8-bit RGB; raises UnreadableImage."""
        name = self.path(index)
        if self.photos is not None and self.short_side is not None and self.short_side <= self.photos.side:
            return self.photos.read(self.root / name, name=name)
        return read_image(self.root / name, name=name, short_side=self.short_side)

    def path(self, index: int) -> str:
        """The file's path relative to the root (or absolute, where a list names it so)."""
        start = int(self._ends[index - 1]) if index > 0 else 0
        return self._block[start : int(self._ends[index])].decode("utf-8", "surrogatepass")

    def files(self) -> list[str]:
        """Below the root, or where a list names them."""
        root = os.path.join(self.root, "")
        return [name if os.path.isabs(name) else root + name for name in self.paths()]

    def paths(self) -> list[str]:
        """The names of all files, cut out of the block at once where a character is a byte."""
        if not self._block.isascii():
            return super().paths()
        text, ends = self._block.decode("ascii"), self._ends.tolist()
        return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def digests(self) -> np.ndarray:
        """Digests of the files' bytes, N x 16 uint8: read once, then known by the files' sizes and times."""
        return content.file_digests(self.files())

    def stamp(self) -> str:
        """By the files' names, sizes and times, as they were when it was first asked for."""
        if self._stamp is None:
            self._stamp = content.stamp(self.files(), self.paths())
        return self._stamp
