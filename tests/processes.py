"""Starting `simsiam` as torchrun would: one process a rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(
    arguments: Sequence[str], *, world: int, program: Sequence[str] = ("-m", "simsiam")
) -> subprocess.CompletedProcess[str]:
    """What torchrun does, without its own agent: one process a rank and the rendezvous in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
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
        command = [sys.executable, *program, *arguments]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        )
    texts = [process.communicate(timeout=300)[0] for process in processes]
    codes = {process.returncode for process in processes}
    return subprocess.CompletedProcess(list(arguments), max(codes), "\n".join(texts))
