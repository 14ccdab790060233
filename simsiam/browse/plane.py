"""Vectors as points of a plane, for the map."""

from __future__ import annotations

from typing import Literal

import numpy as np

Method = Literal["pca", "tsne"]
MOST: dict[Method, int] = {"pca": 10_000, "tsne": 2_000}  # points; a larger set is sampled
COMPONENTS = 50  # that t-SNE starts from


def chosen(total: int, method: Method) -> np.ndarray:
    """The rows that a map shows, ascending: all of them, or a sample with a fixed seed."""
    if total <= MOST[method]:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, MOST[method], replace=False))


def plane(rows: np.ndarray, method: Method) -> np.ndarray:
    """N x C as N x 2 between 0 and 1, the longer side filling the range; the same for the same rows.

    pca: the two directions of largest variance. t-SNE: neighbours stay neighbours (van der Maaten and Hinton 2008),
    distances between far points mean nothing.
    """
    if len(rows) < 3:
        return np.linspace(0.25, 0.75, max(len(rows), 1))[: len(rows), None].repeat(2, 1)
    from sklearn.decomposition import PCA

    components = min(2 if method == "pca" else COMPONENTS, *rows.shape)
    points = PCA(components, random_state=0, svd_solver="randomized").fit_transform(rows)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(rows) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    points = points - points.min(0)
    extent = points.max(0)
    scaled: np.ndarray = (points + (extent.max() - extent) / 2) / max(float(extent.max()), 1e-12)
    return scaled
