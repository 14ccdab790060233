"""Embeddings as a scikit-learn transformer, for pipelines, grid searches and cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from simsiam.embedding.library import embedder
from simsiam.errors import UserError

if TYPE_CHECKING:
    from simsiam.embedding.embedder import Embedder
    from simsiam.embedding.vectors import Layer, Normalise


class SimSiamEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images in, vectors out, with a frozen backbone: `fit` loads the weights and learns nothing.

    Args:
        weights: what `load_backbone` takes: a run folder, a file, or a zoo name.
        layer: `pooled`, or `feature1` to `feature5` for the average of a stage's map.
        normalise: `l2` for vectors of length 1, `none` as they are.
        size: pixels of the square that the network sees; None: as it was trained.
        device: auto, cpu, cuda, cuda:N or mps.

    Attributes:
        n_features_out_: numbers in a vector.
        weights_sha256_: of the backbone that was loaded.

    A fitted transformer holds the network, so that it can be pickled and used where the file is not.
    """

    embedder_: Embedder
    n_features_out_: int
    weights_sha256_: str

    def __init__(
        self,
        weights: str | None = None,
        *,
        layer: Layer = "pooled",
        normalise: Normalise = "none",
        size: int | None = None,
        device: str = "auto",
    ) -> None:
        self.weights = weights
        self.layer = layer
        self.normalise = normalise
        self.size = size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> SimSiamEmbedding:
        """Load the weights; X and y are not looked at. Raises UserError if they cannot be loaded."""
        if self.weights is None:
            raise UserError("SimSiamEmbedding: name the weights, as SimSiamEmbedding('runs/NAME').")
        self.embedder_ = embedder(
            self.weights, layer=self.layer, normalise=self.normalise, size=self.size, device=self.device
        )
        self.n_features_out_ = self.embedder_.channels
        self.weights_sha256_ = self.embedder_.subject.weights.sha256
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Args:
            X: N x H x W x 3 uint8, a sequence of paths, PIL images or arrays, or one column of paths, as pipelines
                hand it on (N x 1, or a data frame of one column).

        Returns:
            N x n_features_out_ float32.

        Raises UserError that lists the images which cannot be read.
        """
        check_is_fitted(self, "embedder_")
        return self.embedder_(_column(X))

    @property
    def _n_features_out(self) -> int:
        """What get_feature_names_out counts."""
        return self.n_features_out_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _column(X: Any) -> Any:
    """A single column of paths or pictures as a sequence; anything else as it is."""
    if hasattr(X, "to_numpy"):  # a data frame or a series
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUS":
        return X[:, 0].tolist()
    return X
