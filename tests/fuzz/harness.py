"""Trying readers with damaged input: cases by seed, in a process of their own that may hang, crash or eat memory.

A target names whole samples, and its `check(content, folder)` returns "read" or "refused", and raises for all else;
its `make` damages a sample, unless it is written otherwise. `fuzz` runs seeds of it and counts. A case is a failure
where it raises, takes longer than the target's seconds, takes more memory than its mebibytes, ends the process, or
runs code of the input (an audit hook looks for programs that are started, sockets, and files that are written outside
the case's folder).

    python -m tests.fuzz weights 0 2000     # the table of one target
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["read", "refused"]
_STARTS = frozenset(
    """
    os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty pty.spawn subprocess.Popen socket.connect socket.bind
    socket.getaddrinfo ftplib.connect urllib.Request webbrowser.open shutil.rmtree os.putenv os.kill
    ctypes.dlopen pdb.Pdb smtplib.connect telnetlib.Telnet.open
    """.split()
)
_SPARE = 2 << 30  # bytes of address space above what a case may take: a real blow-up ends in MemoryError there


class Target(ABC):
    """A reader under test."""

    seconds = 20.0  # for one case, on a busy machine
    mebibytes = 256  # that one case may add to the process's peak

    @functools.cached_property
    @abstractmethod
    def samples(self) -> Sequence[bytes]:
        """Whole inputs, each of which must be read."""

    def make(self, seed: int) -> bytes:
        """The input of a case."""
        rng = random.Random(seed)
        return mutate(rng.choice(self.samples), rng, self.samples)

    @abstractmethod
    def check(self, content: bytes, folder: Path) -> Outcome:
        """Give it to the reader; raises what a person would see as a traceback."""


@dataclass(kw_only=True)
class Tally:
    """What came of the cases."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # "seed 17: what happened"
    peak: int = 0  # MiB that the worst case added
    slowest: float = 0.0  # seconds

    def __str__(self) -> str:
        """A row of the table."""
        counts = " | ".join(f"{self.outcomes[name]:,}" for name in ("read", "refused"))
        return f"{self.cases:,} | {counts} | {len(self.failures)} | {self.slowest:.1f} s | {self.peak} MiB"


def fuzz(target: str, seeds: range) -> Tally:
    """Run the cases of a target, named as `module:Class`, each seed once."""
    tally, left = Tally(), list(seeds)
    while left:
        left = _one_process(target, left, tally)
    return tally


def _one_process(target: str, seeds: Sequence[int], tally: Tally) -> list[int]:
    """Cases until the process ends; returns the seeds that it did not come to."""
    command = [sys.executable, "-m", "tests.fuzz.harness", target, str(seeds[0]), str(seeds[-1] + 1)]
    limit = _load(target).seconds
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment) as process,
    ):
        assert process.stdout is not None
        waiting = 120.0  # for the imports
        for seed in seeds:
            line = _line(process.stdout.fileno(), waiting)
            waiting = limit
            if line is None:
                process.kill()
                tally.failures.append(f"seed {seed}: still running after {limit:.0f} s")
            elif not line:
                code = process.wait()
                said.seek(0)
                last = said.read().decode(errors="replace")[-800:]
                tally.failures.append(f"seed {seed}: the process ended with {code}: {last}")
            else:
                _count(json.loads(line), seed, tally)
                continue
            tally.cases += 1
            return list(seeds[seeds.index(seed) + 1 :])
    return []


def _count(found: dict[str, object], seed: int, tally: Tally) -> None:
    tally.cases += 1
    tally.peak = max(tally.peak, int(str(found["mebibytes"])))
    tally.slowest = max(tally.slowest, float(str(found["seconds"])))
    if found["failure"]:
        tally.failures.append(f"seed {seed}: {found['failure']}")
    else:
        tally.outcomes[str(found["outcome"])] += 1


def _line(descriptor: int, seconds: float) -> bytes | None:
    """A line from a process; empty where it ended, None where it is silent for too long."""
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(seconds):
                return None
            part = os.read(descriptor, 1)
            if not part:
                return b""
            line += part
    return line


def _load(target: str) -> Target:
    module, name = target.split(":")
    made: Target = getattr(importlib.import_module(module), name)()
    return made


# What follows runs in the process of the cases.


def _work(target: Target, seeds: range) -> None:
    import time

    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a reader prints must not be taken for a report
    limit = (int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()) + _SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit + (target.mebibytes << 20), resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started: list[str] = []
        for sample in target.samples:  # what is imported late is imported here
            assert target.check(sample, folder) == "read"
        peak = _peak()
        gc.collect()
        gc.freeze()  # so that a collection within a case looks at the case's own objects
        _watch(started, folder)
        for seed in seeds:
            content = target.make(seed)
            begin, outcome, failure = time.monotonic(), "", ""
            try:
                outcome = target.check(content, folder)
            except BaseException as error:
                failure = "".join(traceback.format_exception(error))[-1500:]
                if isinstance(error, KeyboardInterrupt):
                    raise
            took = time.monotonic() - begin
            grown, peak = _peak() - peak, _peak()
            if started:
                failure = f"code was run: {started[:5]}"
                started.clear()
            elif grown > target.mebibytes:
                failure = failure or f"{grown} MiB of memory"
            row = {"outcome": outcome, "failure": failure, "seconds": took, "mebibytes": grown}
            print(json.dumps(row), file=report, flush=True)


def _peak() -> int:
    """MiB; getrusage would begin with the peak of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def _watch(started: list[str], folder: Path) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _STARTS:
            started.append(event)
        elif event == "open" and len(arguments) > 1 and isinstance(arguments[1], str):
            place = str(arguments[0])
            written = any(sign in arguments[1] for sign in "wax+")
            if written and not place.startswith(str(folder)) and not place.endswith((".pyc", ".so")):
                started.append(f"open {place}")

    sys.addaudithook(hook)


def refused_memory(error: BaseException | None) -> bool:
    """Whether a refusal hides that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def mutate(content: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four kinds of damage, at places drawn by the seed; headers are hit as often as all the rest."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if data:
            rng.choice(_DAMAGES)(data, rng, others)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), 256) if rng.random() < 0.5 else len(data))


def _flip(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    data[_place(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    size = rng.choice((2, 4, 8))
    value = rng.choice((0, 1, (1 << (8 * size)) - 1, (1 << (8 * size - 1)) - 1, 1 << (8 * size - 2), 0xFFFF))
    start = _place(data, rng)
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    start = _place(data, rng)
    del data[start : start + rng.randint(1, 64)]


def _repeat(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    start, end = _place(data, rng), _place(data, rng)
    data[start:start] = data[end : end + rng.randint(1, 512)] * rng.choice((1, 2, 50))


def _zero(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    start = _place(data, rng)
    stop = min(len(data), start + rng.choice((4, 64, 4096)))
    data[start:stop] = bytes(stop - start)


def _swap(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    if others:
        other = rng.choice(others)
        start, size = rng.randrange(max(1, len(other))), rng.randint(1, 4096)
        place = _place(data, rng)
        data[place : place + size] = other[start : start + size]


_DAMAGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _set,
    _number,
    _cut,
    _remove,
    _repeat,
    _zero,
    _swap,
)


@contextlib.contextmanager
def file(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    """The input as a file, for readers that take a path."""
    path = folder / name
    path.write_bytes(content)
    yield path
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    _work(_load(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
