"""The features that classification protocols measure: how they are extracted, and rows of unit length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simsiam.config import Machine
from simsiam.data.preprocess import Preprocess
from simsiam.errors import UserError
from simsiam.limits import Count
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    import numpy as np

    from simsiam.data.classification.voc import MultiLabelSet
    from simsiam.data.sources import Source
    from simsiam.features.extraction import Features

NORM_FLOOR = 1e-5  # added to each row's norm


@dataclass(frozen=True, kw_only=True)
class PooledFeatures:
    """Pooled features of a centre crop."""

    resize: Count  # Pixels that the short edge is resized to, before the centre crop.
    size: Count  # Pixels of the crop.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the backbone's forward pass.
    batch_size: Count  # Images in a forward pass; it does not change the figure beyond rounding.

    def extract(self, subject: PretrainedBackbone, source: Source, machine: Machine) -> Features:
        """The features of a source."""
        from simsiam.features.store import Extraction, features_of

        preprocess = Preprocess(kind="center", resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)
        extraction = Extraction(
            preprocess=preprocess,
            layers="pooled",
            pooling="specified",
            precision=self.precision,
            storage="fp32",
            batch_size=self.batch_size,
        )
        return features_of(subject, source, extraction, machine=machine)


@dataclass(frozen=True, kw_only=True)
class SvmFeatures:
    """Which features the SVMs see."""

    layers: Literal["stages", "pooled"]  # stages: every feature map; pooled: the pooled output alone.
    # How maps are pooled to about 9,000 numbers: as published, or to a grid that fits other maps.
    pooling: Literal["specified", "adaptive"]
    kind: Literal["squash", "center"]  # How an image is brought to size: squash both edges, or cut out its centre.
    resize: Count  # Pixels that the short edge is resized to, for --kind center.
    size: Count  # Pixels of the image that the network sees.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]  # Number format of the backbone's forward pass.
    storage: Literal["fp32", "fp16"]  # Number format of the features in their files.
    batch_size: Count  # Images in a forward pass; it does not change the figure beyond rounding.

    def extract(self, subject: PretrainedBackbone, part: MultiLabelSet, machine: Machine) -> Features:
        """The features of one set."""
        from simsiam.features.store import Extraction, features_of

        preprocess = Preprocess(kind=self.kind, resize=self.resize, size=self.size, mean=subject.mean, std=subject.std)
        extraction = Extraction(
            preprocess=preprocess,
            layers=self.layers,
            pooling=self.pooling,
            precision=self.precision,
            storage=self.storage,
            batch_size=self.batch_size,
        )
        return features_of(subject, part.source, extraction, machine=machine)


def normalised(features: np.ndarray) -> np.ndarray:
    """Each row in float64, divided by its L2 norm + 1e-5; UserError on a NaN or an infinity."""
    import numpy as np

    rows = np.array(features, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        bad = int((~np.isfinite(norms[:, 0])).argmax())
        raise UserError(
            f"the features hold a NaN or an infinity (first in row {bad}): the weights diverged in training, or half "
            "precision overflowed. Extract in fp32, or use another checkpoint."
        )
    rows /= norms + NORM_FLOOR
    return rows
