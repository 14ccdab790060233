"""Batches for detectors: shuffled and augmented for training, in order for scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from simsiam.data.detection.boxes import BoxBatch, BoxSample, BoxSource, Frame
from simsiam.data.detection.transforms import BoxTransform, Transformed, transform
from simsiam.data.loading import Loader, Placing, WorkerPool, in_order
from simsiam.data.preprocess import Normalisation
from simsiam.data.reading import Loaded, Request, Work
from simsiam.errors import UserError

MULTIPLE = 32  # pixels; batches are padded to it, the coarsest stride of the detectors
GROUP = 2  # neighbours in a batch that are all wide or all tall, as with the published two images a device


class BoxLoader(Loader[BoxBatch]):
    """Training batches of one process, a pure function of (seed, epoch, step).

    An epoch is a pass over the set; its last batch is filled up with images from the pass's beginning. Neighbours in
    a batch have the same orientation where that works out, which saves padding. An image's size and mirroring are
    drawn from (seed, epoch, image), so they depend neither on the number of processes or workers nor on where a run
    was resumed.

    Args:
        source: checked, and with objects on every image (see box_checks).
        placing: the batch must be a multiple of the processes; each takes the rank-th contiguous part of it.

    Raises:
        UserError: an empty set, a batch that the processes cannot share out evenly, or an image that cannot be read.
    """

    def __init__(
        self, source: BoxSource, how: BoxTransform, *, normalisation: Normalisation, **placing: Unpack[Placing]
    ) -> None:
        super().__init__(source, **placing)
        if self.batch_size % self.world:
            raise UserError(f"--batch-size {self.batch_size}: must be a multiple of the {self.world} processes.")
        if not len(source):
            raise UserError(f"{source.name}: no image to train on.")
        self._normalisation = normalisation
        share = self.batch_size // self.world
        self._mine = slice(self.rank * share, (self.rank + 1) * share)
        self._wide: np.ndarray | None = None
        self.steps = ceil(len(source) / self.batch_size)
        self.start(BoxWork(source=source, how=how, seed=self.seed))

    def run(self, first: int, stop: int) -> Iterator[BoxBatch]:
        """The batches of iterations `first` up to `stop`, counted over all passes."""
        return self.batches([self.request(*divmod(iteration, self.steps)) for iteration in range(first, stop)])

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """This rank's part of a step."""
        return self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size][self._mine]

    def permutation(self, epoch: int) -> np.ndarray:
        """The images of a pass in order, `steps` whole batches."""
        if self._wide is None:
            sizes = (self.source.image(index) for index in range(len(self.source)))
            self._wide = np.array([image.width >= image.height for image in sizes])
        random = np.random.default_rng((self.seed, epoch, 1))
        order = random.permutation(len(self.source))
        kinds = [order[self._wide[order]], order[~self._wide[order]]]
        even = [kind[: len(kind) // GROUP * GROUP].reshape(-1, GROUP) for kind in kinds]
        pairs = random.permutation(np.concatenate(even))
        rest = np.concatenate([kind[len(kind) // GROUP * GROUP :] for kind in kinds])
        return np.resize(np.concatenate([pairs.reshape(-1), rest]), self.steps * self.batch_size)

    def finish(self, loaded: Loaded) -> BoxBatch:
        """The images padded to one size, with frames and targets."""
        return box_batch(loaded, self._normalisation)


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
    requests = in_order(np.arange(len(source)), batch_size)[rank::world]
    work = BoxWork(source=source, how=replace(how, flip_probability=0.0), seed=0)
    pool = WorkerPool(work, workers=workers, device=device)
    return pool.run(requests, lambda loaded: box_batch(loaded, normalisation))


def network_images(images: list[Transformed], normalisation: Normalisation) -> Tensor:
    """B x 3 x H x W float32 on the pixels' device, normalised and then padded with 0 at the right and below."""
    height, width = (ceil(max(each.pixels.shape[side] for each in images) / MULTIPLE) * MULTIPLE for side in (0, 1))
    batch = torch.zeros(len(images), 3, height, width, device=images[0].pixels.device)
    for row, each in zip(batch, images, strict=True):
        row[:, : each.pixels.shape[0], : each.pixels.shape[1]] = normalisation(each.pixels[None])[0]
    return batch


@dataclass(frozen=True, kw_only=True)
class BoxWork(Work):
    """Reads and transforms each image with its boxes; an image that cannot be read ends the run."""

    unreadable: ClassVar[Literal["stop"]] = "stop"
    source: BoxSource
    how: BoxTransform
    seed: int

    def item(self, request: Request) -> Callable[[int, int, BoxSample], Transformed]:
        """The image and target at a drawn size."""

        def transformed(row: int, index: int, sample: BoxSample) -> Transformed:
            return transform(sample, self.how, np.random.default_rng((self.seed, request.epoch, index, 0)))

        return transformed

    def collate(self, items: list[Transformed]) -> list[Transformed]:
        """As they are: their sizes differ."""
        return items


def box_batch(loaded: Loaded, normalisation: Normalisation) -> BoxBatch:
    """A batch of transformed images that lie on the device."""
    images: list[Transformed] = loaded.items
    return BoxBatch(
        images=network_images(images, normalisation),
        frames=[
            Frame(
                index=index,
                height=each.pixels.shape[0],
                width=each.pixels.shape[1],
                original_height=each.original_height,
                original_width=each.original_width,
            )
            for index, each in zip(loaded.kept.tolist(), images, strict=True)
        ],
        targets=[each.target for each in images],
        epoch=loaded.request.epoch,
        step=loaded.request.step,
    )
