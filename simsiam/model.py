"""SimSiam: backbone, projector, predictor and loss (Chen and He, arXiv 2011.10566, section 3 and Algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam import backbones
from simsiam.config import PUBLISHED_MODEL, HeadsNorm, Model, Similarity
from simsiam.engine.optimizers import Group


class Outputs(NamedTuple):
    """What one pass over two views gives: predictions p and projections z, each B x d."""

    p1: Tensor
    p2: Tensor
    z1: Tensor
    z2: Tensor


class SimSiam(nn.Module):
    """The network that is pre-trained: backbone, projector and predictor. Afterwards only `backbone` is kept.

    Args:
        network: "resnet50" (or another name that `--backbone` takes, "timm:NAME" for a timm model); or a module: a
            ResNet of torchvision, whose classifier is left out, or any that gives pooled features B x C; its
            weights are trained in place; or a recipe's whole network record.
        size: pixels of the images; one pass of two empty ones tells how many features another's module gives.
        changes: fields of `simsiam.config.Model` other than published, such as projector_dim=512.

    Raises UserError for an unknown name, and for a module without pooled features.

    >>> model = SimSiam("resnet18", projector_dim=512, predictor_dim=128)
    >>> p1, p2, z1, z2 = model(torch.randn(4, 3, 64, 64), torch.randn(4, 3, 64, 64))
    >>> p1.shape, z1.shape, z1.requires_grad
    (torch.Size([4, 512]), torch.Size([4, 512]), False)
    """

    def __init__(self, network: str | nn.Module | Model, *, size: int = 224, **changes: Any) -> None:
        super().__init__()
        self.backbone, model = _backbone_and_record(network, size, changes)
        self.projector = build_projector(
            self.backbone.features,
            model.projector_hidden,
            model.projector_dim,
            layers=model.projector_layers,
            norm=model.heads_norm,
        )
        self.predictor: nn.Module = nn.Identity()
        if model.predictor != "none":
            self.predictor = build_predictor(model.projector_dim, model.predictor_dim, norm=model.heads_norm)
            self.predictor.requires_grad_(model.predictor == "mlp")
        self.stop_gradient = model.stop_gradient == "on"

    def parameter_groups(
        self, *, lr: float, predictor_lr: Literal["fixed", "cosine"] = "fixed"
    ) -> list[dict[str, Any]]:
        """Parameters for an optimiser of torch: the encoder, and the predictor, whose rate stays (paper, Table 1).

        The group's "schedule" says "fixed" or "scheduled"; `simsiam.engine.optimizers.set_lr` heeds it. Schedulers of
        torch do not: give `LambdaLR` one function a group, such as `[cosine, lambda epoch: 1.0]`.

        >>> groups = SimSiam("resnet18", projector_dim=64).parameter_groups(lr=0.05)
        >>> [(group["name"], group["lr"], group["schedule"]) for group in groups]
        [('encoder', 0.05, 'scheduled'), ('predictor', 0.05, 'fixed')]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
        """
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        groups = [Group(name="encoder", parameters=encoder, lr=lr)]
        if predictor := [each for each in self.predictor.parameters() if each.requires_grad]:
            kind: Literal["fixed", "scheduled"] = "fixed" if predictor_lr == "fixed" else "scheduled"
            groups.append(Group(name="predictor", parameters=predictor, lr=lr, schedule=kind))
        return [group.options() for group in groups]

    def project(self, x: Tensor) -> Tensor:
        """Projections of images: B x 3 x H x W to B x d."""
        z: Tensor = self.projector(self.backbone(x))
        return z

    def forward(self, x1: Tensor, x2: Tensor) -> Outputs:
        """Two passes, one a view, so that BatchNorm statistics are per view."""
        z1, z2 = self.project(x1), self.project(x2)  # B x d
        p1, p2 = self.predictor(z1), self.predictor(z2)  # B x d
        if self.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        return Outputs(p1, p2, z1, z2)


def _backbone_and_record(
    network: str | nn.Module | Model, size: int, changes: dict[str, Any]
) -> tuple[backbones.Backbone, Model]:
    """The backbone itself, and the record that the heads are built by."""
    if isinstance(network, nn.Module):
        return backbones.as_backbone(network, size=size), replace(PUBLISHED_MODEL, **changes)
    if isinstance(network, str):
        network = replace(PUBLISHED_MODEL, backbone=network)
    model = replace(network, **changes)
    return backbones.build_backbone(model.backbone, width=model.width, stem=model.stem), model


def loss(
    p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, similarity: Similarity = "cosine", symmetric: bool = True
) -> Tensor:
    """The symmetrised negative cosine similarity, a scalar in [-1, 1] (paper, equation 2).

    Args:
        p1, p2: predictions of the two views, B x d.
        z1, z2: projections, B x d; `SimSiam` gives them without a gradient.
        similarity: cross-entropy: of softmax(z) and softmax(p) in place of the cosine (paper, section 4.5).
        symmetric: False: of p1 and z2 alone (paper, equation 3).

    >>> z = torch.eye(4)
    >>> loss(z, z, z, z)
    tensor(-1.)
    """
    p1, p2, z1, z2 = (t if t.dtype == torch.float64 else t.float() for t in (p1, p2, z1, z2))
    apart = negative_cosine if similarity == "cosine" else cross_entropy
    total: Tensor = (apart(p1, z2) + apart(p2, z1)) / 2 if symmetric else apart(p1, z2)
    return total


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z): minus the mean cosine similarity of the rows of two B x d tensors (paper, equation 1)."""
    similarity: Tensor = functional.cosine_similarity(p, z, dim=1)
    return -similarity.mean()


def cross_entropy(p: Tensor, z: Tensor) -> Tensor:
    """The mean of -softmax(z) . log softmax(p) over the rows of two B x d tensors (paper, section 4.5)."""
    return -(z.softmax(1) * p.log_softmax(1)).sum(1).mean()


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """How evenly the projections fill the sphere: 1 when healthy, 0 when all are one point.

    The per-channel standard deviation over the batch of z / |z|, averaged over channels, times sqrt(d)
    (paper, Figure 2, which draws it without the factor).
    """
    unit = functional.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
    deviation: Tensor = unit.std(0).mean()
    scaled: Tensor = deviation * z.shape[1] ** 0.5
    return scaled


def build_projector(features: int, hidden: int, dim: int, *, layers: int, norm: HeadsNorm = "default") -> nn.Sequential:
    """The projection MLP: Linear-BN-ReLU, ..., Linear-BN without affine (paper, "Projection MLP" and Table 3).

    A Linear has a bias only where no BatchNorm follows; `norm` says where one does, as `Model.heads_norm`.
    """
    hidden = hidden or features
    parts: list[nn.Module] = []
    width = features
    for _ in range(layers - 1):
        parts += _hidden(width, hidden, norm)
        width = hidden
    outer = norm in ("default", "all")
    parts.append(nn.Linear(width, dim, bias=not outer))
    return nn.Sequential(*parts, *([nn.BatchNorm1d(dim, affine=False)] if outer else []))


def build_predictor(dim: int, hidden: int, *, norm: HeadsNorm = "default") -> nn.Sequential:
    """The prediction MLP, a bottleneck: Linear-BN-ReLU-Linear; the last has a bias (paper, "Prediction MLP").

    `norm` all: a BatchNorm in place of that bias.
    """
    last = [nn.Linear(hidden, dim, bias=False), nn.BatchNorm1d(dim)] if norm == "all" else [nn.Linear(hidden, dim)]
    return nn.Sequential(*_hidden(dim, hidden, norm), *last)


def _hidden(width: int, hidden: int, norm: HeadsNorm) -> list[nn.Module]:
    """A hidden layer of a head: width to hidden."""
    if norm == "none":
        return [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
    return [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
