"""Which numbers a setting may hold: the limits stand in the types of the fields; here they are checked (no torch).

    epochs: Count
    lr_sweep: tuple[Positive, ...]

A number whose field names no limit must be finite and not below zero.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from simsiam.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The smallest and the largest number, both allowed, and how a message says it."""

    low: float = 0.0
    high: float = math.inf
    words: str = "must not be below zero"

    def allows(self, value: float) -> bool:
        """Whether a number is one that the setting may hold."""
        return math.isfinite(value) and self.low <= value <= self.high


MOST = 3.4e38  # of a rate: torch computes in float32
USUAL = Limit()
_ABOVE_ZERO = Limit(low=math.ulp(0.0), words="must be above zero")
Count = Annotated[int, _ABOVE_ZERO]
Positive = Annotated[float, Limit(low=math.ulp(0.0), high=MOST, words="must be above zero")]
Share = Annotated[float, Limit(high=1, words="must be between 0 and 1")]
Folds = Annotated[int, Limit(low=2, words="must be 2 or more")]
Hue = Annotated[float, Limit(high=0.5, words="must be between 0 and 0.5")]  # a turn of the colour circle is 1
Finite = Annotated[float, Limit(low=-math.inf)]
Workers = Annotated[int, Limit(low=-1, words="must be -1 (as many as there are cores, less one), 0 or more")]


def check(record: Any, *, prefixes: bool) -> None:
    """Raise UserError that names the flag of the first number in a record, and in those within it, that cannot be.

    Args:
        record: a dataclass of settings.
        prefixes: whether flags carry the names of the records that they lie in (`--views.size`).
    """
    numbers = list(_numbers(record, ()))
    for path, value, limit in numbers:
        if not limit.allows(value):
            why = f"must be {MOST:g} at most" if value > MOST else limit.words
            why = why if math.isfinite(value) else "must be a finite number"
            raise UserError(f"{_flag(path, prefixes)} {value:g}: {why}.")
    held = {path: value for path, value, _ in numbers}
    for path, low in held.items():
        upper = (*path[:-1], "_".join("max" if word == "min" else word for word in path[-1].split("_")))
        if low > held.get(upper, low):
            raise UserError(
                f"{_flag(path, prefixes)} {low:g}: must not be above {_flag(upper, prefixes)} {held[upper]:g}."
            )


def _flag(path: tuple[str, ...], prefixes: bool) -> str:
    return f"--{'.'.join(path if prefixes else path[-1:]).replace('_', '-')}"


def _numbers(record: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float, Limit]]:
    limits = limits_of(record.__class__)
    for each in dataclasses.fields(record):
        held = getattr(record, each.name)
        path = (*above, each.name)
        if dataclasses.is_dataclass(held):
            yield from _numbers(held, path)
            continue
        for value in held if isinstance(held, tuple) else (held,):
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield path, value, limits[each.name]


@functools.cache
def limits_of(kind: Any) -> dict[str, Limit]:
    """The limit of each field of a record."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: _found(hint) or USUAL for name, hint in hints.items()}


def _found(hint: Any) -> Limit | None:
    parts = typing.get_args(hint)
    here = (part for part in parts if isinstance(part, Limit))
    return next(here, None) or next((limit for part in parts if (limit := _found(part)) is not None), None)
