"""Masks of single objects, kept as polygons or run lengths until they are needed as pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simsiam.wording import counted

MOST_PIXELS = 1 << 28  # of a mask that is drawn pixel by pixel


@dataclass(frozen=True, kw_only=True)
class Rle:
    """One mask as COCO's compressed run lengths, column by column."""

    height: int
    width: int
    counts: bytes

    def as_coco(self) -> dict[str, Any]:
        """As the COCO tools take it."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def extent(self) -> tuple[float, float, float, float] | None:
        """The box around the pixels, x1 y1 x2 y2; None without any. Raises ValueError for damaged run lengths."""
        from faster_coco_eval.core import mask

        x, y, width, height = np.asarray(mask.toBbox([self.as_coco()]), np.float64).reshape(-1)[:4].tolist()
        return (x, y, x + width, y + height) if width and height else None

    def decode(self) -> np.ndarray:
        """H x W bool."""
        from faster_coco_eval.core import mask

        return np.asarray(mask.decode(self.as_coco()), bool)

    def resized(self, *, height: int, width: int) -> Rle:
        """The mask of the resized image, by the pixel whose centre is nearest."""
        if (height, width) == (self.height, self.width):
            return self
        rows = ((np.arange(height) + 0.5) * (self.height / height)).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * (self.width / width)).astype(np.int64)
        return encode(self.decode()[rows[:, None], columns][None])[0]


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """One mask as the union of polygons, each of K x 2 float64 points (x, y)."""

    parts: tuple[np.ndarray, ...]

    def encode(self, *, height: int, width: int) -> Rle:
        """The pixels within any of the polygons, as the COCO tools fill them; fewer than 3 points have none."""
        from faster_coco_eval.core import mask

        parts = [part.reshape(-1).tolist() for part in self.parts if len(part) >= 3]
        if not parts:
            return encode(np.zeros((1, height, width), bool))[0]
        filled: Any = mask.frPyObjects(parts, height, width)
        return Rle(height=height, width=width, counts=_bytes(mask.merge(filled)["counts"]))


@dataclass(frozen=True, kw_only=True)
class InstanceMasks:
    """The masks of N objects of an image of `height` x `width` pixels."""

    height: int
    width: int
    shapes: tuple[Polygons | Rle, ...]

    def __len__(self) -> int:
        return len(self.shapes)

    def select(self, rows: Tensor) -> InstanceMasks:
        """Some of them, by a mask or by numbers."""
        numbers = torch.arange(len(self.shapes))[rows].tolist()
        return InstanceMasks(
            height=self.height, width=self.width, shapes=tuple(self.shapes[number] for number in numbers)
        )

    def resized(self, *, height: int, width: int) -> InstanceMasks:
        """The masks of the resized image: corners move, run lengths take the nearest pixel."""
        factors = np.array([width / self.width, height / self.height])
        shapes = tuple(
            shape.resized(height=height, width=width)
            if isinstance(shape, Rle)
            else Polygons(parts=tuple(part * factors for part in shape.parts))
            for shape in self.shapes
        )
        return InstanceMasks(height=height, width=width, shapes=shapes)

    def encode(self) -> tuple[Rle, ...]:
        """All as run lengths."""
        return tuple(
            shape if isinstance(shape, Rle) else shape.encode(height=self.height, width=self.width)
            for shape in self.shapes
        )

    def decode(self) -> Tensor:
        """N x H x W bool."""
        if not self.shapes:
            return torch.zeros(0, self.height, self.width, dtype=torch.bool)
        return torch.from_numpy(np.stack([rle.decode() for rle in self.encode()]))


def from_coco(found: Any, *, height: int, width: int) -> Polygons | Rle | None:
    """A segmentation of an image in any of COCO's three forms; None where there is none, or none with an inside.

    Raises ValueError where it is of none of these forms or damaged.
    """
    if not found:
        return None
    if isinstance(found, list):
        if not isinstance(found[0], list) or (len(found) > 2 and all(len(each) == 2 for each in found)):
            found = [found]  # one polygon, as its numbers or its corners
        flat = [np.array(part, np.float64).reshape(-1) for part in found]
        for part in flat:
            if len(part) % 2:
                raise ValueError(f"a polygon of {counted(len(part), 'number')}; it takes pairs, x and y of each corner")
        parts = [part.reshape(-1, 2) for part in flat if len(part) >= 6]
        return Polygons(parts=tuple(parts)) if parts else None
    height, width = (int(side) for side in found.get("size") or (height, width))
    counts = found["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise ValueError(f"run lengths add up to {counted(sum(counts), 'pixel')}, not {height} x {width}")
        return from_runs(counts, height=height, width=width)
    packed = Rle(height=height, width=width, counts=counts.encode("ascii"))
    pixels_of(packed, height=height, width=width)  # raises ValueError for damaged run lengths
    return packed


def pixels_of(shape: Polygons | Rle, *, height: int, width: int) -> np.ndarray:
    """The mask in an image of this size, or of its own, H x W bool; raises ValueError for one too large to draw."""
    if isinstance(shape, Rle):
        height, width = shape.height, shape.width
    if not 0 < height * width <= MOST_PIXELS:
        raise ValueError(f"a mask of {width} x {height} pixels")
    rle = shape if isinstance(shape, Rle) else shape.encode(height=height, width=width)
    return rle.decode()


def from_runs(runs: Sequence[int], *, height: int, width: int) -> Rle:
    """COCO's uncompressed run lengths: pixels off, on, off and so on, column by column."""
    from faster_coco_eval.core import mask

    packed: Any = mask.frPyObjects({"size": [height, width], "counts": [int(run) for run in runs]}, height, width)
    return Rle(height=height, width=width, counts=_bytes(packed["counts"]))


def encode(masks: np.ndarray | Tensor) -> tuple[Rle, ...]:
    """N x H x W bool -> N run-length masks."""
    from faster_coco_eval.core import mask

    pixels = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
    count, height, width = pixels.shape
    if count == 0:
        return ()
    packed = mask.encode(np.asfortranarray(pixels.transpose(1, 2, 0).astype(np.uint8)))
    return tuple(Rle(height=height, width=width, counts=_bytes(each["counts"])) for each in packed)


def _bytes(counts: bytes | str) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts
