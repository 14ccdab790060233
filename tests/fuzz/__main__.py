"""The whole of the fuzzing, as `make fuzz` runs it: a table of cases, what came of them, and the worst of each.

python -m tests.fuzz [NAME [FIRST [STOP]]]
"""

from __future__ import annotations

import sys

from tests.fuzz.flags import fuzz_flags
from tests.fuzz.harness import fuzz
from tests.fuzz.hostile import Corpus

TARGETS = {  # the target, and how many cases the whole has
    "images": ("tests.fuzz.images:Files", 10_000),
    "annotations": ("tests.fuzz.annotations:Files", 2_000),
    "weights": ("tests.fuzz.weights:Files", 1_000),
    "pickles": ("tests.fuzz.weights:Pickles", 1_000),
    "hostile": ("tests.fuzz.hostile:Corpus", len(Corpus().cases)),  # each once
}
FLAGS = 1_000  # command lines of random values


def main(words: list[str]) -> int:
    """Print a row for each target; 1 where anything failed."""
    failed = False
    print("| input | cases | read | refused | failures | slowest | most memory |\n|---|---|---|---|---|---|---|")
    for name in words[:1] or TARGETS:
        target, cases = TARGETS[name]
        first = int(words[1]) if len(words) > 1 else 0
        tally = fuzz(target, range(first, int(words[2]) if len(words) > 2 else cases))
        print(f"| {name} | {tally} |", flush=True)
        for failure in tally.failures:
            print(f"{name}, {failure}", file=sys.stderr)
        failed = failed or bool(tally.failures)
    if not words:
        counts = fuzz_flags(FLAGS)
        print(f"flags: {counts.total():,} command lines, {counts['taken']:,} taken, {counts['refused']:,} refused")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
