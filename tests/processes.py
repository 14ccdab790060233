"""`simsiam` in processes of their own: as fresh programs, or forked from one that has the libraries loaded already.

A fresh program loads libraries for longer than a tiny run works. What a test asks of a process (its signals, its exit
code, its locks, its part in a group) a forked one has as well; whether a program starts is for a few tests to ask.
"""

from __future__ import annotations

import builtins
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from simsiam import cli

ROOT = Path(__file__).parents[1]
LOADED = """
torch torch._dynamo torch.distributed torchvision scipy.stats sklearn.linear_model sklearn.manifold
sklearn.model_selection sklearn.preprocessing matplotlib.figure matplotlib.backends.backend_agg
simsiam.cli simsiam.commands.pretrain simsiam.commands.evaluate simsiam.pretraining.run simsiam.pretraining.finish
tests.processes tests.kills
""".split()


def loaded(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A started process that has torch and the like from the server that it is forked from; one thread each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the server, which its first call starts
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def program(words: Sequence[str | Path], *, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """A command in a fresh program, both outputs in one."""
    line = [sys.executable, "-m", "simsiam", *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(env))


class Forked:
    """A command, or code, in a forked process, with what tests use of subprocess.Popen; both outputs in one."""

    def __init__(self, words: Sequence[str | Path], *, env: Mapping[str, str], code: str | None = None) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as said:
            self._said = Path(said.name)
        self._process = loaded(_command, [str(word) for word in words], dict(env), self._said, code)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of subprocess: the code, less than 0 for a signal; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code; None: it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self, timeout: float) -> int:
        """The exit code, at the end; subprocess.TimeoutExpired where that does not come in time."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked", timeout)
        return self._process.exitcode

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._said.read_text()

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """What it said, at the end."""
        self.wait(timeout)
        text = self.said
        self._said.unlink()
        return text, None


def _command(words: list[str], env: dict[str, str], said: Path, code: str | None) -> None:
    """The command line, or code in place of it, as a fresh program would run it."""
    with open(said, "ab", buffering=0) as text:
        os.dup2(text.fileno(), 1)
        os.dup2(text.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    if encoding := env.get("PYTHONIOENCODING"):
        sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
        sys.stderr.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
    action, _, category = env.get("PYTHONWARNINGS", "default").partition("::")
    warnings.simplefilter(action, getattr(builtins, category or "Warning"))  # type: ignore[arg-type]
    sys.argv = ["simsiam", *words]
    if code is not None:
        exec(code, {"__name__": "__main__"})
    else:
        cli.main(words)


def ranks(words: Sequence[str], *, world: int, code: str | None = None) -> list[Forked]:
    """What torchrun starts, without its own agent: one process a rank and the rendezvous in the environment.

    Code of Python runs in place of the command line.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made: list[Forked] = []
    for rank in range(world):
        env = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::FutureWarning",
        }
        made.append(Forked(words, env=env, code=code))
    return made


def launch(words: Sequence[str], *, world: int, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """The end of such processes: the highest exit code, and what each said."""
    made = ranks(words, world=world, code=code)
    texts = [process.communicate(timeout=300)[0] for process in made]
    codes = {process.returncode or 0 for process in made}
    return subprocess.CompletedProcess(list(words), max(codes), "\n".join(texts))
