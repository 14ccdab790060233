"""A whole detector: a pre-trained ResNet, its feature maps, proposals, heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from simsiam.backbones import Backbone
from simsiam.data.detection.boxes import LearnTarget
from simsiam.errors import UserError
from simsiam.evaluation.detection.features import C4, Features, Pyramid
from simsiam.evaluation.detection.heads import Description, FourConvs, MaskHead, Res5
from simsiam.evaluation.detection.roi import Detections, RoiHeads
from simsiam.evaluation.detection.rpn import RegionProposals
from simsiam.evaluation.detection.settings import Architecture


class Detector(nn.Module):
    """Faster R-CNN, or Mask R-CNN where the architecture has masks. Build it with `build_detector`."""

    def __init__(self, architecture: Architecture, *, features: Features, rpn: RegionProposals, roi: RoiHeads) -> None:
        super().__init__()
        self.architecture = architecture
        self.features, self.rpn, self.roi = features, rpn, roi
        for norm in self._frozen_norms():
            norm.requires_grad_(False)

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        truths: Sequence[LearnTarget],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The losses of a batch, in training.

        Args:
            images: B x 3 x H x W, normalised, padded at the right and below.
            sizes: height and width of each without padding.
            truths: the objects of each.
            generator: of the samplers, on the CPU.
        """
        maps = self.features(images)
        levels = self.rpn(maps)
        proposals = self.rpn.propose(levels, sizes, self.architecture.rpn.train)
        return {
            **self.rpn.losses(levels, sizes, truths, generator),
            **self.roi.losses(self._pooled_from(maps), proposals, truths, generator),
        }

    @torch.no_grad()
    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """What is in each image, in evaluation mode."""
        maps = self.features(images)
        proposals = self.rpn.propose(self.rpn(maps), sizes, self.architecture.rpn.test)
        return self.roi.detect(self._pooled_from(maps), proposals, sizes)

    def train(self, mode: bool = True) -> Detector:
        """Training or evaluation mode; frozen BatchNorm stays in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    def _frozen_norms(self) -> list[nn.Module]:
        """Looked up anew each time: several processes replace BatchNorm by its synchronised form."""
        if self.architecture.backbone_norm == "trained":
            return []
        stage = self.features.last_stage.modules() if self.features.last_stage is not None else ()
        return [m for m in (*self.features.trunk.modules(), *stage) if isinstance(m, _BatchNorm)]

    def _pooled_from(self, maps: list[Tensor]) -> list[Tensor]:
        """Boxes are pooled from the residual stages' levels; the one above serves large anchors only."""
        return maps[: len(self.roi.strides)]


def build_detector(architecture: Architecture, backbone: Backbone, classes: int) -> Detector:
    """A detector around a copy of the backbone; its other layers are drawn from torch's generator.

    Raises UserError if the backbone is no ResNet, or if a tensor of it did not arrive (section 5.4 of the zoo's
    instructions leaves half of a C4 detector random without a word; here that is an error).
    """
    features: Features
    describe: Description
    norm, boxes = architecture.head_norm, architecture.boxes
    if architecture.features == "c4":
        features = C4(backbone)
        assert features.last_stage is not None
        describe = Res5(features.last_stage, channels=backbone.stage_channels[-1], norm=norm)
        strides = features.strides
    else:
        features = Pyramid(backbone, channels=architecture.pyramid_channels, norm=norm)
        describe = FourConvs(
            channels_in=features.channels, channels=boxes.channels, hidden=boxes.hidden, side=boxes.pool, norm=norm
        )
        strides = features.strides[:-1]
    mask_head = None
    if architecture.masks is not None:
        channels = describe.map_channels or features.channels
        mask_head = MaskHead(architecture.masks, channels_in=channels, classes=classes, norm=norm)
    roi = RoiHeads(architecture, describe=describe, mask_head=mask_head, strides=strides, classes=classes)
    rpn = RegionProposals(architecture.rpn, channels=features.channels, strides=features.strides)
    detector = Detector(architecture, features=features, rpn=rpn, roi=roi)
    check_complete(detector, backbone)
    return detector


def check_complete(detector: Detector, backbone: Backbone) -> int:
    """How many tensors of the backbone are in the detector: all of them, unchanged, or UserError says which are not.

    Looked up among the tensors that the detector trains and saves, not among those that it was given.
    """
    held = {tensor.data_ptr() for tensor in detector.state_dict().values()}
    arrived = detector.features.backbone_tensors()
    wanted = backbone.state_dict()
    missing = [
        name
        for name, tensor in wanted.items()
        if name not in arrived or arrived[name].data_ptr() not in held or not torch.equal(arrived[name], tensor)
    ]
    if missing:
        shown = ", ".join(missing[:5])
        raise UserError(
            f"{backbone.name}: {len(missing)} of {len(wanted)} tensors did not get into the detector ({shown}). "
            "Nothing was trained; the weights and the architecture do not belong together."
        )
    return len(wanted)
