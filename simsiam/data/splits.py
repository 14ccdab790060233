"""A training and a test set together, and the identity of the data that a figure belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from simsiam.errors import UserError
from simsiam.results import REMEMBERED, DataId
from simsiam.wording import counted, plural, some

if TYPE_CHECKING:
    import numpy as np

    from simsiam.data.source import Source

PRESENT, ABSENT, DIFFICULT = 1, 0, -1  # how an image stands to a class; VOC2007's own marks are 1, -1 and 0


class Identified(Protocol):
    """A set of images that says what it is, with all that is annotated on them."""

    @property
    def name(self) -> str:
        """Of the set."""

    def __len__(self) -> int: ...

    def digests(self) -> np.ndarray:
        """A digest of every image's content, N x 16 uint8."""

    def fingerprint(self) -> str:
        """sha256 over the images' content and annotations."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The data of a protocol that learns from one set and is scored on another.

    The test set's labels count the classes as the training set's do, by name; raises UserError where that cannot be.
    """

    train: Source
    test: Source

    def __post_init__(self) -> None:
        from simsiam.data.class_names import aligned

        object.__setattr__(self, "test", aligned(self.train, self.test))

    @property
    def data_id(self) -> DataId:
        """Name, hash and size of both sets together."""
        return data_id(self.train, self.test)


def data_id(*sources: Identified) -> DataId:
    """One identity for the sets that a protocol reads: the first one's name, a hash over all, images in all.

    Where a training set leads, the name is the whole set's: cifar10 for cifar10-train and cifar10-test.
    """
    name = sources[0].name.removesuffix("-train") if len(sources) > 1 else sources[0].name
    joined = hashlib.sha256("\n".join(source.fingerprint() for source in sources).encode()).hexdigest()
    return DataId(name=name, sha256=joined, images=sum(len(source) for source in sources), hashed="content")


def shared_images(train: Identified, test: Identified, *, what: str = "test image") -> list[str]:
    """A note on images that are learnt from and scored, or none: the same content, under any name."""
    from simsiam.data.content import repeated

    again = int(repeated(test.digests(), train.digests()).sum())
    if not again:
        return []
    return [
        f"{again:,} of {counted(len(test), what)} {plural(again, 'is', 'are')} {REMEMBERED}: the "
        "figures say in part how well those are remembered"
    ]


def split_notes(train: Identified, test: Identified) -> list[str]:
    """What a reader of figures must know of the sets: test images that are training images too, classes not tested."""
    notes = shared_images(train, test)
    names, labels = getattr(test, "classes", None), getattr(test, "labels", None)
    if names is not None and labels is not None:
        shown = set(labels.tolist())
        lacking = [name for label, name in enumerate(names) if label not in shown]
        if lacking:
            notes.append(
                f"{len(lacking)} of {counted(len(names), 'class', 'classes')} {plural(len(lacking), 'has', 'have')} no "
                f"test image: {some(lacking)}"
            )
    return notes


def copies_in(images: Identified) -> int:
    """How many images of a set are exact copies of an earlier one."""
    return len(images) - len({row.tobytes() for row in images.digests()})


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A set in two parts that share no image."""

    train: Source
    held_out: Source


def split_held_out(source: Source, *, images: int, seed: int) -> HeldOut:
    """Hold out `images` images, at most a tenth of the set and at least 2.

    One from each of as many stretches of the images sorted by name, so that frames of a video or photos of one day do
    not fill the part; which one depends on the seed and the names.
    Raises UserError where the set is too small to spare two.
    """
    import numpy as np

    total = len(source)
    if total < 4:
        raise UserError(
            f"{source.name}: {counted(total, 'image is', 'images are')} too few: two are held out and two "
            f"must be left to train."
        )
    count = max(2, min(images, total // 10))
    names = source.paths()
    keys = np.array([_key(name, seed) for name in names], np.uint64)
    chosen = np.zeros(total, bool)
    by_name = np.array(sorted(range(total), key=names.__getitem__))
    for stretch in np.array_split(by_name, count):
        chosen[stretch[keys[stretch].argmin()]] = True
    return HeldOut(train=source.subset(np.flatnonzero(~chosen)), held_out=source.subset(np.flatnonzero(chosen)))


def _key(path: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{path}".encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest())
