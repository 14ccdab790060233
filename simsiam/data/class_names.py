"""Names of classes as people write them: the same name in other blanks or Unicode forms is the same class."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from simsiam.errors import UserError


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


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", class_name(name)).casefold()
