"""The skeleton of every loader: worker processes, one batch ahead on a CUDA device, batches by (epoch, step).

What a task adds is a `Work` (reading.py), the order of its images and how its batch is finished on the device.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Required, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from simsiam.data.images import BadImage
from simsiam.data.preprocess import Preprocess
from simsiam.data.reading import (
    Loaded,
    PreprocessWork,
    Request,
    Sent,
    Work,
    map_tensors,
    quiet_worker,
    received,
    was_piped,
)
from simsiam.data.source import Source
from simsiam.errors import UserError

T = TypeVar("T")

SHARED_MEMORY = (
    "simsiam: shared memory (/dev/shm) is full, so batches come from the workers through pipes, which is slower. In a "
    "container, start it with docker run --shm-size 8g (or --ipc=host), or use fewer --workers."
)
_RUNNING: weakref.WeakSet[Any] = weakref.WeakSet()  # iterators over workers


def _stop_workers() -> None:
    """End the workers that are left when the program ends: Python would wait for them, as they ignore SIGTERM."""
    for batches in list(_RUNNING):
        batches._shutdown_workers()


atexit.register(_stop_workers)


class WorkerPool:
    """Does requests in order, by `workers` processes (0: in this one)."""

    _said: ClassVar[set[str]] = set()  # notes of the workers, such as that shared memory is full

    def __init__(self, work: Work, *, workers: int, device: torch.device, lasting: bool = False) -> None:
        self._work, self._device = work, device
        self._requests: list[Request] = []
        self._loader: DataLoader[Loaded] | None = None
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
            with _starting():
                self._loader = DataLoader(Sent(work=work), **arguments)  # type: ignore[arg-type]

    def run(self, requests: list[Request], finish: Callable[[Loaded], T]) -> Iterator[T]:
        """The batches in order: `finish` makes one of what came back, whose tensors lie on the device already.

        Raises UserError as the work does, and where a worker died.
        """
        loaded = (self._work[each] for each in requests) if self._loader is None else self._in_workers(requests)

        def batch(each: Loaded) -> T:
            items = map_tensors(each.items, lambda tensor: tensor.to(self._device, non_blocking=True))
            return finish(replace(each, items=items))

        if self._device.type == "cuda":
            return _one_ahead(_without_errors(loaded), batch, self._device)
        return (batch(each) for each in _without_errors(loaded))

    def close(self) -> None:
        """Stop the processes."""
        self._loader = None

    def _in_workers(self, requests: list[Request]) -> Iterator[Loaded]:
        assert self._loader is not None
        self._requests[:] = requests
        with _starting():
            batches = iter(self._loader)
        _RUNNING.add(batches)
        while True:
            try:
                loaded = next(batches)
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
            piped = SHARED_MEMORY if was_piped(loaded) else None
            yield replace(received(loaded), note=loaded.note or piped)


class Placing(TypedDict, total=False):
    """What every training loader takes: the global batch, the seed, and the place of this process."""

    batch_size: Required[int]  # global, over all processes
    seed: Required[int]
    device: Required[torch.device]
    rank: int  # of this process, from 0
    world: int  # processes
    workers: int  # processes that decode; 0 for none


class Loader(ABC, Generic[T]):
    """Batches that depend on the seed, the epoch and the step alone: not on processes, workers or a resume.

    A task's loader calls `start` with its work, and says which images a step has and how a batch is finished.
    """

    steps: int  # of an epoch
    _pool: WorkerPool | None = None
    _order: tuple[int, np.ndarray] | None = None

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.source, self.batch_size, self.seed, self.rank, self.world = source, batch_size, seed, rank, world
        self.device, self._workers = device, workers

    def start(self, work: Work) -> None:
        """Set up the workers, which last as long as the loader."""
        self._pool = WorkerPool(work, workers=self._workers, device=self.device, lasting=True)

    @abstractmethod
    def indices(self, epoch: int, step: int) -> np.ndarray:
        """This process's images of a step."""

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the images in one pass through the set; here the source's own."""
        order: np.ndarray = self.source.order(seed=self.seed, epoch=epoch)
        return order

    @abstractmethod
    def finish(self, loaded: Loaded) -> T:
        """The batch, of items whose tensors lie on the device."""

    def order(self, epoch: int) -> np.ndarray:
        """The order of one pass; the one that was asked for last is kept."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.permutation(epoch)
        return self._order[1]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[T]:
        """The batches of an epoch from `first_step` on; the same ones however the epoch is entered."""
        return self.batches([self.request(epoch, step) for step in range(first_step, self.steps)])

    def request(self, epoch: int, step: int) -> Request:
        """This process's part of a step."""
        return Request(epoch=epoch, step=step, indices=self.indices(epoch, step))

    def batches(self, requests: list[Request]) -> Iterator[T]:
        """The batches of these requests."""
        assert self._pool is not None
        return self._pool.run(requests, self.finish)

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.close()


@dataclass(frozen=True, kw_only=True)
class Images:
    """Preprocessed images in the order of the source, on the device."""

    images: Tensor  # B x 3 x S x S float32, normalised
    indices: Tensor  # B int64, CPU: which image of the source each row is
    bad: list[BadImage]  # files that were left out


def decoded_for(source: Source, short_side: int) -> Source:
    """The source as evaluations read it: large JPEGs at a lower scale of `short_side` or more, published sets whole."""
    return source if source.published else source.at_scale(short_side)


def image_batches(
    source: Source,
    preprocess: Preprocess,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    indices: np.ndarray | None = None,
) -> Iterator[Images]:
    """Preprocessed images in order (all, or those that `indices` names); unreadable ones are left out and reported."""
    requests = in_order(np.arange(len(source)) if indices is None else np.asarray(indices, np.int64), batch_size)
    pixels = source.pixels
    if pixels is not None:
        for request in requests:
            images = preprocess.apply_pixels(pixels[request.indices], device)
            yield Images(images=images, indices=torch.from_numpy(request.indices), bad=[])
        return

    def finish(loaded: Loaded) -> Images:
        return Images(images=preprocess.normalise(loaded.items[0]), indices=loaded.kept, bad=loaded.bad)

    work = PreprocessWork(source=decoded_for(source, preprocess.decoded_side), preprocess=preprocess)
    yield from WorkerPool(work, workers=workers, device=device).run(requests, finish)


def in_order(indices: np.ndarray, size: int, *, epoch: int = 0) -> list[Request]:
    """Requests for images in the order given, `size` at a time."""
    starts = range(0, len(indices), size)
    return [Request(epoch=epoch, step=step, indices=indices[at : at + size]) for step, at in enumerate(starts)]


def _without_errors(loaded: Iterator[Loaded]) -> Iterator[Loaded]:
    for each in loaded:
        if each.error is not None:
            raise UserError(each.error)
        if each.note is not None and each.note not in WorkerPool._said:
            WorkerPool._said.add(each.note)
            print(each.note, file=sys.stderr)
        yield each


def _one_ahead(loaded: Iterator[Loaded], batch: Callable[[Loaded], T], device: torch.device) -> Iterator[T]:
    """Copy and finish each batch on a side stream while the one before it is being used."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: list[tuple[T, torch.cuda.Event]] = []
    for each in loaded:
        with torch.cuda.stream(side):
            waiting.append((batch(each), side.record_event()))
        if len(waiting) > 1:
            yield _ready(*waiting.pop(0), device)
    if waiting:
        yield _ready(*waiting.pop(0), device)


def _ready(batch: T, made: torch.cuda.Event, device: torch.device) -> T:
    current = torch.cuda.current_stream(device)
    current.wait_event(made)

    def used_here(tensor: Tensor) -> Tensor:
        if tensor.is_cuda:
            tensor.record_stream(current)  # its memory must not be re-used by the side stream while this one reads it
        return tensor

    map_tensors(batch, used_here)
    return batch


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Keep torch's SIGCHLD handler out of the training step, and its advice on the number of workers to itself.

    The handler would raise there the moment a worker dies; without it the loader finds the dead worker within
    seconds, when the next batch is asked for, where it can be reported as what it is.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield
    if main:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


def _same(item: Loaded) -> Loaded:
    return item
