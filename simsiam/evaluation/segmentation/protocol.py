"""Semantic segmentation: a fully convolutional network on the weights, trained whole and scored by mIoU.

Sources: Long et al. 2015; the model zoo's configurations for VOC2012 + aug and Cityscapes (all settings). Nothing is
frozen and BatchNorm trains, over all devices where they are GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simsiam.config import Machine
from simsiam.data.splits import data_id
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from simsiam.data.segmentation.masks import MaskSplits


@dataclass(frozen=True, kw_only=True)
class _MaskProtocol(Protocol["MaskSplits"]):
    """A segmentor around the backbone, trained whole; what the benchmarks below have in common."""

    everyday: ClassVar[tuple[str, ...]] = ("iterations", "batch_size", "lr", "lr_sweep", "sweep_choice", "precision")
    segmentation: Segmentation

    @property
    def main_metric(self) -> str:
        """Mean intersection over union."""
        return "miou"

    def data_id(self, data: MaskSplits) -> DataId:
        """Both sets."""
        return data_id(data.train, data.test)

    def remarks(self, subject: PretrainedBackbone, data: MaskSplits) -> list[str]:
        """How the sets were read, and images in both of them."""
        return [*self.data_notes(data), *data.notes]

    def score(self, subject: PretrainedBackbone, data: MaskSplits, *, machine: Machine) -> Measured:
        """miou, pixel_accuracy and mean_accuracy, percent; `detail["per_class"]["IoU"]` by class."""
        from simsiam.evaluation.segmentation.finish import train_and_score

        return train_and_score(self, self.segmentation, subject, data, machine)


class SegmentationVoc12Aug(_MaskProtocol):
    """mIoU on VOC2012 val after training on VOC2012 + aug."""

    protocol: ClassVar[str] = "segmentation_voc12aug"


class SegmentationCityscapes(_MaskProtocol):
    """mIoU on Cityscapes val after training on its fine masks."""

    protocol: ClassVar[str] = "segmentation_cityscapes"


class SegmentationFolder(_MaskProtocol):
    """mIoU on images and masks of one's own."""

    protocol: ClassVar[str] = "segmentation_folder"
