"""A whole detector: a pre-trained ResNet, its feature maps (C4, or a pyramid), proposals, heads.

Of torchvision come the operations that have the same numbers: RoIAlign, non-maximum suppression, overlaps, conversion
and clipping of boxes. The parts of torchvision.models.detection differ from the published detectors, so ours stay:
its anchors are rounded; its pooling samples without the half-pixel shift; its matcher has no lowest overlap for the
best boxes of an object and gives each of them to the object nearest to it; its box coder bounds growth alone; its
sampler draws from the global generator; its pyramid draws its first weights in another order and under other names
than kept detectors have.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from simsiam.backbones import Backbone, ResNet
from simsiam.data.detection.boxes import LearnTarget
from simsiam.errors import UserError
from simsiam.evaluation.detection.heads import Description, FourConvs, MaskHead, Norm, Res5, conv_block
from simsiam.evaluation.detection.settings import Architecture
from simsiam.evaluation.detection.stages import Detections, RegionProposals, RoiHeads


class Features(nn.Module, ABC):
    """Images B x 3 x H x W -> maps, finest first.

    Attributes:
        trunk: the backbone, without the last stage where that is part of the head.
        strides: of each map, in pixels.
        channels: of every map.
        last_stage: the stage that is not part of it but of the head, or None.
    """

    trunk: ResNet
    strides: tuple[int, ...]
    channels: int
    last_stage: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, each B x channels x H / stride x W / stride."""

    @abstractmethod
    def backbone_tensors(self) -> dict[str, Tensor]:
        """Every tensor that came from the backbone, by the backbone's own name, wherever it lives now."""


class C4(Features):
    """The last stage but one as the only map; the last stage goes to the head (R50-C4 of the published tables)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk = _copy(backbone)
        self._last_name = f"layer{len(self.trunk.stage_channels) - 1}"
        last = self.trunk.get_submodule(self._last_name)
        setattr(self.trunk, self._last_name, nn.Identity())
        self.strides = (residual_strides(self.trunk)[-2],)
        self.channels = self.trunk.stage_channels[-2]
        # Kept from being registered here: the head owns it, and a tensor shall have one name.
        object.__setattr__(self, "last_stage", last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """One map."""
        return [self.trunk.stages(images)[-2]]

    def backbone_tensors(self) -> dict[str, Tensor]:
        """The trunk's, and the last stage's under its old name."""
        assert self.last_stage is not None
        last = self.last_stage.state_dict()
        return {**self.trunk.state_dict(), **{f"{self._last_name}.{name}": tensor for name, tensor in last.items()}}


class Pyramid(Features):
    """A feature pyramid over all residual stages, and a level above by subsampling (Lin et al. 2017).

    With `norm` BatchNorm follows every convolution, and no activation.
    """

    def __init__(self, backbone: Backbone, *, channels: int, norm: Norm) -> None:
        super().__init__()
        self.trunk = _copy(backbone)
        self.last_stage = None
        self.channels = channels
        strides = residual_strides(self.trunk)
        self.strides = (*strides, strides[-1] * 2)
        self.lateral = nn.ModuleList(conv_block(c, channels, 1, norm) for c in self.trunk.stage_channels[1:])
        self.output = nn.ModuleList(conv_block(channels, channels, 3, norm) for _ in strides)
        for layer in [*self.lateral.modules(), *self.output.modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """A map for each residual stage and one more."""
        stages = self.trunk.stages(images)[1:]
        maps = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            above = functional.interpolate(maps[level], size=maps[level - 1].shape[-2:], mode="nearest")
            maps[level - 1] = maps[level - 1] + above
        maps = [output(each) for output, each in zip(self.output, maps, strict=True)]
        return [*maps, functional.max_pool2d(maps[-1], 1, stride=2)]

    def backbone_tensors(self) -> dict[str, Tensor]:
        """The trunk's."""
        return dict(self.trunk.state_dict())


def residual_strides(backbone: ResNet) -> tuple[int, ...]:
    """The stride of each residual stage in pixels; it doubles from stage to stage."""
    return tuple(backbone.stem_stride * 2**stage for stage in range(len(backbone.stage_channels) - 1))


def _copy(backbone: Backbone) -> ResNet:
    """A copy to be trained; raises UserError for what is no ResNet of ours."""
    if not isinstance(backbone, ResNet):
        raise UserError(
            f"{backbone.name}: detection needs a ResNet with separate stages "
            "(resnet10 to resnet152); a timm model is not one."
        )
    network = copy.deepcopy(backbone)
    network.requires_grad_(True)
    return network


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
