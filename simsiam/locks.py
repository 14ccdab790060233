"""One process at a time: a lock file that names its holder, and that outlives no dead process.

The file holds host, process number and start time of the process, and is touched every few seconds. No call of the
file system beyond "create if it is not there" is needed, so that it holds on network folders too. A lock counts as
left behind when its process is gone (the same machine), or when nothing has touched it for `SILENCE` (another one).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from simsiam.errors import UserError
from simsiam.results import naming

BEAT = 15.0  # seconds between two signs of life
SILENCE = 120.0  # seconds after which a process of another machine counts as dead
_POLL = 0.2


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock."""

    host: str
    machine: str  # this boot of it, and the space that process numbers belong to (containers have their own)
    pid: int
    started: str  # by the system's clock, so that a reused number is another process

    @staticmethod
    def this() -> Holder:
        """The process that asks."""
        boot = _text(Path("/proc/sys/kernel/random/boot_id"))
        with contextlib.suppress(OSError):
            boot += f" {os.readlink('/proc/self/ns/pid')}"
        pid = os.getpid()
        return Holder(host=socket.gethostname(), machine=boot, pid=pid, started=_started(pid) or "")

    @staticmethod
    def of(lock: Path) -> Holder | None:
        """Who holds a lock; None where the file does not say, as one that is being written."""
        try:
            return Holder(**json.loads(lock.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def held(lock: Path, *, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock while the body runs; one that a dead process left is taken over.

    Args:
        lock: the file; its folder is made.
        refusal: what is said where another process holds it, with {holder} in it; None: wait for that process.

    Raises UserError with the refusal, and OSError where the file cannot be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    said = False
    while not _take(lock):
        holder = Holder.of(lock)
        if holder is not None and refusal is not None:
            raise UserError(
                f"{refusal.format(holder=holder)} If that process is gone, its lock {lock} is taken over "
                f"{SILENCE:.0f} seconds after its last sign of life, or delete the file."
                if holder.machine != Holder.this().machine
                else refusal.format(holder=holder)
            )
        if holder is not None and not said:
            print(f"waiting for {holder}, which holds {lock}", file=sys.stderr)
            said = True
        time.sleep(_POLL)
    over = threading.Event()
    threading.Thread(target=_beat, args=(lock, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if Holder.of(lock) == Holder.this():
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def _take(lock: Path) -> bool:
    """Try once. The file appears with its content in it, where the file system knows links."""
    part = lock.with_name(f"{lock.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with naming(lock):
            part.write_text(json.dumps(asdict(Holder.this())), encoding="utf-8")
        try:
            try:
                os.link(part, lock)
            except FileExistsError:
                raise
            except OSError:  # no links here, as on FAT
                with open(lock, "x", encoding="utf-8") as file:
                    file.write(part.read_text(encoding="utf-8"))
            return True
        except FileExistsError:
            _bury(lock, now=part.stat().st_mtime)
            return False
    finally:
        part.unlink(missing_ok=True)


def _bury(lock: Path, *, now: float) -> None:
    """Take a dead process's lock away; `now` is the time as the file system tells it."""
    try:
        before, silent = lock.read_bytes(), now - lock.stat().st_mtime
    except OSError:
        return
    holder = Holder.of(lock)
    if holder is None:
        dead = silent > BEAT  # cut short while it was written, or an earlier version's
    elif holder.machine == Holder.this().machine:
        dead = _started(holder.pid) != holder.started
    else:
        dead = silent > SILENCE
    if not dead:
        return
    grave = lock.with_name(f"{lock.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.dead")
    with contextlib.suppress(OSError):  # another process was quicker
        os.replace(lock, grave)
        if grave.read_bytes() != before:  # and holds the lock by now: give it back
            os.link(grave, lock)
        grave.unlink()


def _beat(lock: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(lock)


def _started(pid: int) -> str | None:
    """When a process of this machine began; None where it is gone. Systems without /proc tell less."""
    if Path("/proc/self/stat").exists():
        fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return None if not fields or fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # somebody else's
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
