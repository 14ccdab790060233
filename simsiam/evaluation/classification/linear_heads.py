"""The heads of the linear protocols: one linear classifier per feature map, or one on the pooled features.

Source: Goyal et al. 2019, "Scaling and benchmarking self-supervised visual representation learning", section 6, in
the settings of the model zoo's configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from simsiam.backbones import Backbone
from simsiam.engine import precision
from simsiam.engine.distributed import sum_over_processes
from simsiam.engine.precision import Precision
from simsiam.features.extraction import Pooling, stage_pools


class FrozenFeatureNorm(nn.Module):
    """BatchNorm2d(affine=False) for features that need no gradient, with statistics over all processes.

    Only the values are normalised, so the exchange of statistics needs no backward pass and works with any
    backend, on the CPU too (torch's SyncBatchNorm is for GPUs). With one process it equals BatchNorm2d.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Normalise B x C x H x W by the batch's statistics (training) or the running ones (evaluation)."""
        several = dist.is_available() and dist.is_initialized()
        # torch refuses to train on one value per channel; the formula below has an answer for it, and for none.
        if not self.training or not (several or features[:, 0].numel() < 2):
            return functional.batch_norm(
                features, self.running_mean, self.running_var, None, None, self.training, self.momentum, self.eps
            )
        channels = features.shape[1]
        # Two exchanges, the mean first: squares about the mean lose no digits.
        count = features.new_tensor([features[:, 0].numel()])
        totals = sum_over_processes(torch.cat([features.sum((0, 2, 3)), count]))
        rows = totals[channels].clamp(min=1)
        mean = totals[:channels] / rows
        centred = features - mean[:, None, None]
        squares = sum_over_processes(centred.square().sum((0, 2, 3)))
        momentum = self.momentum * (totals[channels] > 0)  # a batch without images leaves the statistics alone
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(squares / (rows - 1).clamp(min=1), momentum)
        return centred / (squares / rows + self.eps).sqrt()[:, None, None]


class StageHead(nn.Module):
    """A feature map -> pooled, normalised (no affine), flattened -> class scores.

    Args:
        pool: B x C x H x W -> B x C x h x w.
        channels: C.
        dims: C x h x w.
    """

    def __init__(self, pool: nn.Module, *, channels: int, dims: int, classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = FrozenFeatureNorm(channels)
        self.fc = linear(dims, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Scores, B x classes."""
        scores: Tensor = self.fc(self.norm(self.pool(features)).flatten(1))
        return scores


class Heads(nn.Module):
    """Independent classifiers, one for each tensor of features."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Scores of each head, each B x classes."""
        return [head(part) for head, part in zip(self.heads, features, strict=True)]


class FineTuned(nn.Module):
    """A backbone with a linear classifier on its pooled features, all of it trained."""

    def __init__(self, backbone: Backbone, classes: int, *, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = linear(backbone.features, classes)
        self.precision = precision

    def forward(self, images: Tensor) -> list[Tensor]:
        """Scores, B x classes, as the only entry of a list."""
        self.backbone.train(self.training and not self._lacks_statistics(images))
        with precision.autocast(self.precision, images.device):
            features = self.backbone(images)
        return [self.head(features.float())]

    def _lacks_statistics(self, images: Tensor) -> bool:
        """Whether plain BatchNorm cannot train on a batch: no image, or one whose last map is a single value.

        The last step of an epoch, or a process's share of it, may be as small; it then uses the running statistics.
        """
        if len(images) > 1 or any(isinstance(part, nn.SyncBatchNorm) for part in self.backbone.modules()):
            return False
        if not len(images):
            return True
        self.backbone.eval()
        with torch.no_grad():
            return self.backbone.stages(images)[-1][0, 0].numel() == 1


def linear(dims: int, classes: int) -> nn.Linear:
    """A linear classifier in its published start: weights from N(0, 0.01^2), biases 0."""
    layer = nn.Linear(dims, classes)
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
    return layer


def stage_heads(backbone: Backbone, pooling: Pooling, *, size: int, classes: int) -> list[StageHead]:
    """A head for each feature map of a backbone in evaluation mode, at images of size x size."""
    parameter = next(backbone.parameters())
    with torch.no_grad():
        maps = backbone.stages(torch.zeros(1, 3, size, size, device=parameter.device))
    heads = []
    for features, pool in zip(maps, stage_pools(maps, pooling), strict=True):
        dims = pool(features).flatten(1).shape[1]
        heads.append(StageHead(pool, channels=features.shape[1], dims=dims, classes=classes))
    return heads


def features_of(
    backbone: Backbone, layer: Literal["stages", "pooled"], kind: Precision
) -> Callable[[Tensor], list[Tensor]]:
    """Images -> what the heads take, in float32 whatever the backbone computes in."""

    def features(images: Tensor) -> list[Tensor]:
        with precision.autocast(kind, images.device):
            parts = backbone.stages(images) if layer == "stages" else [backbone(images)]
        return [part.float() for part in parts]

    return features
