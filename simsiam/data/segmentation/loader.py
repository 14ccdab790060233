"""Batches of images and masks on the device: an endless shuffled stream of crops for training, whole images for test.

A crop is drawn from (seed, pass through the set, image) and nothing else, so that batches do not depend on the number
of processes or workers, nor on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from simsiam.data.images import BadImage
from simsiam.data.loading import Loader, WorkerPool, in_order
from simsiam.data.preprocess import Normalisation
from simsiam.data.reading import Loaded, Request, Work
from simsiam.data.segmentation.masks import MaskSource
from simsiam.data.segmentation.transforms import MaskAugmentation, augment, fitted


@dataclass(frozen=True, kw_only=True)
class MaskBatch:
    """One process's rows of a step, on the device."""

    images: Tensor  # B x 3 x S x S float32, normalised; 0 in the padding
    masks: Tensor  # B x S x S int64: class ids and 255


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """An image at the size that the network takes, and its mask at the size that is scored."""

    image: Tensor  # 1 x 3 x H x W float32, normalised
    mask: Tensor  # H' x W' int64: class ids and 255
    index: int


@dataclass(frozen=True, kw_only=True)
class Masked:
    """An image as it is stored, with its mask."""

    image: Image
    mask: np.ndarray  # H x W uint8


class MaskLoader(Loader[MaskBatch]):
    """Training crops in epochs of a fixed number of steps; passes through the set follow each other without a gap.

    Args:
        batch: rows of this process; `first` is where they begin in the global batch of `global_batch`.
        steps: in an epoch.
        workers: processes that decode; 0 for none.
    """

    def __init__(
        self,
        source: MaskSource,
        augmentation: MaskAugmentation,
        normalisation: Normalisation,
        *,
        steps: int,
        global_batch: int,
        batch: int,
        first: int,
        seed: int,
        device: torch.device,
        channels_last: bool,
        workers: int,
    ) -> None:
        super().__init__(source, batch_size=global_batch, seed=seed, device=device, workers=workers)
        self.steps, self._batch, self._first = steps, batch, first
        self._normalise, self._channels_last = normalisation, channels_last
        self.start(MaskCropWork(source=source, augmentation=augmentation, seed=seed))

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """The rows of a step, each as pass x images + image."""
        start = (epoch * self.steps + step) * self.batch_size + self._first
        through, place = np.divmod(np.arange(start, start + self._batch), len(self.source))
        images = np.array([self.order(int(n))[at] for n, at in zip(through, place, strict=True)], np.int64)
        return np.asarray(through * len(self.source) + images)

    def finish(self, loaded: Loaded) -> MaskBatch:
        """The crops normalised, 0 in the padding, and their masks."""
        pixels, masks, inside = loaded.items
        images = self._normalise(pixels)
        images *= inside[:, None]
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return MaskBatch(images=images, masks=masks.long())


@dataclass(frozen=True, kw_only=True)
class MaskWork(Work):
    """Reads images with their masks; one that cannot be read ends the run."""

    unreadable: ClassVar[Literal["stop"]] = "stop"
    source: MaskSource

    def fetch(self, index: int, bad: list[BadImage]) -> Masked:
        """One image and its mask; `index` may count on over passes through the set."""
        index %= len(self.source)
        return Masked(image=self.source.read(index), mask=self.source.mask(index))


@dataclass(frozen=True, kw_only=True)
class MaskCropWork(MaskWork):
    """The crops of a step."""

    augmentation: MaskAugmentation
    seed: int

    def item(self, request: Request) -> Callable[[int, int, Masked], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pixels (S x S x 3), mask and where there is image (S x S), all uint8."""

        def crop(row: int, index: int, masked: Masked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            random = np.random.default_rng((self.seed, *divmod(index, len(self.source)), 3))
            made = augment(masked.image, masked.mask, self.augmentation, random)
            return made.pixels, made.mask, made.inside

        return crop


@dataclass(frozen=True, kw_only=True)
class WholeImageWork(MaskWork):
    """Images resized to fit, keeping their shape, with their masks as they are stored."""

    scale_long: int
    scale_short: int

    def item(self, request: Request) -> Callable[[int, int, Masked], tuple[np.ndarray, np.ndarray]]:
        """H x W x 3 and H' x W' uint8."""

        def resized(row: int, index: int, masked: Masked) -> tuple[np.ndarray, np.ndarray]:
            size = fitted(masked.image.size, long=self.scale_long, short=self.scale_short)
            return np.array(masked.image.resize(size, Resampling.BILINEAR)), masked.mask

        return resized


def whole_images(
    source: MaskSource,
    normalisation: Normalisation,
    *,
    scale_long: int,
    scale_short: int,
    indices: np.ndarray,
    device: torch.device,
    workers: int,
) -> Iterator[WholeImage]:
    """The images that `indices` names, one by one; raises UserError if one cannot be read."""

    def finish(loaded: Loaded) -> WholeImage:
        pixels, masks = loaded.items
        return WholeImage(image=normalisation(pixels), mask=masks[0].long(), index=int(loaded.kept[0]))

    work = WholeImageWork(source=source, scale_long=scale_long, scale_short=scale_short)
    yield from WorkerPool(work, workers=workers, device=device).run(in_order(np.asarray(indices), 1), finish)
