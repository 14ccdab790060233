"""Vectors from Python: `embed` for pictures at hand, `embed_folder` for any number of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simsiam.embedding.vectors import embedding

if TYPE_CHECKING:
    import numpy as np

    from simsiam.config import Machine
    from simsiam.embedding.embedder import Embedder, Pictures
    from simsiam.embedding.vectors import Embedded, Embedding, Layer, Normalise
    from simsiam.weights.load import Loaded
    from simsiam.weights.pretrained import PretrainedBackbone


def embed(
    images: Pictures,
    weights: str | Path | Loaded,
    *,
    layer: Layer = "pooled",
    normalise: Normalise = "none",
    size: int | None = None,
    device: str = "auto",
) -> np.ndarray:
    """Embed pictures: N x C float32, in the order given.

    Args:
        images: N x H x W x 3 uint8 RGB, a sequence of paths, PIL images or arrays, or a single one.
        weights: what `load_backbone` takes, or what it gave: that saves loading them again, and moves it to the device.
        layer: the pooled output, or the average of one stage's map.
        normalise: `l2` for vectors of length 1.
        size: pixels of the square that the network sees; None: as it was trained.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises UserError if the weights cannot be loaded, or with a list of the pictures that cannot be read.

    >>> embed(["train/circle/000.jpg", Image.new("RGB", (50, 40))], "runs/demo", size=32).shape
    (2, 64)
    """
    return embedder(weights, layer=layer, normalise=normalise, size=size, device=device)(images)


def embedder(
    weights: str | Path | Loaded,
    *,
    layer: Layer = "pooled",
    normalise: Normalise = "none",
    size: int | None = None,
    device: str = "auto",
) -> Embedder:
    """`embed` with the weights loaded once: call what it gives with pictures.

    >>> vectors = embedder("runs/demo", normalise="l2", size=32)
    >>> vectors(Image.new("RGB", (50, 40))).shape
    (1, 64)
    """
    from simsiam.embedding.embedder import Embedder

    subject = _subject(weights)
    return Embedder(subject, _settings(subject, layer, normalise, size), device=device)


def embed_folder(
    images: str | Path,
    weights: str | Path | Loaded,
    *,
    kind: Literal["folder", "list", "shards", "imagenet", "cifar10"] = "folder",
    layer: Layer = "pooled",
    normalise: Normalise = "none",
    size: int | None = None,
    machine: Machine | None = None,
) -> Embedded:
    """Embed a folder, list or tar shards of any size, through the cache: the same call again reads what is there.

    Files that cannot be read are left out and listed in `bad`. `simsiam.embedding.files.write` makes a file
    of what comes out.

    >>> found = embed_folder("photos", "runs/demo", size=32)
    >>> len(found), found.channels, found.features.bad
    (24, 64, [])
    """
    from simsiam.config import Machine
    from simsiam.data.sources import open_source
    from simsiam.embedding.vectors import embed_source

    subject = _subject(weights)
    place = machine if machine is not None else Machine()
    source = open_source(images, kind=kind, split="all", cache=place.cache)
    return embed_source(subject, source, _settings(subject, layer, normalise, size), machine=place)


def _subject(weights: str | Path | Loaded) -> PretrainedBackbone:
    from simsiam.weights.load import Loaded
    from simsiam.weights.pretrained import PretrainedBackbone, load_any

    loaded = weights if isinstance(weights, Loaded) else load_any(str(weights), seed=0)
    found = loaded.preprocess
    return PretrainedBackbone(
        backbone=loaded.backbone, size=found.size, mean=found.mean, std=found.std, weights=loaded.weights, seed=0
    )


def _settings(subject: PretrainedBackbone, layer: Layer, normalise: Normalise, size: int | None) -> Embedding:
    return replace(embedding(size if size is not None else subject.size), layer=layer, normalise=normalise)
