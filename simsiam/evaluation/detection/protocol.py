"""Detection transfer: a detector around the backbone, fine-tuned as a whole and scored by average precision.

Sources: the model zoo's configurations (Faster R-CNN R50-C4 on VOC07+12, Mask R-CNN on COCO); He et al. 2020 (MoCo),
appendix, for the C4 form with an extra BatchNorm; Chen & He 2021, table 5, for the transfer settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simsiam.config import Machine
from simsiam.data.splits import data_id
from simsiam.evaluation.detection.settings import DetectionSettings
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from simsiam.evaluation.detection.data import BoxSets


@dataclass(frozen=True, kw_only=True)
class Detection(DetectionSettings, Protocol["BoxSets"]):
    """The settings of a detection benchmark as a protocol."""

    nested_flags: ClassVar[bool] = True
    everyday: ClassVar[tuple[str, ...]] = ("lr", "batch_size", "accumulate", "lr_sweep", "sweep_choice", "precision")

    @property
    def protocol(self) -> str:  # type: ignore[override]  # one class serves several benchmarks, told apart by a field
        """What Result.protocol says."""
        return f"detection_{self.benchmark}"

    def remarks(self, subject: PretrainedBackbone, data: BoxSets) -> list[str]:
        """How the sets were read, images in both of them, and whether the anchors suit the objects."""
        from simsiam.evaluation.detection.finish import remarks

        return [*self.data_notes(data), *data.notes, *remarks(self, subject, data)]

    def data_id(self, data: BoxSets) -> DataId:
        """Both sets."""
        return data_id(data.train, data.test)

    def score(self, subject: PretrainedBackbone, data: BoxSets, *, machine: Machine) -> Measured:
        """Average precisions in percent: ap50, ap50_area, ap, ap75 (VOC), or box_* and mask_* (COCO).

        Trains in `machine.out` from its last checkpoint on. Raises UserError as the settings, data or weights ask
        for it, and `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        from simsiam.evaluation.detection.finish import train_and_score

        self.check()
        return train_and_score(self, subject, data, machine=machine)
