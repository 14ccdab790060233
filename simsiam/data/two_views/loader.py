"""Two views of each image: shuffled batches for training, fixed pairs for measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from simsiam.config import Views
from simsiam.data.images import BadImage
from simsiam.data.loading import Loader, Placing, WorkerPool, in_order
from simsiam.data.preprocess import Normalisation, unit
from simsiam.data.reading import Loaded, Request, Work, no_pixels
from simsiam.data.source import Source
from simsiam.data.two_views.batch import batch_views, finish_views
from simsiam.data.two_views.draws import Draws, ViewPair, decoded_side, draw_pair, step_generator
from simsiam.data.two_views.engines import opencv_crop, opencv_view, pil_view
from simsiam.errors import UserError
from simsiam.wording import counted

Engine = Literal["pil", "opencv", "batch"]

_PAIRS_EPOCH = 2**31  # no training epoch: the draws of `pair_batches` are their own


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Two views of one step's images, on the device; row i of both shows the same image."""

    x1: Tensor  # B x 3 x S x S float32, normalised
    x2: Tensor  # B x 3 x S x S
    indices: Tensor  # B int64, CPU: the images, of the source
    epoch: int
    step: int
    bad: list[BadImage]  # files that could not be read and were replaced


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Two fixed views of images in the order of the source, on the device."""

    x1: Tensor  # B x 3 x S x S float32, normalised
    x2: Tensor  # B x 3 x S x S
    indices: Tensor  # B int64, CPU
    bad: list[BadImage]


def require_full_batch(source: Source, batch_size: int, world: int) -> None:
    """Raise UserError where a set is smaller than one batch of all processes."""
    if len(source) < batch_size:
        raise UserError(
            f"{source.name}: {counted(len(source), 'image is', 'images are')} fewer than one batch of {batch_size}. "
            f"Use a batch size of {max(world, len(source) // world * world)} or less."
        )


class ViewLoader(Loader[Batch]):
    """Training batches that depend on source, views, seed, epoch and step only.

    `batch_size` is global: of each global batch the process takes the contiguous rows of its rank. Raises UserError
    if the set is smaller than one batch or the batch does not divide among the processes.
    """

    def __init__(
        self,
        source: Source,
        views: Views,
        *,
        engine: Engine,
        channels_last: bool = False,
        **placing: Unpack[Placing],
    ) -> None:
        super().__init__(source, **placing)
        batch_size, world = self.batch_size, self.world
        if batch_size % world:
            below = batch_size // world * world
            raise UserError(
                f"batch size {batch_size}: cannot be shared by {world} processes. "
                f"Use {f'{below} or ' if below else ''}{below + world}."
            )
        require_full_batch(source, batch_size, world)
        self.local_size, self.engine, self.channels_last = batch_size // world, engine, channels_last
        self.steps = len(source) // batch_size  # the last, partial batch is dropped
        self._first_row = self.rank * self.local_size
        self._work = TrainingWork(
            source=_decoded_for(source, views, engine),
            views=views,
            batch_size=batch_size,
            seed=self.seed,
            first_row=self._first_row,
            engine=engine,
        )
        self._pixels: Tensor | None = None
        if engine == "batch" and source.pixels is not None:
            self._pixels = pixels_on(source, self.device)
        else:
            self.start(self._work)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """The rows of this rank."""
        first = step * self.batch_size + self._first_row
        return self.order(epoch)[first : first + self.local_size]

    def batches(self, requests: list[Request]) -> Iterator[Batch]:
        """The batches of these requests, cropped on the device where the set lives in memory."""
        if self._pixels is None:
            return super().batches(requests)
        return (self._from_memory(request, self._pixels) for request in requests)

    def finish(self, loaded: Loaded) -> Batch:
        """The views, of crops (batch engine) or whole views."""
        draws = self._work.draws(loaded.request) if self.engine == "batch" else None
        x1, x2 = _finished(loaded, self._work.views, draws, channels_last=self.channels_last)
        request = loaded.request
        return Batch(x1=x1, x2=x2, indices=loaded.kept, epoch=request.epoch, step=request.step, bad=loaded.bad)

    def _from_memory(self, request: Request, pixels: Tensor) -> Batch:
        rows, draws = torch.from_numpy(request.indices), self._work.draws(request)
        x1, x2 = _views_in_memory(pixels, rows, self._work.views, draws, channels_last=self.channels_last)
        return Batch(x1=x1, x2=x2, indices=rows, epoch=request.epoch, step=request.step, bad=[])


def pair_batches(
    source: Source,
    views: Views,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    engine: Engine = "batch",
) -> Iterator[Pairs]:
    """Two augmented views of every image, in order; which views depends on the seed alone, not on the batch size."""
    draws = draw_pair(views, len(source), step_generator(seed=seed, epoch=_PAIRS_EPOCH, step=0))
    requests = in_order(np.arange(len(source)), batch_size)
    if engine == "batch" and source.pixels is not None:
        pixels = pixels_on(source, device)
        for request in requests:
            rows = torch.from_numpy(request.indices)
            x1, x2 = _views_in_memory(pixels, rows, views, _take(draws, rows), channels_last=False)
            yield Pairs(x1=x1, x2=x2, indices=rows, bad=[])
        return

    def finish(loaded: Loaded) -> Pairs:
        chosen = _take(draws, loaded.kept) if engine == "batch" else None
        x1, x2 = _finished(loaded, views, chosen, channels_last=False)
        return Pairs(x1=x1, x2=x2, indices=loaded.kept, bad=loaded.bad)

    work = PairWork(source=_decoded_for(source, views, engine), views=views, draws=draws, engine=engine)
    yield from WorkerPool(work, workers=workers, device=device).run(requests, finish)


@dataclass(frozen=True, kw_only=True)
class TrainingWork(Work):
    """Two views, or two crops for the batch engine, of each image of this process's rows of a global batch.

    An unreadable image is replaced by another of the set, always the same one.
    """

    unreadable: ClassVar[Literal["replace"]] = "replace"
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

    def item(self, request: Request) -> Callable[[int, int, Image], tuple[np.ndarray, np.ndarray]]:
        """Two S x S x 3 uint8, by the draws of the row."""
        draws = self.draws(request)
        return lambda row, index, image: _two(image, self.views, draws, row, self.engine)


@dataclass(frozen=True, kw_only=True)
class PairWork(Work):
    """Two views or crops of each readable image, with draws fixed for the whole set."""

    source: Source
    views: Views
    draws: ViewPair  # of every image of the source
    engine: Engine

    def item(self, request: Request) -> Callable[[int, int, Image], tuple[np.ndarray, np.ndarray]]:
        """Two S x S x 3 uint8, by the draws of the image."""
        return lambda row, index, image: _two(image, self.views, self.draws, index, self.engine)

    def nothing(self) -> tuple[Tensor, Tensor]:
        """No pixels."""
        return no_pixels(self.views.size), no_pixels(self.views.size)


def pixels_on(source: Source, device: torch.device) -> Tensor:
    """The decoded set as one N x H x W x 3 uint8 tensor on the device."""
    assert source.pixels is not None
    return torch.from_numpy(np.require(source.pixels, requirements=["C", "W"])).to(device)


def _two(image: Image, views: Views, draws: ViewPair, row: int, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    if engine == "pil":
        return pil_view(image, views, draws.view1, row), pil_view(image, views, draws.view2, row)
    make, pixels = opencv_view if engine == "opencv" else opencv_crop, np.asarray(image)
    return make(pixels, views, draws.view1, row), make(pixels, views, draws.view2, row)


def _decoded_for(source: Source, views: Views, engine: Engine) -> Source:
    """The source as an engine reads it: the PIL engine, the reference, decodes each image at full size."""
    return source if engine == "pil" else source.at_scale(decoded_side(views))


def _finished(loaded: Loaded, views: Views, draws: ViewPair | None, *, channels_last: bool) -> tuple[Tensor, Tensor]:
    """Both views of what a worker made, 8-bit pixels on the device; without draws these are whole views already."""

    def view(pixels: Tensor, drawn: Draws | None) -> Tensor:
        if drawn is None:
            return Normalisation(mean=views.mean, std=views.std)(pixels, channels_last=channels_last)
        return finish_views(unit(pixels), views, drawn, channels_last=channels_last)

    first, second = loaded.items
    return view(first, draws.view1 if draws else None), view(second, draws.view2 if draws else None)


def _views_in_memory(
    pixels: Tensor, rows: Tensor, views: Views, draws: ViewPair, *, channels_last: bool
) -> tuple[Tensor, Tensor]:
    x1 = batch_views(pixels, rows, views, draws.view1, channels_last=channels_last)
    return x1, batch_views(pixels, rows, views, draws.view2, channels_last=channels_last)


def _take(pair: ViewPair, rows: Tensor) -> ViewPair:
    return ViewPair(view1=pair.view1.take(rows), view2=pair.view2.take(rows))
