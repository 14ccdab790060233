"""Batches for detectors: shuffled and augmented for training, in order for scoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from simsiam.data.detection.boxes import BoxBatch, BoxSource, Frame, LearnTarget
from simsiam.data.detection.transforms import BoxTransform, Transformed, transform
from simsiam.data.images import UnreadableImage
from simsiam.data.reading import Request
from simsiam.data.workers import WorkerPool
from simsiam.errors import UserError

MULTIPLE = 32  # pixels; batches are padded to it, the coarsest stride of the detectors
GROUP = 2  # neighbours in a batch that are all wide or all tall, as with the published two images a device


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Of the pixels, per channel."""

    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]


class BoxLoader:
    """Training batches of one process, a pure function of (seed, epoch, step).

    An epoch is a pass over the set; its last batch is filled up with images from the pass's beginning. Neighbours in
    a batch have the same orientation where that works out, which saves padding. An image's size and mirroring are
    drawn from (seed, epoch, image), so they depend neither on the number of processes or workers nor on where a run
    was resumed.

    Args:
        source: checked, and with objects on every image (see box_checks).
        batch_size: global, over all processes; must be a multiple of `world`.
        rank, world: this process takes the rank-th contiguous part of every batch.
        workers: processes that decode; 0 for none.

    Raises:
        UserError: an empty set, a batch that the processes cannot share out evenly, or an image that cannot be read.
    """

    def __init__(
        self,
        source: BoxSource,
        how: BoxTransform,
        *,
        normalisation: Normalisation,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size % world:
            raise UserError(f"--batch-size {batch_size}: must be a multiple of the {world} processes.")
        if not len(source):
            raise UserError(f"{source.name}: no image to train on.")
        self._source, self._batch_size, self._seed = source, batch_size, seed
        share = batch_size // world
        self._mine = slice(rank * share, (rank + 1) * share)
        self._finish = _Finish(normalisation=normalisation, device=device)
        work = _Work(source=source, how=how, seed=seed)
        self._pool: WorkerPool[_Loaded] = WorkerPool(work, workers=workers, device=device, lasting=True)
        self._wide: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return ceil(len(self._source) / self._batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[BoxBatch]:
        """The batches of one pass, from `first_step` on."""
        return self.run(epoch * self.steps + first_step, (epoch + 1) * self.steps)

    def run(self, first: int, stop: int) -> Iterator[BoxBatch]:
        """The batches of iterations `first` up to `stop`, counted over all passes."""
        requests = []
        orders: dict[int, np.ndarray] = {}
        for iteration in range(first, stop):
            epoch, step = divmod(iteration, self.steps)
            if epoch not in orders:
                orders = {epoch: self.order(epoch)}
            rows = orders[epoch][step * self._batch_size : (step + 1) * self._batch_size]
            requests.append(Request(epoch=epoch, step=step, indices=rows[self._mine]))
        return self._pool.run(requests, self._finish)

    def order(self, epoch: int) -> np.ndarray:
        """The images of a pass in order, `steps` whole batches."""
        if self._wide is None:
            sizes = (self._source.image(index) for index in range(len(self._source)))
            self._wide = np.array([image.width >= image.height for image in sizes])
        random = np.random.default_rng((self._seed, epoch, 1))
        order = random.permutation(len(self._source))
        kinds = [order[self._wide[order]], order[~self._wide[order]]]
        even = [kind[: len(kind) // GROUP * GROUP].reshape(-1, GROUP) for kind in kinds]
        pairs = random.permutation(np.concatenate(even))
        rest = np.concatenate([kind[len(kind) // GROUP * GROUP :] for kind in kinds])
        return np.resize(np.concatenate([pairs.reshape(-1), rest]), self.steps * self._batch_size)

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()


def ordered_batches(
    source: BoxSource,
    how: BoxTransform,
    *,
    normalisation: Normalisation,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[BoxBatch]:
    """Each image once in the source's order, for scoring; of several processes each takes every world-th batch.

    Raises UserError for an image that cannot be read: a score without it would be of another set.
    """
    starts = range(rank * batch_size, len(source), world * batch_size)
    requests = [
        Request(epoch=0, step=step, indices=np.arange(start, min(start + batch_size, len(source))))
        for step, start in enumerate(starts)
    ]
    work = _Work(source=source, how=replace(how, flip_probability=0.0), seed=0)
    pool: WorkerPool[_Loaded] = WorkerPool(work, workers=workers, device=device, lasting=False)
    return pool.run(requests, _Finish(normalisation=normalisation, device=device))


def network_images(images: list[Transformed], normalisation: Normalisation, device: torch.device) -> Tensor:
    """B x 3 x H x W float32, normalised and then padded with 0 at the right and below."""
    height, width = (ceil(max(each.pixels.shape[side] for each in images) / MULTIPLE) * MULTIPLE for side in (0, 1))
    batch = torch.zeros(len(images), 3, height, width, device=device)
    mean = torch.tensor(normalisation.mean, device=device)[:, None, None]
    std = torch.tensor(normalisation.std, device=device)[:, None, None]
    for row, each in zip(batch, images, strict=True):
        pixels = each.pixels.to(device, non_blocking=True).permute(2, 0, 1)  # 3 x H x W
        row[:, : pixels.shape[1], : pixels.shape[2]] = (pixels.float() / 255 - mean) / std
    return batch


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What came back for a request: images and targets, or the message of an error that ends the run."""

    request: Request
    images: list[Transformed]
    error: str | None = None

    def pin_memory(self) -> _Loaded:
        """The same with its pixels in page-locked memory; the DataLoader's pinning thread calls this."""
        return replace(self, images=[replace(each, pixels=each.pixels.pin_memory()) for each in self.images])


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Reads and transforms; runs in the loader's processes."""

    source: BoxSource
    how: BoxTransform
    seed: int

    def __getitem__(self, request: Request) -> _Loaded:
        try:
            images = [
                transform(
                    self.source.read(index), self.how, np.random.default_rng((self.seed, request.epoch, index, 0))
                )
                for index in request.indices.tolist()
            ]
        except UnreadableImage as error:
            return _Loaded(request=request, images=[], error=f"{self.source.name}: {error}. Mend or leave it out.")
        return _Loaded(request=request, images=images)


@dataclass(frozen=True, kw_only=True)
class _Finish:
    """Pixels from a worker -> a batch on the device."""

    normalisation: Normalisation
    device: torch.device

    def __call__(self, loaded: _Loaded) -> BoxBatch:
        request = loaded.request
        return BoxBatch(
            images=network_images(loaded.images, self.normalisation, self.device),
            frames=[
                Frame(
                    index=index,
                    height=each.pixels.shape[0],
                    width=each.pixels.shape[1],
                    original_height=each.original_height,
                    original_width=each.original_width,
                )
                for index, each in zip(request.indices.tolist(), loaded.images, strict=True)
            ],
            targets=[self._moved(each.target) for each in loaded.images],
            epoch=request.epoch,
            step=request.step,
        )

    def _moved(self, target: LearnTarget) -> LearnTarget:
        return LearnTarget(
            boxes=target.boxes.to(self.device, non_blocking=True),
            labels=target.labels.to(self.device, non_blocking=True),
            masks=None if target.masks is None else target.masks.to(self.device, non_blocking=True),
        )
