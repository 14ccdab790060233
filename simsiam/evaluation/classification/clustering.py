"""How well k-means clusters of the features agree with the classes: NMI and ARI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simsiam.config import Machine
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import PooledFeatures, normalised
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.data.sources import Source


@dataclass(frozen=True, kw_only=True)
class Clustering(Protocol["Source"]):
    """k-means on unit-length pooled features."""

    protocol: ClassVar[str] = "clustering"
    main_metric: ClassVar[str] = "nmi"  # normalised mutual information
    everyday: ClassVar[tuple[str, ...]] = ("clusters",)
    features: PooledFeatures
    clusters: Count | None  # How many clusters; without it, as many as there are classes.
    starts: Count  # Number of random starts of k-means; the tightest clustering counts.
    iterations: Count  # Most steps of k-means from each start.

    def score(self, subject: PretrainedBackbone, data: Source, *, machine: Machine) -> Measured:
        """nmi (arithmetic mean) and ari, 1 for perfect agreement."""
        import numpy as np
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        from simsiam.data.classification.loader import labels_of

        labels_of(data)
        features = self.features.extract(subject, data, machine)
        labels = features.labels(data)
        clusters = self.clusters if self.clusters is not None else len(np.unique(labels))
        if not 2 <= clusters <= len(labels):
            raise UserError(
                f"{data.name}: {counted(clusters, 'cluster')} of {counted(len(labels), 'image')}; use 2 ... "
                f"{len(labels)}."
            )
        means = KMeans(clusters, n_init=self.starts, max_iter=self.iterations, random_state=subject.seed)
        found = means.fit_predict(normalised(features.pooled).astype(np.float32))
        return Measured(
            metrics={
                "nmi": float(normalized_mutual_info_score(labels, found)),
                "ari": float(adjusted_rand_score(labels, found)),
            },
            detail={"clusters": clusters, "classes": len(np.unique(labels)), "images": len(labels)},
            notes=features.skipped(data),
        )
