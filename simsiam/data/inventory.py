"""What a reader found, what is used of it and what was left out, with the reason: for people and for result.json."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from simsiam.data.images import HEIC_SUFFIXES, RAW_SUFFIXES, VIDEO_SUFFIXES, is_image
from simsiam.wording import counted, plural

_SHOWN = 6  # kinds of files that one line names
_CURES = {
    HEIC_SUFFIXES: "`pip install pillow-heif` makes HEIC readable",
    RAW_SUFFIXES: "camera raw is not read: develop it to JPEG or TIFF",
    VIDEO_SUFFIXES: "`ffmpeg -i VIDEO -vf fps=1/2 %05d.jpg` makes a video's frames, one every 2 seconds",
}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One kind of thing that is not used."""

    what: str  # in the singular: "other file", "image"
    count: int
    reason: str  # what they are, or why; ends a sentence


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The account of one set of images."""

    found: int  # images
    used: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()  # how what was found is understood, where that may surprise

    def lines(self) -> list[str]:
        """Sentences for a person; none where everything was used and nothing is to be said."""
        if not self.left_out and not self.notes:
            return []
        whole = counted(self.used, "image") + (f" of {self.found:,}" if self.found != self.used else "") + " used"
        left = [f"left out: {counted(each.count, each.what)} ({each.reason})" for each in self.left_out]
        return ["; ".join((whole, *left)), *self.notes]

    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "left_out": [asdict(each) for each in self.left_out], "notes": list(self.notes)}


def beside(images: Iterable[Path], *, annotations: Collection[str] = ()) -> tuple[LeftOut, ...]:
    """What lies in the folders of a set's images and is not among them: other images, and files of no known use.

    Args:
        images: all that belong to the set, of every split.
        annotations: suffixes of files that are no images and have their use, in lower case.
    """
    known = {os.path.abspath(file) for file in images}
    more, others = 0, Counter[str]()
    for folder in sorted({os.path.dirname(file) for file in known}):
        for each in os.scandir(folder) if os.path.isdir(folder) else ():
            suffix = os.path.splitext(each.name)[1].lower()
            if each.name.startswith(".") or each.path in known or not each.is_file():
                continue
            if is_image(each.name):
                more += 1
            elif suffix not in annotations:
                others[suffix] += 1
    unnamed = LeftOut(what="image", count=more, reason="beside those of the set, and not named by its annotations")
    return (*((unnamed,) if more else ()), *other_files(others))


def folders(sets: Iterable[Any], named: Iterable[Path]) -> list[Path]:
    """The folders that a list's images lie in, and that they share: nothing is to be written there.

    Args:
        sets: of images, as far as they are files.
        named: the lists, annotations and folders that were named; a folder that one lies in is a place to work in.
    """
    work = {above for place in named for above in Path(os.path.abspath(place)).parents}
    found = {os.path.dirname(os.path.abspath(file)) for each in sets for file in getattr(each, "files", list)()}
    shared = {Path(os.path.commonpath(found))} if found else set()
    near = {each for each in shared if each.parent in work}
    return sorted(({Path(each) for each in found} | near) - work)


class Inventoried(Protocol):
    """A set of images that says what lay there."""

    name: str

    @property
    def inventory(self) -> Inventory:
        """Its account."""


def other_files(suffixes: Mapping[str, int], *, what: str = "other file") -> tuple[LeftOut, ...]:
    """What was left out, by suffix ("" for none), with the cure for iPhone photos, raw ones and videos."""
    total = sum(suffixes.values())
    if not total:
        return ()
    ranked = Counter(suffixes).most_common()
    kinds = [f"{count:,} x {suffix or 'no suffix'}" for suffix, count in ranked[:_SHOWN]]
    if len(ranked) > _SHOWN:
        rest = len(ranked) - _SHOWN
        kinds.append(f"{sum(count for _, count in ranked[_SHOWN:]):,} of {rest} other {plural(rest, 'kind')}")
    reason = ", ".join(kinds)
    for kind, cure in _CURES.items():
        if kind & suffixes.keys():
            reason += f"; {cure}"
    return (LeftOut(what=what, count=total, reason=reason),)


def sets_of(data: Any) -> dict[str, Any]:
    """A protocol's training and test set, or its one set, without what stands beside the images."""
    parts = {name: getattr(data, name) for name in ("train", "test") if hasattr(data, name)} or {"images": data}
    return {name: getattr(part, "source", part) for name, part in parts.items()}


def of(data: Any) -> dict[str, Inventory]:
    """The accounts of a protocol's data, of its training and test set or of its one set, where they give any."""
    sets = sets_of(data)
    found = {name: each.inventory for name, each in sets.items() if hasattr(each, "inventory")}
    if len(found) == 2 and found["train"] is found["test"]:  # a part of one set was held out
        return {"images": found["train"]}
    return found


def lines(sources: Iterable[Inventoried]) -> list[str]:
    """What a command says of the sets that it reads."""
    return [f"{source.name}: {line}" for source in sources for line in source.inventory.lines()]


def useless_labels(labels: np.ndarray | None) -> str | None:
    """Why no accuracy can be measured by the labels (N int64, -1: unknown), or None where it can.

    A figure means nothing where no class has a second image: the nearest neighbour is of another class always.
    """
    if labels is None:
        return "the images have no labels"
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    if len(counts) < 2:
        return "the labels name fewer than two classes"
    if counts.max() < 2:
        return (
            f"each class has a single image ({len(counts):,} in all): an accuracy by nearest neighbours could only be 0"
        )
    return None
