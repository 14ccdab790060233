"""What a data worker does: read the images of one step and bring them to the crops or views, as 8-bit pixels."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simsiam.config import Views
from simsiam.data.images import BadImage, UnreadableImage
from simsiam.data.preprocess import Preprocess
from simsiam.data.source import Source
from simsiam.data.two_views.draws import ViewPair, draw_pair, step_generator
from simsiam.data.two_views.pil import pil_crop, pil_view
from simsiam.errors import UserError
from simsiam.wording import counted

Engine = Literal["pil", "batch"]

_TRIES = 1_000  # images tried in place of an unreadable one
_STRIDE = 1_000_003  # a prime; how far apart the tries lie, so that one damaged folder is soon left


@dataclass(frozen=True, kw_only=True)
class Request:
    """One item of work: images by index, and the place in the training that decides their draws."""

    epoch: int
    step: int
    indices: np.ndarray  # int64


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What came back for a request: 8-bit pixels, or the message of an error that ends the run."""

    request: Request
    first: Tensor  # B x S x S x 3 uint8
    second: Tensor  # likewise; empty where one image each was asked for
    kept: Tensor  # B int64, the index that each row belongs to
    bad: list[BadImage]
    error: str | None = None

    def pin_memory(self) -> Crops:
        """The same in page-locked memory; the DataLoader's pinning thread calls this."""
        return Crops(
            request=self.request,
            first=self.first.pin_memory(),
            second=self.second.pin_memory(),
            kept=self.kept,
            bad=self.bad,
            error=self.error,
        )


class Loaded(Protocol):
    """What a worker sends back."""

    @property
    def error(self) -> str | None:
        """The message of an error that ends the run."""


L_co = TypeVar("L_co", bound=Loaded, covariant=True)


class Work(Protocol[L_co]):
    """A map from request to pixels that can be sent to a worker process."""

    def __getitem__(self, request: Request) -> L_co:
        """Do one request."""


@dataclass(frozen=True, kw_only=True)
class TrainingWork:
    """Two views (PIL engine) or two crops (batch engine) of each image of this process's rows of a global batch."""

    source: Source
    views: Views
    batch_size: int  # global
    seed: int
    first_row: int
    engine: Engine

    def draws(self, request: Request) -> ViewPair:
        """The draws of this process's rows, cut out of the whole global batch's."""
        generator = step_generator(seed=self.seed, epoch=request.epoch, step=request.step)
        pair = draw_pair(self.views, self.batch_size, generator)
        return pair.rows(self.first_row, self.first_row + len(request.indices))

    def __getitem__(self, request: Request) -> Crops:
        """Read and crop; an unreadable image is replaced by another of the set, always the same one."""
        draws = self.draws(request)
        size = self.views.size
        first = np.empty((len(request.indices), size, size, 3), np.uint8)
        second = np.empty_like(first)
        make = pil_view if self.engine == "pil" else pil_crop
        bad: list[BadImage] = []
        try:
            for row, index in enumerate(request.indices.tolist()):
                image = read_or_replace(self.source, index, bad)
                first[row] = make(image, self.views, draws.view1, row)
                second[row] = make(image, self.views, draws.view2, row)
        except UserError as error:  # sent back as text: an exception would arrive wrapped in a worker's traceback
            return _failed(request, bad, str(error))
        return _crops(request, first, second, request.indices, bad)


@dataclass(frozen=True, kw_only=True)
class PairWork:
    """Two views or crops of each readable image, with draws fixed for the whole set."""

    source: Source
    views: Views
    draws: ViewPair  # of every image of the source
    engine: Engine

    def __getitem__(self, request: Request) -> Crops:
        """Read and crop, leaving out what cannot be read."""
        make = pil_view if self.engine == "pil" else pil_crop
        read = _read_all(self.source, request)
        first = [make(image, self.views, self.draws.view1, index) for index, image in read.images]
        second = [make(image, self.views, self.draws.view2, index) for index, image in read.images]
        kept = np.array([index for index, _ in read.images], np.int64)
        size = self.views.size
        return _crops(request, _stack(first, size), _stack(second, size), kept, read.bad)


@dataclass(frozen=True, kw_only=True)
class EvaluationWork:
    """Each readable image, preprocessed."""

    source: Source
    preprocess: Preprocess

    def __getitem__(self, request: Request) -> Crops:
        """Read and resample, leaving out what cannot be read."""
        kept: list[int] = []
        pixels: list[np.ndarray] = []
        bad: list[BadImage] = []
        for index in request.indices.tolist():
            try:
                pixels.append(self.preprocess.resample(self.source.read(index)))
                kept.append(index)
            except UnreadableImage as error:
                bad.append(error.bad)
        size = self.preprocess.size
        return _crops(request, _stack(pixels, size), np.empty((0, size, size, 3), np.uint8), np.array(kept), bad)


def read_or_replace(source: Source, index: int, bad: list[BadImage]) -> Image.Image:
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


def quiet_worker(_: int) -> None:
    """Let the main process alone answer Ctrl-C and SIGTERM: it still needs its workers while it saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Requests:
    """The order of work that a DataLoader hands to its workers; refilled for every epoch."""

    def __init__(self) -> None:
        self.items: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, kw_only=True)
class _Read:
    images: list[tuple[int, Image.Image]]
    bad: list[BadImage]


def _read_all(source: Source, request: Request) -> _Read:
    read = _Read(images=[], bad=[])
    for index in request.indices.tolist():
        try:
            read.images.append((index, source.read(index)))
        except UnreadableImage as error:
            read.bad.append(error.bad)
    return read


def _stack(pixels: list[np.ndarray], size: int) -> np.ndarray:
    return np.stack(pixels) if pixels else np.empty((0, size, size, 3), np.uint8)


def _crops(request: Request, first: np.ndarray, second: np.ndarray, kept: np.ndarray, bad: list[BadImage]) -> Crops:
    return Crops(
        request=request,
        first=torch.from_numpy(first),
        second=torch.from_numpy(second),
        kept=torch.from_numpy(kept.astype(np.int64)),
        bad=bad,
    )


def _failed(request: Request, bad: list[BadImage], message: str) -> Crops:
    empty = torch.empty(0, dtype=torch.uint8)
    return Crops(request=request, first=empty, second=empty, kept=torch.empty(0).long(), bad=bad, error=message)
