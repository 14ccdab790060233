"""Recipes of the kNN, SVM, low-shot, few-label, clustering and retrieval protocols: every setting by name.

`size` is that of the images that the backbone was trained on: 224 gives the published settings.
"""

from __future__ import annotations

from dataclasses import replace

from simsiam.data.preprocess import short_edge
from simsiam.evaluation.classification.clustering import Clustering
from simsiam.evaluation.classification.few_labels import FewLabels
from simsiam.evaluation.classification.knn import Knn
from simsiam.evaluation.classification.low_shot import LowShot
from simsiam.evaluation.classification.retrieval import Retrieval
from simsiam.evaluation.classification.settings import PooledFeatures, SvmFeatures
from simsiam.evaluation.classification.svm import Svm

PUBLISHED_COSTS = (1.0, 10.0, 100.0, *(0.5**power for power in range(4, 20)))  # 19, in the scripts' order


def knn(size: int) -> Knn:
    """kNN with the settings of MMSelfSup's tool: k 10, 20, 100, 200 and T 0.07."""
    return Knn(
        name=f"knn_{size}px",
        k=(10, 20, 100, 200),
        quoted_k=20,
        temperature=0.07,
        resize=short_edge(size),
        size=size,
        precision="fp32",
        storage="fp16" if size > 64 else "fp32",
        batch_size=256,
    )


def knn_monitor(size: int) -> Knn:
    """The method's own kNN monitor: k 200, T 0.2 (as the author gives it), or T 0.1 for CIFAR-sized images."""
    temperature = 0.2 if size > 64 else 0.1
    return replace(knn(size), name=f"knn_monitor_{size}px", k=(200,), quoted_k=200, temperature=temperature)


def svm_voc07(size: int) -> Svm:
    """The SVM column of the model zoo page."""
    return Svm(
        name=f"svm_voc07_{size}px",
        features=_stages(size),
        costs=PUBLISHED_COSTS,
        positive_weight=2.0,
        folds=3,
    )


def svm_pooled(size: int) -> Svm:
    """The same on globally pooled features alone, for sets that are much larger than VOC07."""
    recipe = svm_voc07(size)
    return replace(recipe, name=f"svm_pooled_{size}px", features=replace(recipe.features, layers="pooled"))


def low_shot_voc07(size: int) -> LowShot:
    """Low-shot SVMs on seeded samples, the cost chosen on the training images that the samples left out."""
    return LowShot(
        name=f"low_shot_voc07_{size}px",
        features=_stages(size),
        layer="feature5",
        k=(1, 2, 4, 8, 16, 32, 64, 96),
        samples=5,
        sampling="seeded",
        sample_files=None,
        selection="unused",
        costs=PUBLISHED_COSTS,
        positive_weight=2.0,
    )


def low_shot_voc07_published(size: int) -> LowShot:
    """As the published scripts do: samples drawn without a seed, the cost of each k chosen on the test set."""
    return replace(
        low_shot_voc07(size), name=f"low_shot_voc07_published_{size}px", sampling="unseeded", selection="test"
    )


def few_labels(size: int) -> FewLabels:
    """Logistic regression on pooled features, 5 folds, 5 repeats."""
    return FewLabels(
        name=f"few_labels_{size}px",
        features=_pooled(size),
        classifier="logistic",
        costs=(0.001, 0.01, 0.1, 1.0, 10.0),
        k=10,
        temperature=0.07,
        folds=5,
        repeats=5,
    )


def clustering(size: int) -> Clustering:
    """k-means with as many clusters as classes, ten starts."""
    return Clustering(name=f"clustering_{size}px", features=_pooled(size), clusters=None, starts=10, iterations=300)


def retrieval(size: int) -> Retrieval:
    """Recall at 1, 5 and 10 among the other test images."""
    return Retrieval(name=f"retrieval_{size}px", features=_pooled(size), k=(1, 5, 10), gallery="test")


def _stages(size: int) -> SvmFeatures:
    return SvmFeatures(
        layers="stages",
        pooling="specified",
        kind="squash",
        resize=short_edge(size),
        size=size,
        precision="fp32",
        storage="fp32",
        batch_size=32,
    )


def _pooled(size: int) -> PooledFeatures:
    return PooledFeatures(resize=short_edge(size), size=size, precision="fp32", batch_size=256)
