"""A short slice of the fuzzing, with fixed seeds; the whole is `make fuzz`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pytest

from tests.fuzz.flags import fuzz_flags
from tests.fuzz.harness import Outcome, Target, fuzz, mutate

SLICES = {
    "tests.fuzz.images:Files": 100,
    "tests.fuzz.annotations:Files": 150,
    "tests.fuzz.weights:Files": 40,
    "tests.fuzz.weights:Pickles": 40,
    "tests.fuzz.hostile:Corpus": 900,
}


@pytest.mark.parametrize("target", SLICES)
def test_damaged_input_is_read_or_refused(target: str) -> None:
    tally = fuzz(target, range(SLICES[target]))
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.cases == sum(tally.outcomes.values()) == SLICES[target]
    assert tally.outcomes["refused"] > SLICES[target] / 3


def test_random_values_of_flags_are_taken_or_refused_by_name() -> None:
    counts = fuzz_flags(12)
    assert counts["taken"] + counts["refused"] >= 12
    assert counts["refused"] > 3


class Misbehaving(Target):
    """Does on each seed one of the things that the harness must notice."""

    seconds = 4.0
    mebibytes = 64
    kinds: ClassVar[list[str]] = ["read", "raise", "hang", "end", "eat", "run", "write", "refused"]

    @cached_property
    def samples(self) -> Sequence[bytes]:
        return [b"read"]

    def make(self, seed: int) -> bytes:
        return self.kinds[seed].encode()

    def check(self, content: bytes, folder: Path) -> Outcome:
        import os
        import time

        match content.decode():
            case "raise":
                raise KeyError("a traceback")
            case "hang":
                time.sleep(60)
            case "end":
                os._exit(3)
            case "eat":
                assert len(bytearray(b"x") * (200 << 20))
            case "run":
                os.system("true")
            case "write":
                (folder.parent / "simsiam-fuzz-elsewhere").write_text("a")
                (folder.parent / "simsiam-fuzz-elsewhere").unlink()
            case "refused":
                return "refused"
        return "read"


def test_the_harness_notices_what_it_is_for() -> None:
    tally = fuzz("tests.fuzz.test_fuzz:Misbehaving", range(8))
    said = ["KeyError", "still running after 4 s", "ended with 3", "MiB of memory", "os.system", "elsewhere"]
    assert len(tally.failures) == len(said)
    for seed, (failure, words) in enumerate(zip(tally.failures, said, strict=True), 1):
        assert failure.startswith(f"seed {seed}: ")
        assert words in failure
    assert tally.outcomes == {"read": 1, "refused": 1}


def test_mutations_are_a_function_of_the_seed() -> None:
    content = bytes(range(256)) * 20
    made = [mutate(content, random.Random(seed), [content]) for seed in range(50)]
    assert made == [mutate(content, random.Random(seed), [content]) for seed in range(50)]
    assert sum(one != content for one in made) > 45
