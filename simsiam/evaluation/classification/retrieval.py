"""Retrieval by class: how often an image of the same class is among the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from simsiam.config import Machine
from simsiam.data.splits import Splits
from simsiam.evaluation.classification.settings import PooledFeatures
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.features.neighbours import nearest
from simsiam.limits import Count
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone


@dataclass(frozen=True, kw_only=True)
class Retrieval(Protocol[Splits]):
    """Recall@k: the share of test images that have one of their class among their k nearest of the gallery."""

    protocol: ClassVar[str] = "retrieval"
    everyday: ClassVar[tuple[str, ...]] = ("k", "gallery")
    features: PooledFeatures
    k: tuple[Count, ...]  # How many nearest images are looked at; a figure for each.
    gallery: Literal["train", "test"]  # Where they are looked for: the other test images, or the training images.

    @property
    def main_metric(self) -> str:
        """Recall at the smallest k."""
        return f"recall_at_{min(self.k)}"

    def data_id(self, data: Splits) -> DataId:
        """Both sets, or the test set where it is its own gallery."""
        from simsiam.data.splits import data_id

        return data.data_id if self.gallery == "train" else data_id(data.test)

    def data_notes(self, data: Splits) -> list[str]:
        """Of both sets, where both are used."""
        return super().data_notes(data) if self.gallery == "train" else []

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """recall_at_K for every K, percent."""
        import numpy as np

        from simsiam.data.classification.loader import class_count, labels_of
        from simsiam.engine.distributed import pick_device

        if self.gallery == "train":
            class_count(data.train, data.test)
        else:
            labels_of(data.test)
        queries = self.features.extract(subject, data.test, machine)
        notes = queries.skipped(data.test)
        labels = queries.labels(data.test)
        rows, row_labels = queries.pooled, labels
        if self.gallery == "train":
            gallery = self.features.extract(subject, data.train, machine)
            rows, row_labels = gallery.pooled, gallery.labels(data.train)
            notes += gallery.skipped(data.train)
        found = nearest(
            queries.pooled,
            rows,
            k=max(self.k),
            device=pick_device(machine.device),
            own_row="skip" if self.gallery == "test" else "keep",
        )
        same = row_labels[found.index.numpy()] == labels[:, None]  # Q x k
        return Measured(
            metrics={f"recall_at_{k}": 100 * float(same[:, :k].any(1).mean()) for k in self.k},
            detail={"queries": len(labels), "gallery": len(rows), "classes": len(np.unique(labels))},
            notes=notes,
        )
