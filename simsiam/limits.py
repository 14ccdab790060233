"""Which numbers a setting may hold, by its name: a name means the same in every recipe (standard library only)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


_TINY = math.ulp(0.0)
_ABOVE_ZERO = Limit(low=_TINY, words="must be above zero")
_TWO = Limit(low=2, words="must be 2 or more")
_SHARE = Limit(high=1, words="must be between 0 and 1")
_USUAL = Limit()  # of every name that is not listed
_LIMITS: dict[str, Limit] = {
    **dict.fromkeys(
        (
            *("lr", "lrs", "lr_sweep", "lr_batch", "head_multipliers", "costs", "positive_weight", "power"),
            *("batch_size", "accumulate", "epochs", "iterations", "length", "sweep_iterations", "published_iterations"),
            *("evaluate_every", "monitor_every", "checkpoint_every", "keep_checkpoints"),
            *("size", "resize", "test_resize", "crop", "window", "window_stride", "short_sides", "long_side"),
            *("scale_long", "scale_short", "test_long", "test_short", "min_ratio", "max_ratio"),
            *("width", "projector_layers", "projector_dim", "predictor_dim", "head_channels", "auxiliary_channels"),
            *("k", "quoted_k", "temperature", "clusters", "starts", "repeats", "samples", "stages", "copies"),
            *("expected_classes", "output_stride", "pool", "count", "before_nms", "kept", "detections"),
            *("scales", "ratios", "deviations", "std"),
            *("nodes", "cpus", "hours"),
        ),
        _ABOVE_ZERO,
    ),
    **dict.fromkeys(
        (
            *("flip_probability", "jitter_probability", "grayscale_probability", "blur_probability"),
            *("min_scale", "max_scale", "distort_probability", "dropout", "momentum", "gamma", "warmup_ratio"),
            *("held_out_fraction", "validation_fraction", "positive_fraction", "most_of_one_class"),
            *("positive", "negative", "lowest", "nms", "score", "threshold"),
        ),
        _SHARE,
    ),
    "folds": _TWO,
    "views.hue": Limit(high=0.5, words="must be between 0 and 0.5"),  # a turn of the colour circle is 1
    "mean": Limit(low=-math.inf),
    "workers": Limit(low=-1, words="must be -1 (as many as there are cores, less one), 0 or more"),
}


def check(record: Any, *, prefixes: bool) -> None:
    """Raise UserError that names the flag of the first number in a record, and in those within it, that cannot be.

    Args:
        record: a dataclass of settings.
        prefixes: whether flags carry the names of the records that they lie in (`--views.size`).
    """
    numbers = list(_numbers(record, ()))
    for path, value in numbers:
        limit = _LIMITS.get(".".join(path[-2:])) or _LIMITS.get(path[-1], _USUAL)
        if not limit.allows(value):
            why = limit.words if math.isfinite(value) else "must be a finite number"
            raise UserError(f"{_flag(path, prefixes)} {value:g}: {why}.")
    held = dict(numbers)
    for path, low in held.items():
        upper = (*path[:-1], "_".join("max" if word == "min" else word for word in path[-1].split("_")))
        if low > held.get(upper, low):
            raise UserError(
                f"{_flag(path, prefixes)} {low:g}: must not be above {_flag(upper, prefixes)} {held[upper]:g}."
            )


def _flag(path: tuple[str, ...], prefixes: bool) -> str:
    return f"--{'.'.join(path if prefixes else path[-1:]).replace('_', '-')}"


def _numbers(record: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    for each in dataclasses.fields(record):
        held = getattr(record, each.name)
        path = (*above, each.name)
        if dataclasses.is_dataclass(held):
            yield from _numbers(held, path)
            continue
        for value in held if isinstance(held, tuple) else (held,):
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield path, value
