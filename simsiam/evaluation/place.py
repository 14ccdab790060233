"""Where a supervised training of an evaluation runs: its weights, machine, processes and folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from simsiam.config import Machine, as_dict
from simsiam.engine import distributed
from simsiam.engine.distributed import Process
from simsiam.weights.pretrained import PretrainedBackbone


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the trainings of one evaluation share, and where this one keeps its checkpoints and its log."""

    subject: PretrainedBackbone
    machine: Machine
    process: Process
    folder: Path
    identity: dict[str, Any]  # what the run is; a folder that holds another run's state is refused

    def part(self, name: str, **identity: Any) -> Place:
        """A training of its own in a folder below (or in this one, by an empty name), distinguished by `identity`."""
        return replace(self, folder=self.folder / name, identity={**self.identity, **identity})


@contextmanager
def place_of(settings: Any, subject: PretrainedBackbone, data: str, machine: Machine) -> Iterator[Place]:
    """Join the other processes, and hold the folder: a temporary one where the caller keeps nothing.

    Args:
        settings: the protocol.
        data: sha256 of the data.
    """
    identity = {
        "protocol": as_dict(settings),
        "weights": subject.weights.sha256,
        "data": data,
        "seed": subject.seed,
    }
    with _process(machine.device) as process, _folder(machine.out) as folder:
        yield Place(subject=subject, machine=machine, process=process, folder=folder, identity=identity)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from the seed, and leave torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def unfinished(folder: Path, model: str, state: str | None = None) -> str:
    """What is said of a training that was stopped, and how to resume it."""
    at = f" ({state})" if state is not None else ""
    return (
        f"{folder}: the training of this {model} is not finished{at}. Give the `simsiam evaluate` command that began "
        f"it once more: it resumes where it stopped, and ends with the {model} in the same folder."
    )


@contextmanager
def _process(device: str) -> Iterator[Process]:
    """This process among those of the run: joined here, or by the caller before."""
    if dist.is_available() and dist.is_initialized():
        yield Process(rank=dist.get_rank(), world=dist.get_world_size(), device=distributed.pick_device(device))
        return
    with distributed.processes(device) as process:
        yield process


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="simsiam-") as folder:
        yield Path(folder)
