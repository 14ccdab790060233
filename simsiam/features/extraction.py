"""Features of frozen backbones: pooled vectors or the five stage maps, streamed over any number of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from simsiam.backbones import Backbone
from simsiam.data.images import BadImage
from simsiam.data.sources import Source
from simsiam.engine import precision as number_format
from simsiam.engine import stopping
from simsiam.engine.precision import Precision
from simsiam.errors import UserError
from simsiam.wording import counted, plural

Layers = Literal["pooled", "stages"]  # the globally pooled output, or the pooled map of every stage
Pooling = Literal["specified", "adaptive"]
Storage = Literal["fp32", "fp16"]

MOST = 9216  # values of a pooled map: 64 x 12 x 12, 256 x 6 x 6, 1024 x 3 x 3
# Channels and side of a map of ResNet-50 (101, 152) at 224 pixels -> kernel, stride, padding; padding counts in the
# mean. Source: Goyal et al. 2019; as in the model zoo's code.
SPECIFIED = {
    (64, 112): (10, 10, 4),
    (256, 56): (16, 8, 0),
    (512, 28): (13, 5, 0),
    (1024, 14): (8, 3, 0),
    (2048, 7): (6, 1, 0),
}


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features by layer: `pooled`, or `feature1` (the stem) to `feature5`."""

    arrays: dict[str, np.ndarray]  # each N x C, float32 or float16; memory-mapped where they come from a file
    indices: np.ndarray  # N int64: which image of the source each row is
    bad: list[BadImage]  # images left out
    notes: list[str] = field(default_factory=list)

    @property
    def pooled(self) -> np.ndarray:
        """The pooled features, N x C."""
        return self.arrays["pooled"]

    def labels(self, source: Source) -> np.ndarray:
        """The label of every row; raises UserError if the source has none or leaves one unknown."""
        if source.labels is None:
            raise UserError(
                f"{source.name}: these images have no labels. Put each class in a sub-folder of its own, or give a "
                "list with a label on each line."
            )
        labels: np.ndarray = np.asarray(source.labels)[self.indices]
        unknown = int((labels < 0).sum())
        if unknown:
            first = source.path(int(self.indices[int((labels < 0).argmax())]))
            raise UserError(
                f"{source.name}: {counted(unknown, 'image has', 'images have')} no label (first: {first}). Label or "
                f"remove {plural(unknown, 'it', 'them')}."
            )
        return labels

    def skipped(self, source: Source) -> list[str]:
        """A note on the images left out, if there are any."""
        if not self.bad:
            return []
        first = f"{self.bad[0].path}: {self.bad[0].reason}"
        return [
            f"{source.name}: {len(self.bad):,} of {counted(len(source), 'image')} could not be read (first: {first})"
        ]


class Batch(Protocol):
    """Images on the device, as any of the loaders gives them."""

    @property
    def images(self) -> Tensor:
        """B x 3 x S x S."""

    @property
    def indices(self) -> Tensor:
        """B int64, CPU: which image of the source each row is."""

    @property
    def bad(self) -> list[BadImage]:
        """Images that were left out."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """The features of one batch."""

    arrays: dict[str, np.ndarray]  # each B x C; empty when no image of the batch could be read
    indices: np.ndarray  # B
    bad: list[BadImage]
    notes: list[str]


def extract(
    backbone: nn.Module,
    batches: Iterable[Batch],
    *,
    layers: Layers = "pooled",
    pooling: Pooling = "specified",
    precision: Precision = "fp32",
    storage: Storage = "fp32",
) -> Features:
    """Features of all batches in memory; the backbone is left in the mode (training or evaluation) that it had.

    Raises UserError if no image could be read. `simsiam.features.store` does the same through files.
    """
    blocks = list(stream(backbone, batches, layers=layers, pooling=pooling, precision=precision, storage=storage))
    full = [block for block in blocks if block.arrays]
    if not full:
        raise UserError("no image could be read, so there are no features. Check the data path.")
    return Features(
        arrays={name: np.concatenate([block.arrays[name] for block in full]) for name in full[0].arrays},
        indices=np.concatenate([block.indices for block in full]),
        bad=[bad for block in blocks for bad in block.bad],
        notes=full[0].notes,
    )


def stream(
    backbone: nn.Module,
    batches: Iterable[Batch],
    *,
    layers: Layers,
    pooling: Pooling,
    precision: Precision,
    storage: Storage,
) -> Iterator[Block]:
    """Features batch by batch: evaluation mode, no gradients; each row is a flattened pooled map or a pooled vector."""
    pools: list[nn.Module] = []
    notes: list[str] = []
    stages = backbone.stages if isinstance(backbone, Backbone) and layers == "stages" else None
    with evaluation_mode(backbone):
        for batch in batches:
            stopping.check()
            arrays: dict[str, np.ndarray] = {}
            if len(batch.indices):
                # entered for each batch: the caller must not find itself in inference mode between two of them
                with torch.inference_mode(), number_format.autocast(precision, batch.images.device):
                    maps = stages(batch.images) if stages is not None else [backbone(batch.images)]
                    if stages is not None and not pools:
                        pools = stage_pools(maps, pooling)
                        notes = _pooling_notes(maps, pools, pooling)
                    rows = [pool(part).flatten(1) for pool, part in zip(pools, maps, strict=True)] if pools else maps
                    arrays = {
                        name: _stored(part, storage) for name, part in zip(_names(rows, layers), rows, strict=True)
                    }
            yield Block(arrays=arrays, indices=batch.indices.numpy(), bad=batch.bad, notes=notes)


def stage_pools(maps: Sequence[Tensor], pooling: Pooling) -> list[nn.Module]:
    """The pooling of each map (B x C x H x W) to B x C x h x w.

    `specified` takes the published kernels for the maps that they were made for. Any other map, and every map under
    `adaptive`, is averaged to the largest square grid of at most 9,216 values in all: 12, 6, 4, 3 and 2 a side for
    the channels of ResNet-50.
    """
    return [_pool(features, pooling) for features in maps]


def _pool(features: Tensor, pooling: Pooling) -> nn.Module:
    _, channels, height, width = features.shape
    kernel = SPECIFIED.get((channels, height)) if height == width and pooling == "specified" else None
    if kernel is not None:
        size, stride, padding = kernel
        return nn.AvgPool2d(size, stride, padding, count_include_pad=True)
    side = max(1, math.isqrt(MOST // channels))
    return nn.AdaptiveAvgPool2d((min(side, height), min(side, width)))


def _names(rows: Sequence[Tensor], layers: Layers) -> list[str]:
    return ["pooled"] if layers == "pooled" else [f"feature{number}" for number in range(1, len(rows) + 1)]


def _stored(rows: Tensor, storage: Storage) -> np.ndarray:
    return rows.to(torch.float32 if storage == "fp32" else torch.float16).cpu().numpy()


def _pooling_notes(maps: Sequence[Tensor], pools: Sequence[nn.Module], pooling: Pooling) -> list[str]:
    if pooling == "adaptive" or all(isinstance(pool, nn.AvgPool2d) for pool in pools):
        return []
    shapes = ", ".join("x".join(str(size) for size in part.shape[1:]) for part in maps)
    grids = ", ".join(
        "x".join(str(size) for size in pool(part[:1]).shape[2:]) for pool, part in zip(pools, maps, strict=True)
    )
    return [
        f"the published pooling is for a ResNet-50 at 224 pixels; the maps here are {shapes} and were averaged to "
        f"{grids} (adaptive), at most 9,216 numbers each where the channels allow it"
    ]


@contextmanager
def evaluation_mode(backbone: nn.Module) -> Iterator[None]:
    """Running BatchNorm statistics, used and not updated; every module gets its own mode back at the end."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
