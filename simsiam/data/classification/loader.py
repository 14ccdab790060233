"""Labelled training batches: each image augmented alone, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from simsiam.data.images import BadImage, UnreadableImage
from simsiam.data.reading import Crops, Request
from simsiam.data.source import Source
from simsiam.data.workers import WorkerPool
from simsiam.errors import UserError
from simsiam.wording import counted, plural


class Augment(Protocol):
    """How a labelled image becomes network input; sent to the loader's processes, so it must pickle."""

    @property
    def size(self) -> int:
        """Pixels of the crop's side, S."""

    def crop(self, image: Image, rng: np.random.Generator) -> np.ndarray:
        """One image -> S x S x 3 uint8."""

    def finish(self, pixels: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """B x S x S x 3 uint8 on the device, with a fresh generator for each -> B x 3 x S x S float32, normalised."""


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """One process's share of a step, on the device. Unreadable images are left out, so B may fall short, even to 0."""

    images: Tensor  # B x 3 x S x S
    labels: Tensor  # B, int64
    indices: Tensor  # B, int64, CPU: positions in the source
    epoch: int
    step: int
    bad: list[BadImage]


class LabelledLoader:
    """Shuffled, augmented batches of a labelled source; the last, smaller batch of an epoch is kept, as published.

    An image's augmentation is drawn from (seed, epoch, position in the source) and nothing else, so the batches do
    not depend on the number of processes or workers, nor on where a run was resumed.

    Args:
        source: with labels for every image.
        augment: makes the crop.
        batch_size: global, over all processes.
        rank, world: this process takes the rank-th contiguous part of every batch.
        workers: processes that decode; 0 for none.

    Raises:
        UserError: images without a label, or a batch smaller than the number of processes.
    """

    def __init__(
        self,
        source: Source,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size < world:
            raise UserError(f"--batch-size {batch_size}: fewer images in a step than the {world} processes.")
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._rank, self._world = rank, world
        self._finish = _Finish(labels=labels_of(source), augment=augment, seed=seed, device=device)
        work = CropWork(source=source, augment=augment, seed=seed)
        self._pool = WorkerPool(work, workers=workers, device=device, lasting=True)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-len(self._source) // self._batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[LabelledBatch]:
        """The batches of one epoch from `first_step` on; raises UserError if not one image of it can be read."""
        order = self._source.order(seed=self._seed, epoch=epoch)
        requests = []
        for step in range(first_step, self.steps):
            rows = order[step * self._batch_size : (step + 1) * self._batch_size]
            mine = np.array_split(rows, self._world)[self._rank]
            requests.append(Request(epoch=epoch, step=step, indices=mine))
        readable = not requests or not len(requests[0].indices)
        for batch in self._pool.run(requests, self._finish):
            readable = readable or len(batch.labels) > 0
            if batch.step == self.steps - 1 and not readable:
                raise UserError(f"{self._source.name}: not one image of an epoch could be read ({batch.bad[0].path}).")
            yield batch

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()


def augmented_copy(
    source: Source,
    augment: Augment,
    *,
    copy: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
    first: int = 0,
) -> Iterator[LabelledBatch]:
    """The images from `first` on, once each in the source's own order, as epoch `copy` of a loader would crop them."""
    starts = range(first, len(source), batch_size)
    requests = [
        Request(epoch=copy, step=step, indices=np.arange(start, min(start + batch_size, len(source))))
        for step, start in enumerate(starts)
    ]
    finish = _Finish(labels=labels_of(source), augment=augment, seed=seed, device=device)
    work = CropWork(source=source, augment=augment, seed=seed)
    yield from WorkerPool(work, workers=workers, device=device, lasting=False).run(requests, finish)


def labels_of(source: Source) -> np.ndarray[Any, Any]:
    """The labels (N, int64); raises UserError if any image has none."""
    if source.labels is None:
        raise UserError(
            f"{source.name}: has no labels. Give a folder with one sub-folder per class, or a list of 'path label'."
        )
    missing = np.flatnonzero(source.labels < 0)
    if len(missing):
        shown = ", ".join(source.path(int(i)) for i in missing[:3])
        raise UserError(
            f"{source.name}: {len(missing)} of {counted(len(source), 'image')} "
            f"{plural(len(missing), 'has', 'have')} no label (first: {shown})."
        )
    return source.labels


def stratified_rows(source: Source, *, fraction: float, seed: int) -> np.ndarray[Any, Any]:
    """N bool: a fraction of each class drawn by the seed, at least one image, never all of a class.

    Raises UserError if a class has a single image.
    """
    labels = labels_of(source)
    rng = np.random.default_rng((seed, 2))
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            name = source.classes[label] if source.classes is not None else label
            raise UserError(f"{source.name}: class {name} has one image; to hold some out it needs at least two.")
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        drawn[rng.permutation(rows)[:count]] = True
    return drawn


def class_count(train: Source, test: Source) -> int:
    """How many classes a head needs; raises UserError unless the training set shows each of two or more.

    The sets are those of a `Splits`, whose labels count the classes alike.
    """
    labels = labels_of(train)
    labels_of(test)
    count = len(train.classes) if train.classes is not None else int(labels.max(initial=-1)) + 1
    shown = np.bincount(labels, minlength=count)
    lacking = [str(train.class_name(int(label))) for label in np.flatnonzero(shown == 0)]
    lacking += [f"id {label}" for label in np.unique(np.asarray(test.labels)) if label >= count]
    if lacking:
        raise UserError(
            f"{train.name}: {len(lacking)} of {count} classes {plural(len(lacking), 'has', 'have')} no training "
            f"image ({', '.join(lacking[:5])})."
        )
    if count < 2:
        raise UserError(f"{train.name}: only one class; a classifier needs at least two.")
    return count


@dataclass(frozen=True, kw_only=True)
class CropWork:
    """The crop of each readable image; runs in the loader's processes."""

    source: Source
    augment: Augment
    seed: int

    def __getitem__(self, request: Request) -> Crops:
        """Read and crop, leaving out what cannot be read."""
        size = self.augment.size
        pixels = np.empty((len(request.indices), size, size, 3), np.uint8)
        kept: list[int] = []
        bad: list[BadImage] = []
        for index in request.indices.tolist():
            try:
                image = self.source.read(index)
            except UnreadableImage as error:
                bad.append(error.bad)
                continue
            pixels[len(kept)] = self.augment.crop(image, np.random.default_rng((self.seed, request.epoch, index, 0)))
            kept.append(index)
        return Crops(
            request=request,
            first=torch.from_numpy(pixels[: len(kept)]),
            second=torch.empty(0, dtype=torch.uint8),
            kept=torch.tensor(kept, dtype=torch.int64),
            bad=bad,
        )


@dataclass(frozen=True, kw_only=True)
class _Finish:
    """Pixels from a worker -> a batch on the device."""

    labels: np.ndarray[Any, Any]
    augment: Augment
    seed: int
    device: torch.device

    def __call__(self, crops: Crops) -> LabelledBatch:
        epoch = crops.request.epoch
        rngs = [np.random.default_rng((self.seed, epoch, index, 1)) for index in crops.kept.tolist()]
        return LabelledBatch(
            images=self.augment.finish(crops.first.to(self.device, non_blocking=True), rngs),
            labels=torch.from_numpy(self.labels[crops.kept.numpy()]).to(self.device, non_blocking=True),
            indices=crops.kept,
            epoch=epoch,
            step=crops.request.step,
            bad=crops.bad,
        )
