"""A set of image files whose annotations are held in flat arrays, and what was wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from simsiam.data import content
from simsiam.data.detection.boxes import BoxImage, BoxSource, Target
from simsiam.data.detection.instance_masks import InstanceMasks, Polygons, Rle
from simsiam.data.inventory import Inventory, LeftOut

Kind = Literal[
    "missing image",
    "image listed twice",
    "damaged image",
    "image without annotation",
    "annotation without image",
    "unreadable annotation",
    "image of another size",
    "unknown class",
    "empty box",
    "box in fractions",
    "box outside the image",
    "box wholly outside",
    "mask of another size",
    "object without mask",
    "mask far from its box",
]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a set."""

    kind: Kind
    where: str  # file, and object where it is about one
    what: str  # what was found


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The M objects of a whole set, those of one image next to each other."""

    boxes: np.ndarray  # M x 4 float32, x1 y1 x2 y2
    labels: np.ndarray  # M int64, 1..C
    difficult: np.ndarray  # M bool
    crowd: np.ndarray  # M bool
    area: np.ndarray  # M float32
    names: tuple[str, ...] | None  # M, what a message calls an object; None: by its number on the image

    def select(self, rows: np.ndarray) -> Objects:
        """Some of them, by numbers."""
        return Objects(
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            difficult=self.difficult[rows],
            crowd=self.crowd[rows],
            area=self.area[rows],
            names=None if self.names is None else tuple(self.names[row] for row in rows.tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The masks of M objects in a few large arrays, which a worker process shares instead of copying."""

    points: np.ndarray  # P x 2 float64, of all polygons
    part_ends: np.ndarray  # where each polygon ends in `points`
    ends: np.ndarray  # M, where each object's polygons end in `part_ends`
    rles: dict[int, Rle]  # of the objects that are run lengths instead

    @staticmethod
    def of(shapes: Sequence[Polygons | Rle]) -> Shapes:
        """Packed."""
        parts = [part for shape in shapes if isinstance(shape, Polygons) for part in shape.parts]
        counts = [len(shape.parts) if isinstance(shape, Polygons) else 0 for shape in shapes]
        return Shapes(
            points=np.concatenate(parts) if parts else np.empty((0, 2)),
            part_ends=np.cumsum([len(part) for part in parts], dtype=np.int64),
            ends=np.cumsum(counts, dtype=np.int64),
            rles={row: shape for row, shape in enumerate(shapes) if isinstance(shape, Rle)},
        )

    @property
    def missing(self) -> np.ndarray:
        """M bool: the objects without a mask."""
        empty: np.ndarray = np.diff(self.ends, prepend=0) == 0
        empty[list(self.rles)] = False
        return empty

    @property
    def extents(self) -> np.ndarray:
        """M x 4 float64: the box around each object's mask, x1 y1 x2 y2; nan where there is none."""
        found = np.full((len(self.ends), 4), np.nan)
        drawn = np.flatnonzero(np.diff(self.ends, prepend=0))
        if len(drawn):
            corners = np.concatenate([[0], self.part_ends])[np.concatenate([[0], self.ends])]  # in `points`
            starts = corners[:-1][drawn]
            found[drawn, :2] = np.minimum.reduceat(self.points, starts)
            found[drawn, 2:] = np.maximum.reduceat(self.points, starts)
        for row, rle in self.rles.items():
            found[row] = np.nan if (extent := rle.extent) is None else extent
        return found

    def __getitem__(self, row: int) -> Polygons | Rle:
        if row in self.rles:
            return self.rles[row]
        first = int(self.ends[row - 1]) if row else 0
        starts = [int(self.part_ends[part - 1]) if part else 0 for part in range(first, int(self.ends[row]))]
        stops = self.part_ends[first : int(self.ends[row])].tolist()
        return Polygons(parts=tuple(self.points[start:stop] for start, stop in zip(starts, stops, strict=True)))

    def select(self, rows: np.ndarray) -> Shapes:
        """Some of them, by numbers."""
        parts = _ranges(self.ends, rows)
        return Shapes(
            points=self.points[_ranges(self.part_ends, parts)],
            part_ends=np.cumsum(np.diff(self.part_ends, prepend=0)[parts], dtype=np.int64),
            ends=np.cumsum(np.diff(self.ends, prepend=0)[rows], dtype=np.int64),
            rles={new: self.rles[old] for new, old in enumerate(rows.tolist()) if old in self.rles},
        )


def _ranges(ends: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The numbers of everything that belongs to the rows, where each row's share ends at `ends`."""
    counts = np.diff(ends, prepend=0)[rows]
    before = np.cumsum(counts) - counts
    numbers: np.ndarray = np.repeat(ends[rows] - counts - before, counts) + np.arange(counts.sum())
    return numbers


class BoxFiles(BoxSource):
    """Image files with their annotations.

    Args:
        images: of the set, in order.
        counts: objects on each image.
        objects: of all images, in the images' order.
        shapes: their masks; None where the set has none.
        problems: what was found wrong while reading; `checks.checked` adds to it and decides.
        notes: what a reader of the results must know of how the set was read.
        place: folder or file that messages name.
        inventory: the account of a set that was checked; None: all is used.
    """

    def __init__(
        self,
        *,
        name: str,
        place: str,
        classes: tuple[str, ...],
        images: Sequence[BoxImage],
        counts: np.ndarray,
        objects: Objects,
        shapes: Shapes | None,
        problems: Sequence[Problem],
        notes: Sequence[str] = (),
        inventory: Inventory | None = None,
    ) -> None:
        self.name, self.place, self.classes = name, place, classes
        self.images, self.objects, self.shapes = tuple(images), objects, shapes
        self.problems, self.notes = tuple(problems), tuple(notes)
        self.has_masks = shapes is not None
        self._inventory = inventory
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def inventory(self) -> Inventory:
        """The account that the checks gave."""
        return self._inventory or super().inventory

    def leave_out(self, more: Sequence[LeftOut]) -> None:
        """Add to the account what lay beside the set."""
        known = self.inventory
        images = sum(each.count for each in more if each.what == "image")
        self._inventory = replace(known, found=known.found + images, left_out=(*known.left_out, *more))

    def rows(self, index: int) -> slice:
        """Where an image's objects lie in `objects`."""
        return slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))

    @property
    def owners(self) -> np.ndarray:
        """M int64: the image that each object lies on."""
        owners: np.ndarray = np.searchsorted(self._ends, np.arange(len(self.objects.labels)), side="right")
        return owners

    def image(self, index: int) -> BoxImage:
        """One image's record."""
        return self.images[index]

    def target(self, index: int) -> Target:
        """One image's objects."""
        rows, image = self.rows(index), self.images[index]
        masks = None
        if self.shapes is not None:
            shapes = tuple(self.shapes[row] for row in range(rows.start, rows.stop))
            masks = InstanceMasks(height=image.height, width=image.width, shapes=shapes)
        return Target(
            boxes=torch.from_numpy(self.objects.boxes[rows].copy()),
            labels=torch.from_numpy(self.objects.labels[rows].copy()),
            difficult=torch.from_numpy(self.objects.difficult[rows].copy()),
            crowd=torch.from_numpy(self.objects.crowd[rows].copy()),
            area=torch.from_numpy(self.objects.area[rows].copy()),
            masks=masks,
        )

    def digests(self) -> np.ndarray:
        """Digests of the images' files, N x 16 uint8."""
        return content.file_digests(self.files())

    def fingerprint(self) -> str:
        """sha256 over the images' content, class names and annotations."""
        digest = hashlib.sha256("\0".join(self.classes).encode("utf-8", "surrogateescape"))
        digest.update(self.digests().tobytes())
        arrays = [self._ends, *(getattr(self.objects, key) for key in ("boxes", "labels", "difficult", "crowd"))]
        if self.shapes is not None:
            arrays += [self.shapes.points, self.shapes.part_ends, self.shapes.ends]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        for row, rle in sorted(self.shapes.rles.items()) if self.shapes is not None else ():
            digest.update(f"{row}:".encode() + rle.counts)
        return digest.hexdigest()

    def replaced(
        self,
        *,
        images: Sequence[BoxImage],
        kept_images: np.ndarray,
        objects: Objects,
        kept_objects: np.ndarray,
        problems: Sequence[Problem],
        inventory: Inventory | None = None,
    ) -> BoxFiles:
        """The set with other records, problems and account, and without some images (N bool) and objects (M bool)."""
        kept = kept_objects & kept_images[self.owners]
        rows = np.flatnonzero(kept)
        counts = np.bincount(self.owners[rows], minlength=len(self.images))[kept_images]
        return BoxFiles(
            name=self.name,
            place=self.place,
            classes=self.classes,
            images=[image for image, keep in zip(images, kept_images.tolist(), strict=True) if keep],
            counts=counts,
            objects=objects.select(rows),
            shapes=None if self.shapes is None else (self.shapes if kept.all() else self.shapes.select(rows)),
            problems=problems,
            notes=self.notes,
            inventory=inventory,
        )


def joined(name: str, sets: Sequence[BoxFiles]) -> BoxFiles:
    """Several sets without masks, of the same classes, as one, in the order given."""
    assert all(one.classes == sets[0].classes and one.shapes is None for one in sets)
    parts = [one.objects for one in sets]
    names = [name for one in parts for name in one.names or ()]
    return BoxFiles(
        name=name,
        place=sets[0].place,
        classes=sets[0].classes,
        images=[image for one in sets for image in one.images],
        counts=np.concatenate([np.diff(one._ends, prepend=0) for one in sets]),
        objects=replace(
            parts[0],
            boxes=np.concatenate([one.boxes for one in parts]),
            labels=np.concatenate([one.labels for one in parts]),
            difficult=np.concatenate([one.difficult for one in parts]),
            crowd=np.concatenate([one.crowd for one in parts]),
            area=np.concatenate([one.area for one in parts]),
            names=tuple(names) if names else None,
        ),
        shapes=None,
        problems=[problem for one in sets for problem in one.problems],
        notes=[note for one in sets for note in one.notes],
    )
