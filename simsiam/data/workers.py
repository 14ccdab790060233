"""Runs the work of `reading` here or in worker processes, and keeps one batch ahead on a CUDA device."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from simsiam.data.reading import Loaded, Request, Requests, Work, quiet_worker
from simsiam.errors import UserError

T = TypeVar("T")
L = TypeVar("L", bound=Loaded)


class WorkerPool(Generic[L]):
    """Does requests in order, by `workers` processes (0: in this one)."""

    def __init__(self, work: Work[L], *, workers: int, device: torch.device, lasting: bool) -> None:
        self._work = work
        self._device = device
        self._requests = Requests()
        self._loader: DataLoader[L] | None = None
        if workers > 0:
            arguments: dict[str, Any] = {
                "batch_size": None,  # an item is a whole batch already
                "sampler": self._requests,
                "num_workers": workers,
                "persistent_workers": lasting,
                "pin_memory": device.type == "cuda",
                "collate_fn": _same,
                "worker_init_fn": quiet_worker,
            }
            self._loader = DataLoader(work, **arguments)  # type: ignore[arg-type]

    def run(self, requests: list[Request], finish: Callable[[L], T]) -> Iterator[T]:
        """The finished batches in order; `finish` takes the pixels to the device. Raises UserError as the work does."""
        crops = self._crops(requests)
        if self._device.type == "cuda":
            return _one_ahead(crops, finish, self._device)
        return (finish(each) for each in crops)

    def close(self) -> None:
        """Stop the processes."""
        self._loader = None

    def _crops(self, requests: list[Request]) -> Iterator[L]:
        done = (self._work[request] for request in requests) if self._loader is None else self._from_workers(requests)
        for crops in done:
            if crops.error is not None:
                raise UserError(crops.error)
            yield crops

    def _from_workers(self, requests: list[Request]) -> Iterator[L]:
        assert self._loader is not None
        self._requests.items = requests
        with _own_child_signal():
            batches = iter(self._loader)
        while True:
            try:
                crops = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                self.close()
                raise UserError(
                    f"a data worker process died ({str(error).splitlines()[0]}). Most often memory ran out, or the "
                    f"shared memory of a container (/dev/shm). Use fewer workers, or give the machine more of either."
                ) from error
            yield crops


def _one_ahead(crops: Iterator[L], finish: Callable[[L], T], device: torch.device) -> Iterator[T]:
    """Copy and finish each batch on a side stream while the one before it is being used."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: list[tuple[T, torch.cuda.Event]] = []
    for each in crops:
        with torch.cuda.stream(side):
            waiting.append((finish(each), side.record_event()))
        if len(waiting) > 1:
            yield _ready(*waiting.pop(0), device)
    if waiting:
        yield _ready(*waiting.pop(0), device)


def _ready(batch: T, made: torch.cuda.Event, device: torch.device) -> T:
    current = torch.cuda.current_stream(device)
    current.wait_event(made)
    for tensor in _tensors(batch):
        if tensor.is_cuda:
            tensor.record_stream(current)  # its memory must not be re-used by the side stream while this one reads it
    return batch


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch, also those within its lists and records."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value):
        for each in vars(value).values():
            yield from _tensors(each)


@contextlib.contextmanager
def _own_child_signal() -> Iterator[None]:
    """Keep torch's SIGCHLD handler out of the training step.

    It would raise there the moment a worker dies; without it the loader finds the dead worker within seconds, when
    the next batch is asked for, where it can be told as what it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


def _same(item: L) -> L:
    return item
