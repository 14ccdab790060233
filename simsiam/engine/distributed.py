"""Work spread over processes (torchrun, SLURM) and over threads: who am I, and what must all agree on."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from simsiam.engine.neighbours import short_waits_when_busy
from simsiam.errors import UserError

T = TypeVar("T")
# Each process keeps its own running statistics in training; from torch 2.13 on the flag has another name.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}
_groups = itertools.count()  # every process of a run joins the same groups in the same order


@dataclass(frozen=True, kw_only=True)
class Process:
    """This process among all of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0


@contextmanager
def processes(device: str) -> Iterator[Process]:
    """Join the other processes if torchrun (or SLURM through it) started some; leave them at the end.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        with short_waits_when_busy():
            yield Process(rank=0, world=1, device=pick_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    picked = pick_device(device)
    if picked.type == "cuda":
        picked = torch.device("cuda", local)
        torch.cuda.set_device(picked)
    _join("nccl" if picked.type == "cuda" else "gloo")
    try:
        with short_waits_when_busy():
            yield Process(rank=dist.get_rank(), world=world, device=picked)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            f"process {local} of this machine lost another one of this run, whose own message says why. The same "
            "command resumes from what was saved; torchrun --max-restarts does it by itself."
        ) from error
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    """Meet the other processes, under a number of its own each time.

    torchrun keeps one store of addresses for the whole command. A second group under the first one's names would find
    addresses at which nobody listens any more, as where several seeds are trained one after the other, or where
    torchrun starts all processes again after one was killed.
    """
    store, rank, world = next(iter(rendezvous("env://")))
    begun = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefixed = PrefixStore(f"start{begun}group{next(_groups)}", store)
    dist.init_process_group(backend, store=prefixed, rank=rank, world_size=world)


def pick_device(device: str) -> torch.device:
    """The device by name; raises UserError if this machine or this torch lacks it."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device {device}: no such device; use auto, cpu, cuda, cuda:N or mps.") from error
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch {torch.__version__} sees no CUDA GPU here; use cpu.")
    if picked.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch has no MPS here; use cpu.")
    return picked


def launcher() -> str:
    """How this command was started in several processes, as words before it; empty where it is one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # of this machine
    if world == 1:
        return ""
    several = "--rdzv-backend c10d --rdzv-endpoint FIRST:29500 "  # the first machine's name, as in the guide
    machines = f"--nnodes {world // local} {several}" if world > local else ""
    return f"torchrun {machines}--nproc-per-node {local} -m"


def per_device_batch(batch_size: int, world: int) -> int:
    """The rows of the global batch that one device takes; raises UserError if they do not divide."""
    if batch_size % world:
        down = batch_size // world * world
        fits = f"{down} or {down + world}" if down else f"{world}"
        raise UserError(
            f"--batch-size {batch_size} is the global batch and does not divide over {world} devices; "
            f"{fits} would. The learning rate follows the batch size by itself."
        )
    return batch_size // world


def parallel(model: nn.Module, process: Process, *, compiled: bool = False) -> Any:
    """The model for this run's processes: SyncBatchNorm on GPUs (it raises on the CPU), gradients averaged; compiled.

    Buffers are not broadcast: each process keeps its own running statistics, which SyncBatchNorm makes equal.
    """
    if process.world > 1 and process.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        model = DistributedDataParallel(model, device_ids=[process.device.index], **_OWN_BUFFERS)
    elif process.world > 1:
        model = DistributedDataParallel(model, **_OWN_BUFFERS)
    return torch.compile(model) if compiled else model


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes (itself when there is one)."""
    if _alone():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes (itself when there is one)."""
    return value if _alone() else sum_over_processes(value) / dist.get_world_size()


def any_process(flag: bool, device: torch.device) -> bool:
    """True if any process says so; every process must call it at the same step."""
    if _alone():
        return flag
    return bool(sum_over_processes(torch.tensor(float(flag), device=device)).item() > 0)


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, first process first; every process must call it together."""
    if _alone():
        return items
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def barrier() -> None:
    """Wait for all processes."""
    if not _alone():
        dist.barrier()


Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


class Threads:
    """Runs work on pieces, side by side where that pays."""

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self._pool = pool
        self.count = count

    def map(self, work: Callable[[Piece], Answer], pieces: Sequence[Piece]) -> list[Answer]:
        """The answers, in the order of the pieces."""
        return [work(piece) for piece in pieces] if self._pool is None else list(self._pool.map(work, pieces))


@contextmanager
def core_threads(device: torch.device, *, most: int) -> Iterator[Threads]:
    """As many threads as torch uses cores, but no more than `most`; on a GPU only the caller's own.

    Many operations that each wait for all cores crawl when another program holds one of them. Threads that never wait
    for each other do not, and lose nothing on an idle machine.
    """
    cores = torch.get_num_threads()
    count = max(1, min(cores, most))
    if device.type != "cpu" or count == 1:
        yield Threads(None, 1)
        return

    def take_share() -> None:
        torch.set_num_threads(cores // count)  # of this thread, and of threads still to be born

    try:
        with ThreadPoolExecutor(count, initializer=take_share) as pool:
            yield Threads(pool, count)
    finally:
        torch.set_num_threads(cores)
