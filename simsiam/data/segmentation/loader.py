"""Batches of images and masks on the device: an endless shuffled stream of crops for training, whole images for test.

A crop is drawn from (seed, pass through the set, image) and nothing else, so that batches do not depend on the number
of processes or workers, nor on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simsiam.data.images import UnreadableImage
from simsiam.data.reading import Crops, Request
from simsiam.data.segmentation.masks import MaskSource
from simsiam.data.segmentation.transforms import MaskAugmentation, augment, fitted
from simsiam.data.workers import WorkerPool


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
class Normalisation:
    """8-bit pixels to what the weights were trained on."""

    mean: tuple[float, float, float]  # RGB, of pixels in [0, 1]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """B x H x W x 3 uint8 -> B x 3 x H x W float32."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return images.sub_(mean).div_(std)


class MaskLoader:
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
        self._source, self._seed, self._steps = source, seed, steps
        self._global, self._batch, self._first = global_batch, batch, first
        self._normalise, self._device, self._channels_last = normalisation, device, channels_last
        self._kept: tuple[int, np.ndarray] | None = None
        work = MaskCropWork(source=source, augmentation=augmentation, seed=seed)
        self._pool = WorkerPool(work, workers=workers, device=device, lasting=True)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[MaskBatch]:
        """The batches of an epoch from `first_step` on; raises UserError if an image cannot be read."""
        requests = [self._request(epoch, step) for step in range(first_step, self._steps)]
        return self._pool.run(requests, self._finish)

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()

    def _request(self, epoch: int, step: int) -> Request:
        """The rows of a step, each as pass x images + image."""
        start = (epoch * self._steps + step) * self._global + self._first
        rows = np.arange(start, start + self._batch)
        through, place = np.divmod(rows, len(self._source))
        images = np.array([self._order(int(n))[at] for n, at in zip(through, place, strict=True)], np.int64)
        return Request(epoch=epoch, step=step, indices=through * len(self._source) + images)

    def _order(self, through: int) -> np.ndarray:
        """The order of one pass; the last one that was asked for is kept."""
        if self._kept is None or self._kept[0] != through:
            self._kept = through, self._source.order(seed=self._seed, epoch=through)
        return self._kept[1]

    def _finish(self, crops: Crops) -> MaskBatch:
        images = self._normalise(crops.first.to(self._device, non_blocking=True))
        second = crops.second.to(self._device, non_blocking=True)
        images *= second[:, 1:]
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return MaskBatch(images=images, masks=second[:, 0].long())


@dataclass(frozen=True, kw_only=True)
class MaskCropWork:
    """The crops of a step; runs in the loader's processes."""

    source: MaskSource
    augmentation: MaskAugmentation
    seed: int

    def __getitem__(self, request: Request) -> Crops:
        """Read, transform and stack; `second` is B x 2 x S x S, the mask and where there is image."""
        pixels, masks = [], []
        for row in request.indices.tolist():
            through, index = divmod(row, len(self.source))
            try:
                image, mask = self.source.read(index), self.source.mask(index)
            except UnreadableImage as error:
                return _failed(request, f"{self.source.name}: {error} It was whole when the data were checked.")
            crop = augment(image, mask, self.augmentation, np.random.default_rng((self.seed, through, index, 3)))
            pixels.append(crop.pixels)
            masks.append(np.stack([crop.mask, crop.inside]))
        return _crops(request, np.stack(pixels), np.stack(masks))


@dataclass(frozen=True, kw_only=True)
class WholeImageWork:
    """Images resized to fit, keeping their shape, with their masks as they are stored."""

    source: MaskSource
    scale_long: int
    scale_short: int

    def __getitem__(self, request: Request) -> Crops:
        """Read and resize one image."""
        from PIL import Image

        index = int(request.indices[0])
        try:
            image, mask = self.source.read(index), self.source.mask(index)
        except UnreadableImage as error:
            return _failed(request, f"{self.source.name}: {error} It was whole when the data were checked.")
        size = fitted(image.size, long=self.scale_long, short=self.scale_short)
        pixels = np.array(image.resize(size, Image.Resampling.BILINEAR))
        return _crops(request, pixels[None], mask[None])


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

    def finish(crops: Crops) -> WholeImage:
        return WholeImage(
            image=normalisation(crops.first.to(device, non_blocking=True)),
            mask=crops.second[0].to(device, non_blocking=True).long(),
            index=int(crops.kept[0]),
        )

    requests = [Request(epoch=0, step=step, indices=np.array([index])) for step, index in enumerate(indices)]
    work = WholeImageWork(source=source, scale_long=scale_long, scale_short=scale_short)
    pool = WorkerPool(work, workers=workers, device=device, lasting=False)
    yield from pool.run(requests, finish)


def _crops(request: Request, first: np.ndarray, second: np.ndarray) -> Crops:
    kept = torch.from_numpy(request.indices.astype(np.int64))
    return Crops(request=request, first=torch.from_numpy(first), second=torch.from_numpy(second), kept=kept, bad=[])


def _failed(request: Request, message: str) -> Crops:
    empty = torch.empty(0, dtype=torch.uint8)
    return Crops(request=request, first=empty, second=empty, kept=torch.empty(0).long(), bad=[], error=message)
