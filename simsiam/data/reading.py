"""What a data worker does: read the images of one request and make an item of each, as 8-bit pixels."""

from __future__ import annotations

import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simsiam.data.images import BadImage, UnreadableImage
from simsiam.data.preprocess import Preprocess
from simsiam.data.source import Source
from simsiam.errors import UserError
from simsiam.wording import counted

_TRIES = 1_000  # images tried in place of an unreadable one
_STRIDE = 1_000_003  # a prime; how far apart the tries lie, so that one damaged folder is soon left

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Readable(Protocol[T_co]):
    """What images (with their masks or boxes, where it has them) are read from."""

    name: str

    def __len__(self) -> int: ...

    def read(self, index: int) -> T_co:
        """One image; raises UnreadableImage."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One item of work: images by index, and the place in the training that decides their draws."""

    epoch: int
    step: int
    indices: np.ndarray  # int64


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came back for a request: what was made of its images, or the message of an error that ends the run."""

    request: Request
    items: Any  # as the work's `collate` puts them together; by default a tuple of B x ... tensors
    kept: Tensor  # B int64, the index that each row belongs to
    bad: list[BadImage]
    error: str | None = None
    note: str | None = None  # for the main process to say, once

    def pin_memory(self) -> Loaded:
        """The same in page-locked memory; the DataLoader's pinning thread calls this."""
        return replace(self, items=map_tensors(self.items, Tensor.pin_memory))


class Work(ABC):
    """A map from request to items that can be sent to a worker process."""

    unreadable: ClassVar[Literal["skip", "replace", "stop"]] = "skip"
    source: Readable[Any]

    @abstractmethod
    def item(self, request: Request) -> Callable[[int, int, Any], Any]:
        """What makes an item of a request's image, given its row, its index and what `source.read` gave."""

    def collate(self, items: list[Any]) -> Any:
        """The items of a request as one object; here each a tuple of arrays, stacked by position."""
        return tuple(torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True))

    def nothing(self) -> Any:
        """What `collate` would give where not one image could be read."""
        return ()

    def fetch(self, index: int, bad: list[BadImage]) -> Any:
        """What the source has of an image; raises UnreadableImage."""
        return read_or_replace(self.source, index, bad) if self.unreadable == "replace" else self.source.read(index)

    def __getitem__(self, request: Request) -> Loaded:
        """Do one request. An error comes back as text: an exception would arrive wrapped in a worker's traceback."""
        items: list[Any] = []
        kept: list[int] = []
        bad: list[BadImage] = []
        try:
            make = self.item(request)
            for row, index in enumerate(request.indices.tolist()):
                try:
                    image = self.fetch(index, bad)
                except UnreadableImage as error:
                    if self.unreadable == "stop":
                        raise UserError(f"{self.source.name}: {error}. Fix or remove it.") from error
                    bad.append(error.bad)
                    continue
                items.append(make(row, index, image))
                kept.append(index)
        except UserError as error:
            return Loaded(request=request, items=(), kept=torch.empty(0).long(), bad=bad, error=str(error))
        kept_rows = torch.tensor(kept, dtype=torch.int64)
        note = getattr(getattr(self.source, "photos", None), "note", None)
        made = self.collate(items) if items else self.nothing()
        return Loaded(request=request, items=made, kept=kept_rows, bad=bad, note=note)


@dataclass(frozen=True, kw_only=True)
class PreprocessWork(Work):
    """Each readable image, preprocessed."""

    source: Source
    preprocess: Preprocess

    def item(self, request: Request) -> Callable[[int, int, Image.Image], tuple[np.ndarray]]:
        """S x S x 3 uint8."""
        return lambda row, index, image: (self.preprocess.resample(image),)

    def nothing(self) -> tuple[Tensor]:
        """No pixels."""
        return (no_pixels(self.preprocess.size),)


def read_or_replace(source: Readable[T], index: int, bad: list[BadImage]) -> T:
    """An image, or the first readable one of a fixed sequence that starts at it; failures are added to `bad`.

    Raises UserError if 1,000 images in a row (or the whole of a smaller set) are unreadable.
    """
    total = len(source)
    stride = _STRIDE if math.gcd(_STRIDE, total) == 1 else 1
    tries = min(total, _TRIES)
    failure: UnreadableImage | None = None
    for attempt in range(tries):
        try:
            return source.read((index + attempt * stride) % total)
        except UnreadableImage as error:
            bad.append(error.bad)
            failure = failure or error
    raise UserError(
        f"{source.name}: {counted(tries, 'image')} in a row cannot be read, the first {failure}. "
        f"Check that the files are whole images (skipped.csv lists those found bad so far)."
    )


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same lists, tuples and records with `change` applied to each tensor in them."""
    return _mapped(value, Tensor, change)


def _mapped(value: Any, kind: type[T], change: Callable[[T], Any]) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, kind, change) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: _mapped(each, kind, change) for name, each in held.items()}
        return replace(value, **{name: each for name, each in changed.items() if each is not held[name]})
    return value


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Work done in a worker process, its tensors in shared memory or, where that is full, sent through the pipe.

    Were this left to the queue between the processes, a full /dev/shm (64 MB in a container) would lose the batch in
    a thread of the worker, and the program would wait for it for ever.
    """

    work: Work

    def __getitem__(self, request: Request) -> Loaded:
        """Do one request."""
        loaded = self.work[request]
        try:
            return cast("Loaded", map_tensors(loaded, Tensor.share_memory_))
        except (RuntimeError, OSError):
            return cast("Loaded", map_tensors(loaded, lambda tensor: _Piped(array=tensor.numpy().copy())))


def received(loaded: Loaded) -> Loaded:
    """What a worker sent, with tensors again where it came through the pipe."""
    return cast("Loaded", _mapped(loaded, _Piped, lambda piped: torch.from_numpy(piped.array)))


def was_piped(loaded: Loaded) -> bool:
    """Whether shared memory was full."""
    return isinstance(loaded.kept, _Piped)


@dataclass(frozen=True, kw_only=True)
class _Piped:
    array: np.ndarray


def quiet_worker(_: int) -> None:
    """Let the main process alone answer Ctrl-C, SIGTERM and a closed terminal: it still needs its workers then."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def no_pixels(size: int) -> Tensor:
    """0 x S x S x 3 uint8."""
    return torch.empty(0, size, size, 3, dtype=torch.uint8)
