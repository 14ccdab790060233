"""Names of classes: as people write them, how they are numbered, and how those of two sets are matched."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TypeVar

import numpy as np

from simsiam.data.source import UNKNOWN, Source
from simsiam.errors import UserError

SHOWN = 20  # names that a message lists
_WHOLE = re.compile(r"\d+(\.0+)?", re.ASCII)  # 7, 07, and 7.0 as pandas writes a column with gaps
_S = TypeVar("_S", bound=Source)


def class_name(text: str) -> str:
    """A name without blanks around it or doubled, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def look_alike(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs from `name` in capitals or Unicode's compatibility forms alone; None without one."""
    return next((each for each in known if each != name and _key(each) == _key(name)), None)


def refuse_look_alikes(place: object, names: Iterable[str]) -> None:
    """Raise UserError where two classes of `place` differ in capitals alone: one of them is misspelt."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(_key(name), name)) != name:
            raise UserError(
                f"{place}: the classes {other!r} and {name!r} differ in capitals alone, and count as two classes. "
                "Rename one of them."
            )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, sorted: as numbers where all are numbers, else as text. A name's place is its class id."""
    distinct = set(names)
    if all(_WHOLE.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(distinct))


def numbered(words: Sequence[str | None]) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of a set and the label of each image (N int64), from each image's class name; None: UNKNOWN."""
    classes = in_order(word for word in words if word is not None)
    number = {name: label for label, name in enumerate(classes)}
    return classes, np.array([UNKNOWN if word is None else number[word] for word in words], np.int64)


def numbered_ids(ids: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The same from whole numbers, however large: classes are the numbers that occur; a negative one is UNKNOWN."""
    known, places = np.unique(ids[ids >= 0], return_inverse=True)
    labels = np.full(len(ids), UNKNOWN, np.int64)
    labels[ids >= 0] = places
    return tuple(map(str, known.tolist())), labels


def class_map(reference: Sequence[str], other: Sequence[str], *, where: str) -> np.ndarray:
    """For each of the other names, its place among the reference names, M int64.

    `01` is the `1` of a set whose names are all numbers, as theirs are. Any other difference is refused.

    Args:
        reference: the names that count, those of the training set.
        other: names of another set; they may be fewer, in any order.
        where: both sets, for the message, as "train.csv and test.csv".

    Raises UserError with both lists where a name has no partner; it says so if two names look the same.
    """
    place = {name: number for number, name in enumerate(reference)}
    if any(name not in place for name in other) and all(_WHOLE.fullmatch(name) for name in (*reference, *other)):
        values = [Decimal(name) for name in reference]
        if len(set(values)) == len(values):
            place |= {name: values.index(Decimal(name)) for name in other if Decimal(name) in values}
    if all(name in place for name in other):
        return np.array([place[name] for name in other], np.int64)
    only_first = [name for name in reference if name not in set(other)]
    only_second = [name for name in other if name not in place]
    found = [f"{where}: the classes differ"]
    for what, missing, names in (("training", only_first, reference), ("test", only_second, other)):
        if missing:
            found.append(f"only in {what}: {_listed(missing)} ({len(missing)} of {len(names)}: {_listed(names)})")
    alike = [words for words in (_alike(name, only_first) for name in only_second) if words]
    cure = "Name them alike in both." if only_first else "Give it training images, or leave it out of the test set."
    raise UserError("; ".join(found) + f". {' '.join([*alike[:3], cure])}")


def aligned(train: Source, test: _S) -> _S:
    """The test set with its labels counted as the training set counts them, by the names of the classes.

    The test set may lack classes. Raises UserError with both lists where it has one that the training set lacks.
    """
    if train.labels is None or test.labels is None or (train.classes is None and test.classes is None):
        return test
    if train.classes == test.classes:
        return test
    reference = [str(train.class_name(label)) for label in range(_count(train))]
    used = np.unique(test.labels[test.labels >= 0])
    names = [str(test.class_name(int(label))) for label in used]
    places = class_map(reference, names, where=f"{train.name} and {test.name}")
    same = copy.copy(test)
    same.classes = tuple(reference)
    same.labels = np.full(len(test.labels), UNKNOWN, np.int64)
    known = test.labels >= 0
    same.labels[known] = places[np.searchsorted(used, test.labels[known])]
    return same


def _count(source: Source) -> int:
    assert source.labels is not None
    return len(source.classes) if source.classes is not None else int(source.labels.max(initial=-1)) + 1


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _alike(name: str, others: Sequence[str]) -> str:
    """A sentence on another name that a reader takes for this one, or nothing."""
    one = _forms(name)
    for other in others:
        two = _forms(other)
        if one[-1] != two[-1]:
            continue
        if one[0] == two[0]:
            return f"{other!r} and {name!r} look the same: they differ in their Unicode form (NFC, NFD)."
        what = "capitals" if one[1] == two[1] else "blanks" if one[2] == two[2] else "capitals and blanks"
        return f"{other!r} and {name!r} differ only in {what}."
    return ""


def _forms(name: str) -> tuple[str, str, str, str]:
    """A name in one Unicode form; then without its capitals; without its blanks; without both."""
    plain = unicodedata.normalize("NFC", name)
    bare = "".join(unicodedata.normalize("NFKC", plain).replace("_", " ").split())
    return plain, plain.casefold(), bare, bare.casefold()


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", class_name(name)).casefold()
