"""Images with a mask of classes each: the records that every layout of files is read into."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam.data import content
from simsiam.data.images import UnreadableImage, header, read_sized
from simsiam.data.inventory import Inventory, LeftOut
from simsiam.data.segmentation.transforms import IGNORE as IGNORE
from simsiam.data.source import Source

UNKNOWN = -1  # while decoding: a value or colour that no class has
LARGE = 1 << 16  # ids beyond it are looked up one by one, not in a table
MOST_CLASSES = 255  # ids 0 to 254 in 8 bits beside IGNORE

Colour = tuple[int, int, int]

logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its mask; either file may be missing, which the checks report."""

    name: str  # of the image within the set: what messages call it
    image: Path
    mask: Path


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What the values of mask files mean: stored number, or stored colour, to class id or IGNORE."""

    ids: dict[int, int]
    colours: dict[Colour, int] = field(default_factory=dict)

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Stored values (H x W, or H x W x 3 for a colour image) -> H x W int16: class id, IGNORE or UNKNOWN.

        A colour image that is grey throughout is read as numbers where no colours are defined.
        """
        if raw.ndim == 2:
            return self._numbers(raw)
        if not self.colours and (raw[..., :1] == raw).all():
            return self._numbers(raw[..., 0])
        codes = np.array([_code(colour) for colour in self.colours], np.int64)
        order = np.argsort(codes)
        classes = np.array(list(self.colours.values()), np.int16)
        values = raw.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # H x W
        if not len(codes):
            return np.full(values.shape, UNKNOWN, np.int16)
        place = order[np.searchsorted(codes, values, sorter=order).clip(max=len(codes) - 1)]
        return np.where(codes[place] == values, classes[place], np.int16(UNKNOWN))

    def _numbers(self, raw: np.ndarray) -> np.ndarray:
        top = max(self.ids, default=0) + 1
        if top > LARGE:
            found, places = np.unique(raw, return_inverse=True)
            return np.array([self.ids.get(value, UNKNOWN) for value in found.tolist()], np.int16)[places].reshape(
                raw.shape
            )
        table = np.full(top + 1, UNKNOWN, np.int16)
        for stored, meaning in self.ids.items():
            table[stored] = meaning
        values = raw.astype(np.int64)
        return table[np.where((values < 0) | (values > top), top, values)]


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


class MaskSource(Source):
    """A set of images, each with a mask of class ids.

    Args:
        pairs: the files, in the set's order.
        coding: what the masks' values mean.
        classes: names by class id.
        unmatched: files without a partner that the layout itself showed, as lines of a message.
        twins: files of one name, of which it is unclear which is meant, as such lines.
        left_out: what lay beside these files and is not used.
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        name: str,
        classes: tuple[str, ...],
        coding: Coding,
        unmatched: tuple[str, ...] = (),
        twins: tuple[str, ...] = (),
        left_out: tuple[LeftOut, ...] = (),
    ) -> None:
        self.pairs, self.name, self.classes, self.coding = list(pairs), name, classes, coding
        self.labels = None
        self.unmatched, self.twins = unmatched, twins
        images = sum(each.count for each in left_out if each.what == "image")
        self._inventory = Inventory(found=len(self.pairs) + images, used=len(self.pairs), left_out=left_out)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Image.Image:
        """One image as 8-bit RGB, upright, or as stored where its mask has that size; raises UnreadableImage."""
        pair = self.pairs[index]
        return read_sized(pair.image, name=pair.name, size=mask_size(pair.mask))

    def mask(self, index: int) -> np.ndarray:
        """One mask as H x W uint8 of class ids and IGNORE; raises UnreadableImage, for unknown values too."""
        file = self.pairs[index].mask
        ids = self.coding.decode(read_raw(file, self.coding.colours))
        if (ids == UNKNOWN).any():
            raise UnreadableImage(str(file), "values that no class has")
        return ids.astype(np.uint8)

    def path(self, index: int) -> str:
        """The image's name within the set."""
        return self.pairs[index].name

    def files(self) -> list[str]:
        """The images, without their masks."""
        return [str(pair.image) for pair in self.pairs]

    def digests(self) -> np.ndarray:
        """Digests of the images' files, N x 16 uint8."""
        return content.file_digests(self.files())

    def fingerprint(self) -> str:
        """sha256 over the content of all images and masks and over what the masks' values mean."""
        whole = hashlib.sha256(self.content().encode())
        whole.update(content.file_digests([str(pair.mask) for pair in self.pairs]).tobytes())
        whole.update(repr((self.classes, sorted(self.coding.ids.items()))).encode())
        whole.update(repr(sorted(self.coding.colours.items())).encode())
        return whole.hexdigest()

    def subset(self, indices: np.ndarray | Iterable[int]) -> MaskSource:
        """Some of the images, with their masks, in the order given."""
        chosen = [self.pairs[int(index)] for index in indices]
        part = copy.copy(self)
        part.pairs = chosen
        return part

    def without(self, rows: Container[int], account: Inventory) -> MaskSource:
        """The other images, under an account that says what was left out."""
        part = self.subset(row for row in range(len(self)) if row not in rows)
        part._inventory = account
        return part


@dataclass(frozen=True, kw_only=True)
class MaskSplits:
    """What is learnt from and what is scored; both have the same classes."""

    train: MaskSource
    test: MaskSource
    notes: tuple[str, ...] = ()  # what a reader of the results must know of how they were found
    skip_bad: bool = False  # leave out what is wrong, in place of stopping


def read_raw(file: Path, colours: Container[Colour] = ()) -> np.ndarray:
    """The values that a mask file stores: H x W integers, or H x W x 3 for a colour image.

    Palette images give their indices, or their colours where most of these are among `colours`, those of the classes:
    every program orders a palette in its own way. Raises UnreadableImage, for JPEG too: its compression alters ids.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's words on odd metadata; the pixels decide
        try:
            if file.suffix == ".mat":
                return _read_mat(file)
            with Image.open(file) as image:
                if image.format in ("JPEG", "MPO"):
                    raise UnreadableImage(str(file), "a JPEG: lossy compression alters class ids; save masks as PNG")
                image.load()
                if image.mode in ("RGB", "RGBA"):
                    return np.array(image)[..., :3]
                if image.mode == "P" and colours:
                    return _of_palette(image, colours)
                if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
                    return np.array(image).astype(np.int32)
                if image.mode in ("LA", "PA"):
                    return np.array(image)[..., 0].astype(np.int32)
                raise UnreadableImage(str(file), f"image mode {image.mode}; masks are palette, grey or RGB images")
        except UnreadableImage:
            raise
        except Exception as error:  # decoders raise many kinds on damaged input
            known = isinstance(error, FileNotFoundError)
            reason = "no such file" if known else f"no readable mask ({type(error).__name__}: {error})"
            raise UnreadableImage(str(file), " ".join(reason.split())[:200]) from error


def mask_size(file: Path) -> tuple[int, int]:
    """Width and height of a mask by its header; 0 and 0 where it has none."""
    try:
        return header(file).stored
    except Exception:  # decoders raise many kinds on damaged input, which reading the mask reports
        return 0, 0


def palette_of(file: Path, indices: np.ndarray) -> dict[int, Colour]:
    """The colours that a palette image has at some indices; empty for other images."""
    with Image.open(file) as image:
        levels = image.getpalette("RGB") if image.mode == "P" else None
    table = list(zip(*[iter(levels or ())] * 3, strict=True))
    return {int(index): table[index] for index in np.unique(indices) if 0 <= index < len(table)}


def _of_palette(image: Image.Image, colours: Container[Colour]) -> np.ndarray:
    """The pixels' colours, where the palette has those of the classes, else their indices."""
    indices = np.array(image).astype(np.int32)
    table = np.zeros((256, 3), np.uint8)
    known = np.array(image.getpalette("RGB") or (), np.uint8).reshape(-1, 3)
    table[: len(known)] = known
    used = [tuple(colour) for colour in table[np.unique(indices)].tolist()]
    return table[indices] if 2 * sum(each in colours for each in used) > len(used) else indices


def _read_mat(file: Path) -> np.ndarray:
    """The class mask of an SBD file (Hariharan et al. 2011): GTcls.Segmentation."""
    import scipy.io

    matlab: Any = scipy.io  # its stubs leave loadmat untyped
    content = matlab.loadmat(file, squeeze_me=True, struct_as_record=False, variable_names=["GTcls"])
    if "GTcls" not in content:
        raise UnreadableImage(str(file), "no GTcls in it: not a class mask of SBD (its inst folder holds instances)")
    return np.asarray(content["GTcls"].Segmentation).astype(np.int32)
