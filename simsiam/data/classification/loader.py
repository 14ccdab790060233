"""Labelled training batches: each image augmented alone, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from simsiam.data.classification.transforms import Augmenter
from simsiam.data.images import BadImage
from simsiam.data.loading import Loader, Placing, WorkerPool, decoded_for, in_order
from simsiam.data.reading import Loaded, Request, Work, no_pixels
from simsiam.data.source import Source
from simsiam.errors import UserError
from simsiam.wording import counted, plural


class Augment(Protocol):
    """How a labelled image becomes network input; sent to the loader's processes, so it must pickle."""

    @property
    def size(self) -> int:
        """Pixels of the crop's side, S."""

    @property
    def decoded_side(self) -> int:
        """Pixels of an image's short side that suffice for its crops."""

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


class LabelledLoader(Loader[LabelledBatch]):
    """Shuffled, augmented batches of a labelled source; the last, smaller batch of an epoch is kept, as published.

    An image's augmentation is drawn from (seed, epoch, position in the source) and nothing else, so the batches do
    not depend on the number of processes or workers, nor on where a run was resumed.

    Args:
        source: with labels for every image.
        augment: makes the crop.
        placing: this process takes the rank-th contiguous part of every batch.

    Raises:
        UserError: images without a label, or a batch smaller than the number of processes.
    """

    def __init__(self, source: Source, augment: Augment, **placing: Unpack[Placing]) -> None:
        super().__init__(source, **placing)
        if self.batch_size < self.world:
            raise UserError(f"--batch-size {self.batch_size}: fewer images in a step than the {self.world} processes.")
        self._work = CropWork(source=decoded_for(source, augment.decoded_side), augment=augment, seed=self.seed)
        self._labels = labels_of(source)
        self.steps = -(-len(source) // self.batch_size)
        self.start(self._work)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """This rank's part of a step."""
        rows = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        return np.array_split(rows, self.world)[self.rank]

    def batches(self, requests: list[Request]) -> Iterator[LabelledBatch]:
        """The batches of these requests; raises UserError if not one image of an epoch can be read."""
        readable = not requests or not len(requests[0].indices)
        for batch in super().batches(requests):
            readable = readable or len(batch.labels) > 0
            if batch.step == self.steps - 1 and not readable:
                raise UserError(f"{self.source.name}: not one image of an epoch could be read ({batch.bad[0].path}).")
            yield batch

    def finish(self, loaded: Loaded) -> LabelledBatch:
        """The crops, augmented further and normalised, with their labels."""
        return self._work.finish(loaded, self._labels)


@dataclass(frozen=True, kw_only=True)
class AugmentedCopy:
    """Images augmented as in epoch `copy` of a training with this seed, instead of pre-processed for evaluation."""

    augmenter: Augmenter
    copy: int
    seed: int


def augmented_copy(
    source: Source, how: AugmentedCopy, *, batch_size: int, device: torch.device, workers: int = 0, first: int = 0
) -> Iterator[LabelledBatch]:
    """The images from `first` on, once each in the source's own order."""
    decoded = decoded_for(source, how.augmenter.decoded_side)
    work = CropWork(source=decoded, augment=how.augmenter, seed=how.seed)
    labels = labels_of(source)
    requests = in_order(np.arange(first, len(source)), batch_size, epoch=how.copy)
    pool = WorkerPool(work, workers=workers, device=device)
    yield from pool.run(requests, lambda loaded: work.finish(loaded, labels))


@dataclass(frozen=True, kw_only=True)
class CropWork(Work):
    """The crop of each readable image."""

    source: Source
    augment: Augment
    seed: int

    def item(self, request: Request) -> Callable[[int, int, Image], tuple[np.ndarray]]:
        """S x S x 3 uint8."""

        def crop(row: int, index: int, image: Image) -> tuple[np.ndarray]:
            return (self.augment.crop(image, np.random.default_rng((self.seed, request.epoch, index, 0))),)

        return crop

    def nothing(self) -> tuple[Tensor]:
        """No pixels."""
        return (no_pixels(self.augment.size),)

    def finish(self, loaded: Loaded, labels: np.ndarray) -> LabelledBatch:
        """A batch of crops that lie on the device."""
        epoch, (pixels,) = loaded.request.epoch, loaded.items
        rngs = [np.random.default_rng((self.seed, epoch, index, 1)) for index in loaded.kept.tolist()]
        return LabelledBatch(
            images=self.augment.finish(pixels, rngs),
            labels=torch.from_numpy(labels[loaded.kept.numpy()]).to(pixels.device, non_blocking=True),
            indices=loaded.kept,
            epoch=epoch,
            step=loaded.request.step,
            bad=loaded.bad,
        )


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
