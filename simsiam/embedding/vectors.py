"""Embeddings of images: one vector each from a frozen backbone, for search, clustering or another program.

The raw features come from `features.store`, which streams any number of images through memory-mapped files and resumes
after an interruption; scaling to unit length happens as they are read, so both forms share one extraction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from simsiam.config import Machine, as_dict
from simsiam.data.preprocess import Preprocess, short_edge
from simsiam.errors import UserError
from simsiam.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from simsiam.backbones import Backbone
    from simsiam.data.images import BadImage
    from simsiam.data.sources import Source
    from simsiam.features.extraction import Features
    from simsiam.weights.pretrained import PretrainedBackbone

Layer = Literal["pooled", "feature1", "feature2", "feature3", "feature4", "feature5"]
Normalise = Literal["none", "l2"]
BLOCK_ROWS = 8192  # read, scaled and written at a time: 64 MiB at 2048 numbers


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """All that an image's vector depends on, besides the weights; `embedding` names every field."""

    layer: Layer  # pooled: the network's output; featureN: the map of stage N, averaged over its area.
    normalise: Normalise  # l2: every vector has length 1, so that a dot product is the cosine.
    fit: Literal["center", "squash"]  # What is done to a picture that is not square: cut out its centre, or squeeze it.
    resize: int  # Pixels that the short edge is resized to before the cut.
    size: int  # Pixels of the square that the network sees.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the forward pass.
    storage: Literal["fp32", "fp16"]  # Number format of the stored features.
    batch_size: int  # Images in a forward pass; it does not change the vectors beyond rounding.

    def check(self) -> None:
        """Raise UserError for a size that no network takes, or a crop larger than what it is cut from."""
        if self.size < 8:
            raise UserError(f"--size {self.size}: 8 pixels or more.")
        if self.fit == "center" and self.resize < self.size:
            raise UserError(
                f"--resize {self.resize}: the centre of {self.size} pixels is cut out of it, so it must be {self.size} "
                "or more."
            )
        if self.resize < 8 or self.batch_size < 1:
            flag, value = ("--resize", self.resize) if self.resize < 8 else ("--batch-size", self.batch_size)
            raise UserError(f"{flag} {value}: too small.")

    def preprocess(self, subject: PretrainedBackbone) -> Preprocess:
        """How an image is brought to the subject's network."""
        return Preprocess(kind=self.fit, resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)


def embedding(size: int) -> Embedding:
    """The network's pooled output, as it is, of the centre of each picture at `size` pixels (as kNN takes it)."""
    return Embedding(
        layer="pooled",
        normalise="none",
        fit="center",
        resize=short_edge(size),
        size=size,
        precision="fp32",
        storage="fp32",
        batch_size=64,
    )


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The vectors of a source's readable images, in its order."""

    source: Source
    features: Features  # of one layer, under the name "pooled"; raw, memory-mapped
    settings: Embedding
    weights: str  # SHA-256 of the backbone
    facts: dict[str, Any]  # what a file of these vectors must say of itself

    def __len__(self) -> int:
        return len(self.features.indices)

    @property
    def channels(self) -> int:
        """Numbers in a vector."""
        return int(self.features.pooled.shape[1])

    @property
    def bad(self) -> list[BadImage]:
        """Images that could not be read and have no vector."""
        return self.features.bad

    def path(self, row: int) -> str:
        """The name of a row's image, relative to the source."""
        return self.source.path(int(self.features.indices[row]))

    def label(self, row: int) -> str | None:
        """The class of a row's image, where the source knows it."""
        labels = self.source.labels
        return None if labels is None else self.source.class_name(int(labels[self.features.indices[row]]))

    def digests(self) -> np.ndarray:
        """A digest of the content of each row's image, N x 16 uint8."""
        found: np.ndarray = self.source.digests()[self.features.indices]
        return found

    def blocks(self, *, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """The vectors block by block, each B x C float32, scaled as the settings say."""
        import numpy as np

        for start in range(0, len(self), rows):
            block = np.asarray(self.features.pooled[start : start + rows], np.float32)
            yield unit_rows(block) if self.settings.normalise == "l2" else block


def embed_source(subject: PretrainedBackbone, source: Source, settings: Embedding, *, machine: Machine) -> Embedded:
    """Vectors of all readable images of a source, from the cache or computed into it.

    Raises UserError if the network has no such layer, no image can be read, or the cache cannot be written.
    """
    from simsiam.data.splits import data_id
    from simsiam.features.store import Extraction, features_of
    from simsiam.results import versions

    settings.check()
    extraction = Extraction(
        preprocess=settings.preprocess(subject),
        layers="pooled",
        pooling="specified",
        precision=settings.precision,
        storage=settings.storage,
        batch_size=settings.batch_size,
    )
    at = replace(subject, backbone=at_layer(subject.backbone, settings.layer))
    features = features_of(at, source, extraction, machine=machine)
    identity = data_id(source)
    facts = {
        "weights": subject.weights.source,
        "weights_sha256": subject.weights.sha256,
        "backbone": subject.backbone.name,
        "channels": int(features.pooled.shape[1]),
        "rows": len(features.indices),
        "left_out": len(features.bad),
        "settings": as_dict(settings),
        "mean": list(subject.mean),
        "std": list(subject.std),
        "data": identity.name,
        "data_sha256": identity.sha256,
        "versions": versions(),
    }
    return Embedded(source=source, features=features, settings=settings, weights=subject.weights.sha256, facts=facts)


def at_layer(backbone: Backbone, layer: Layer) -> Backbone:
    """The backbone with the average of one stage's map as its output; the very backbone for `pooled`.

    Raises UserError if the network has fewer stages.
    """
    if layer == "pooled":
        return backbone
    stages = len(backbone.stage_channels)
    number = int(layer.removeprefix("feature"))
    if number > stages:
        known = ", ".join(f"feature{n}" for n in range(1, stages + 1))
        raise UserError(
            f"--layer {layer}: {backbone.name} has {counted(stages, 'stage')}. Use pooled{known and ', '}{known}."
        )
    return _at_stage(backbone, number)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """N x C as float32 with every row at length 1; a row of zeros stays one.

    Raises UserError on a NaN or an infinity.
    """
    import numpy as np

    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        first = int(np.flatnonzero(~np.isfinite(norms[:, 0]))[0])
        raise UserError(
            f"the vectors hold a NaN or an infinity (first in row {first}): the weights diverged in training, or half "
            "precision overflowed. Use fp32, or another checkpoint."
        )
    unit: np.ndarray = rows / np.maximum(norms, 1e-12)
    return unit


def _at_stage(backbone: Backbone, number: int) -> Backbone:
    from torch import Tensor, nn

    from simsiam.backbones import Backbone

    class AtStage(Backbone):
        """One stage's map, averaged, in place of the last one's."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = backbone
            self.name = f"{backbone.name}/feature{number}"
            self.features = backbone.stage_channels[number - 1]
            self.stage_channels = backbone.stage_channels[:number]

        def stages(self, images: Tensor) -> list[Tensor]:
            return backbone.stages(images)[:number]

        def stage_modules(self) -> list[list[nn.Module]]:
            return backbone.stage_modules()[:number]

    return AtStage()
