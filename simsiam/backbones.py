"""Backbones that give a feature map a stage (five in the published ones): ResNets, and timm models by an extra.

A ResNet here has torchvision's tensor names (`conv1`, `bn1`, `layer1.0.conv1`, ...) without the classifier, so
that weights pass between the two unchanged. Source: He et al. 2016; the initialisation is the published one of
SimSiam (He normal by fan-out, the last BatchNorm of every residual block at zero).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from simsiam.config import Stem
from simsiam.errors import UserError, did_you_mean, install_extra

BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet8": (BasicBlock, (1, 1, 1)),  # the three-stage CIFAR form of He et al. 2016, section 4.2, at n = 1
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
TIMM = "timm:"


class Backbone(nn.Module, ABC):
    """What every protocol relies on: `forward` for pooled features, `stages` for the maps.

    Attributes:
        name: as in the recipe.
        features: channels of the pooled output.
        stage_channels: channels of the maps, the stem's first; five in the published ResNets.
    """

    name: str
    features: int
    stage_channels: tuple[int, ...]

    @abstractmethod
    def stages(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the stem (before its pooling) and of each stage, each B x C x H x W."""

    def forward(self, images: Tensor) -> Tensor:
        """Globally average-pooled features of the last stage, B x features."""
        return self.stages(images)[-1].mean((2, 3))

    @abstractmethod
    def stage_modules(self) -> list[list[nn.Module]]:
        """The modules of each stage, for freezing and for learning rates by stage."""


class ResNet(Backbone):
    """A ResNet without its classifier.

    Args:
        name: a key of BLOCKS.
        width: channels of the stem and of the first stage's 3x3 convolutions; 64 in the published networks.
        stem: `imagenet` (7x7 stride 2, then 3x3 max-pool stride 2), `small` (3x3 stride 1, no pool: CIFAR) or
            `small-stride2` (3x3 stride 2, no pool).
    """

    def __init__(self, name: str, *, width: int = 64, stem: Stem = "imagenet") -> None:
        super().__init__()
        block, depths = BLOCKS[name]
        self.name, self.width, self.stem = name, width, stem
        kernel, stride, padding = {"imagenet": (7, 2, 3), "small": (3, 1, 1), "small-stride2": (3, 2, 1)}[stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        channels = [width]
        for stage, depth in enumerate(depths):
            planes = width * 2**stage
            layer = _residual_stage(block, channels[-1], planes, depth, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
            channels.append(planes * block.expansion)
        self.stage_channels = tuple(channels)
        self.features = channels[-1]
        initialise(self)

    @property
    def stem_stride(self) -> int:
        """Pixels of the image to one of what the first residual stage sees."""
        return int(self.conv1.stride[0]) * (2 if isinstance(self.maxpool, nn.MaxPool2d) else 1)

    def stages(self, images: Tensor) -> list[Tensor]:
        """One map after conv1-bn1-relu (before the max-pool), then one after each residual stage."""
        stem = self.relu(self.bn1(self.conv1(images)))
        maps = [stem]
        x = self.maxpool(stem)
        for layer in self._layers():
            x = layer(x)
            maps.append(x)
        return maps

    def stage_modules(self) -> list[list[nn.Module]]:
        """conv1 and bn1, then layer1 and so on."""
        return [[self.conv1, self.bn1], *[[layer] for layer in self._layers()]]

    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{n}") for n in range(1, len(self.stage_channels))]


def _residual_stage(
    block: type[BasicBlock | Bottleneck], channels_in: int, planes: int, depth: int, *, stride: int
) -> nn.Sequential:
    channels_out = planes * block.expansion
    downsample = None
    if stride != 1 or channels_in != channels_out:
        downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
        )
    blocks = [block(channels_in, planes, stride, downsample)]
    blocks += [block(channels_out, planes) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out), unit BatchNorm, and zero for each block's last BatchNorm weight."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        last = part.bn3 if isinstance(part, Bottleneck) else part.bn2 if isinstance(part, BasicBlock) else None
        if isinstance(last, nn.BatchNorm2d):
            nn.init.zeros_(last.weight)


class TimmBackbone(Backbone):
    """A timm model by a name that `check_known` passes, with the maps that timm calls its intermediate features."""

    def __init__(self, name: str) -> None:
        import timm

        super().__init__()
        self.name = name
        net: Any = timm.create_model(name.removeprefix(TIMM), pretrained=False, num_classes=0)
        self.net: nn.Module = net
        self.features = int(net.num_features)
        info: Any = getattr(net, "feature_info", None) or []
        channels = info.channels() if hasattr(info, "channels") else [part["num_chs"] for part in info]
        self.stage_channels = tuple(int(c) for c in channels)

    def stages(self, images: Tensor) -> list[Tensor]:
        """timm's intermediate maps, as many as the model has (five for ResNets)."""
        intermediates: Any = getattr(self.net, "forward_intermediates", None)
        if intermediates is None:
            raise UserError(f"timm model {self.name!r} gives no intermediate maps; use pooled features only.")
        maps: list[Tensor] = intermediates(images, intermediates_only=True)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """The model's own pooled features, B x features."""
        pooled: Tensor = self.net(images)
        return pooled

    def stage_modules(self) -> list[list[nn.Module]]:
        """The whole model as one stage: timm names no common stages."""
        return [[self.net]]


class PooledModule(Backbone):
    """Any module that gives pooled features, as a backbone without maps.

    Args:
        module: B x 3 x H x W to B x C.
        size: pixels of the images that it can take.

    Raises UserError if it gives anything else.
    """

    def __init__(self, module: nn.Module, *, size: int) -> None:
        super().__init__()
        self.name, self.net, self.stage_channels = type(module).__name__, module, ()
        first = next(module.parameters(), torch.zeros(()))
        was_training = module.training
        with torch.no_grad():
            found = module.eval()(torch.zeros(2, 3, size, size, device=first.device, dtype=first.dtype))
        module.train(was_training)
        if not isinstance(found, Tensor) or found.dim() != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"{self.name}: gives {shape} for two images; expected pooled features, one row for each image. Wrap it "
                "so that it ends with global pooling."
            )
        self.features = found.shape[1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """None; raises UserError."""
        raise UserError(f"{self.name}: a module of your own gives pooled features only, and this needs feature maps.")

    def forward(self, images: Tensor) -> Tensor:
        """The module's own features, B x features."""
        pooled: Tensor = self.net(images)
        return pooled

    def stage_modules(self) -> list[list[nn.Module]]:
        """The whole module as one stage."""
        return [[self.net]]


def as_backbone(module: nn.Module, *, size: int = 224) -> Backbone:
    """A module as a backbone that shares its parameters; networks of torchvision and timm without their classifier.

    ResNets of torchvision give all maps, others pooled features only.

    Args:
        module: one of ours, a ResNet of torchvision, or any that gives pooled features B x C.
        size: pixels of the images; one pass of two empty ones tells the width of other modules.

    Raises UserError where a module gives no pooled features.
    """
    if isinstance(module, Backbone):
        return module
    theirs = {name: tensor.shape for name, tensor in module.state_dict().items() if not name.startswith("fc.")}
    if isinstance(module, torchvision.models.ResNet):
        small: Stem = "small" if module.conv1.stride[0] == 1 else "small-stride2"
        stem: Stem = "imagenet" if module.conv1.kernel_size[0] == 7 else small
        for name in BLOCKS:
            with torch.device("meta"):  # nothing is drawn and nothing is allocated: every part comes from the module
                network = ResNet(name, width=module.conv1.out_channels, stem=stem)
            if theirs == {key: tensor.shape for key, tensor in network.state_dict().items()}:
                for part, _ in list(network.named_children()):
                    setattr(network, part, module.get_submodule(part))
                return network
    return PooledModule(_without_classifier(module), size=size)


def _without_classifier(module: nn.Module) -> nn.Module:
    """A network of torchvision or timm before its classifier, with the same parts; other modules as they are."""
    if not type(module).__module__.startswith(("torchvision.models.", "timm.models.")):
        return module
    shorter = copy.copy(module)
    shorter._modules = dict(module._modules)
    for name in ("fc", "classifier", "head", "heads"):
        if isinstance(getattr(shorter, name, None), nn.Linear | nn.Sequential):
            setattr(shorter, name, nn.Identity())
    return shorter


def check_known(name: str, *, flag: str = "--backbone") -> None:
    """Raise UserError that names the flag and the nearest networks where no network has this name."""
    if name in BLOCKS:
        return
    if not name.startswith(TIMM):
        known = f"{', '.join(BLOCKS)} or timm:NAME"
        raise UserError(f"{flag} {name}: there is no such network.{did_you_mean(name, BLOCKS)} Known: {known}.")
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{flag} {name}: needs timm: {install_extra('timm')}") from error
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        raise UserError(f"{flag} {name}: timm has no such model.{did_you_mean(short, timm.list_models(), most=3)}")


def build_backbone(name: str, *, width: int = 64, stem: Stem = "imagenet") -> Backbone:
    """A freshly initialised backbone by name; raises UserError with the nearest names on a typo."""
    check_known(name, flag="backbone")
    return TimmBackbone(name) if name.startswith(TIMM) else ResNet(name, width=width, stem=stem)


def parameter_bytes(module: nn.Module) -> int:
    """Bytes that the parameters and buffers take."""
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
