"""Batches on the training device: two views for training, plain images or fixed pairs for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simsiam.config import Views
from simsiam.data.images import BadImage
from simsiam.data.preprocess import Preprocess
from simsiam.data.reading import Crops, Engine, EvaluationWork, PairWork, Request, TrainingWork
from simsiam.data.source import Source
from simsiam.data.two_views.batch import batch_views, batch_views_of_crops, normalise
from simsiam.data.two_views.draws import Draws, ViewPair, draw_pair, step_generator
from simsiam.data.workers import WorkerPool
from simsiam.errors import UserError
from simsiam.wording import counted

_PAIRS_EPOCH = 2**31  # no training epoch: the draws of `pair_batches` are their own


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Two views of one step's images, on the device; row i of both shows the same image."""

    x1: Tensor  # B x 3 x S x S float32, normalised
    x2: Tensor  # B x 3 x S x S
    epoch: int
    step: int
    bad: list[BadImage]  # files that could not be read and were replaced


@dataclass(frozen=True, kw_only=True)
class Images:
    """Preprocessed images in the order of the source, on the device."""

    images: Tensor  # B x 3 x S x S float32, normalised
    indices: Tensor  # B int64, CPU: which image of the source each row is
    bad: list[BadImage]  # files that were left out


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Two fixed views of images in the order of the source, on the device."""

    x1: Tensor  # B x 3 x S x S float32, normalised
    x2: Tensor  # B x 3 x S x S
    indices: Tensor  # B int64, CPU
    bad: list[BadImage]


class ViewLoader:
    """Training batches that depend on source, views, seed, epoch and step only.

    `batch_size` is global: of each global batch the process takes the contiguous rows of its rank. Raises UserError
    if the set is smaller than one batch or the batch does not divide among the processes.
    """

    def __init__(
        self,
        source: Source,
        views: Views,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        engine: Engine,
        device: torch.device,
        channels_last: bool = False,
    ) -> None:
        if batch_size % world:
            below = batch_size // world * world
            raise UserError(
                f"batch size {batch_size}: cannot be shared by {world} processes. "
                f"Use {f'{below} or ' if below else ''}{below + world}."
            )
        if len(source) < batch_size:
            raise UserError(
                f"{source.name}: {counted(len(source), 'image is', 'images are')} fewer than one batch of "
                f"{batch_size}. "
                f"Use a batch size of {max(world, len(source) // world * world)} or less."
            )
        self.source = source
        self.views = views
        self.batch_size = batch_size
        self.local_size = batch_size // world
        self.seed = seed
        self.engine = engine
        self.device = device
        self.channels_last = channels_last
        self.steps = len(source) // batch_size  # the last, partial batch is dropped
        self._first_row = rank * self.local_size
        self._work = TrainingWork(
            source=source, views=views, batch_size=batch_size, seed=seed, first_row=self._first_row, engine=engine
        )
        self._pixels: Tensor | None = None
        self._pool: WorkerPool[Crops] | None = None
        if engine == "batch" and source.pixels is not None:
            self._pixels = pixels_on(source, device)
        else:
            self._pool = WorkerPool(self._work, workers=workers, device=device, lasting=True)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; the same ones however the epoch is entered."""
        order = self.source.order(seed=self.seed, epoch=epoch)
        requests = [self._request(order, epoch, step) for step in range(first_step, self.steps)]
        if self._pixels is not None:
            return (self._from_memory(request, self._pixels) for request in requests)
        assert self._pool is not None
        return self._pool.run(requests, self._finish)

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.close()

    def _request(self, order: np.ndarray, epoch: int, step: int) -> Request:
        first = step * self.batch_size + self._first_row
        return Request(epoch=epoch, step=step, indices=order[first : first + self.local_size])

    def _from_memory(self, request: Request, pixels: Tensor) -> Batch:
        draws = self._work.draws(request)
        rows = torch.from_numpy(request.indices)
        x1 = batch_views(pixels, rows, self.views, draws.view1, channels_last=self.channels_last)
        x2 = batch_views(pixels, rows, self.views, draws.view2, channels_last=self.channels_last)
        return Batch(x1=x1, x2=x2, epoch=request.epoch, step=request.step, bad=[])

    def _finish(self, crops: Crops) -> Batch:
        draws = self._work.draws(crops.request) if self.engine == "batch" else None
        x1 = self._finish_view(crops.first, draws.view1 if draws else None)
        x2 = self._finish_view(crops.second, draws.view2 if draws else None)
        return Batch(x1=x1, x2=x2, epoch=crops.request.epoch, step=crops.request.step, bad=crops.bad)

    def _finish_view(self, pixels: Tensor, draws: Draws | None) -> Tensor:
        return finish(pixels, self.views, draws, device=self.device, channels_last=self.channels_last)


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
    wanted = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    requests = _chunks(wanted, batch_size)
    pixels = source.pixels
    if pixels is not None:
        for request in requests:
            images = preprocess.apply_pixels(pixels[request.indices], device)
            yield Images(images=images, indices=torch.from_numpy(request.indices), bad=[])
        return

    def finish_images(crops: Crops) -> Images:
        images = preprocess.normalise(crops.first.to(device, non_blocking=True))
        return Images(images=images, indices=crops.kept, bad=crops.bad)

    work = EvaluationWork(source=source, preprocess=preprocess)
    pool = WorkerPool(work, workers=workers, device=device, lasting=False)
    yield from pool.run(requests, finish_images)


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
    requests = _chunks(np.arange(len(source)), batch_size)
    if engine == "batch" and source.pixels is not None:
        pixels = pixels_on(source, device)
        for request in requests:
            rows = torch.from_numpy(request.indices)
            chosen = _take(draws, rows)
            x1 = batch_views(pixels, rows, views, chosen.view1, channels_last=False)
            x2 = batch_views(pixels, rows, views, chosen.view2, channels_last=False)
            yield Pairs(x1=x1, x2=x2, indices=rows, bad=[])
        return

    def finish_pairs(crops: Crops) -> Pairs:
        chosen = _take(draws, crops.kept) if engine == "batch" else None
        x1 = finish(crops.first, views, chosen.view1 if chosen else None, device=device, channels_last=False)
        x2 = finish(crops.second, views, chosen.view2 if chosen else None, device=device, channels_last=False)
        return Pairs(x1=x1, x2=x2, indices=crops.kept, bad=crops.bad)

    work = PairWork(source=source, views=views, draws=draws, engine=engine)
    pool = WorkerPool(work, workers=workers, device=device, lasting=False)
    yield from pool.run(requests, finish_pairs)


def finish(pixels: Tensor, views: Views, draws: Draws | None, *, device: torch.device, channels_last: bool) -> Tensor:
    """8-bit pixels (B x S x S x 3) from a worker as one view on the device; without draws they are whole views."""
    pixels = pixels.to(device, non_blocking=True)
    if draws is not None:
        return batch_views_of_crops(pixels, views, draws, channels_last=channels_last)
    x = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return normalise(x, views.mean, views.std, channels_last=channels_last)


def pixels_on(source: Source, device: torch.device) -> Tensor:
    """The decoded set as one N x H x W x 3 uint8 tensor on the device."""
    assert source.pixels is not None
    return torch.from_numpy(np.require(source.pixels, requirements=["C", "W"])).to(device)


def _chunks(indices: np.ndarray, size: int) -> list[Request]:
    starts = range(0, len(indices), size)
    return [Request(epoch=0, step=step, indices=indices[at : at + size]) for step, at in enumerate(starts)]


def _take(pair: ViewPair, rows: Tensor) -> ViewPair:
    return ViewPair(view1=pair.view1.take(rows), view2=pair.view2.take(rows))
