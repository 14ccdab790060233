"""Our backbones under timm's own door: `timm.create_model("simsiam_resnet50", weights="runs/NAME")`.

timm finds models of other packages by import alone, not by an entry point: import this module once, then
`timm.list_models("simsiam_*")` names them. The network is timm's own ResNet, so heads, `features_only`, drop path and
the rest are timm's too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam.errors import UserError, install_extra

try:
    import timm
    from timm.models import register_model
except ImportError as error:
    raise UserError(f"simsiam.integrations.timm_models needs timm: {install_extra('timm')}") from error

from simsiam.weights.load import load_backbone
from simsiam.weights.targets import STEMS, give_small_stem, plain_state, require_resnet

if TYPE_CHECKING:
    from torch import nn

__all__ = ["simsiam_resnet18", "simsiam_resnet34", "simsiam_resnet50", "simsiam_resnet101", "simsiam_resnet152"]


def _entry(name: str) -> Any:
    """A function as timm registers them: under its own name, in this module."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _create(name, pretrained, kwargs)

    create.__name__ = f"simsiam_{name}"
    create.__doc__ = f"timm's {name} with `weights=` from a run folder, a file or a zoo name."
    return register_model(create)


simsiam_resnet18, simsiam_resnet34 = _entry("resnet18"), _entry("resnet34")
simsiam_resnet50, simsiam_resnet101, simsiam_resnet152 = _entry("resnet50"), _entry("resnet101"), _entry("resnet152")


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    weights: str | Path | None = kwargs.pop("weights", None)
    kwargs.setdefault("num_classes", 0)  # a pre-trained backbone has no classifier
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    if weights is None:
        if pretrained:
            raise UserError(f"simsiam_{name}: pretrained=True does not say which; give weights='runs/NAME' instead.")
        return timm.create_model(name, **kwargs)
    loaded = load_backbone(weights)
    backbone = require_resnet(loaded, f"timm (simsiam_{name})", stems=STEMS, widths="64", names=(name,))
    network: Any = timm.create_model(name, **kwargs)
    give_small_stem(network, backbone)
    _fill(network, dict(plain_state(loaded)), weights)
    found = loaded.preprocess
    config = {"input_size": (3, found.size, found.size), "mean": found.mean, "std": found.std}
    network.pretrained_cfg = {**getattr(network, "pretrained_cfg", {}), **config, "interpolation": "bilinear"}
    made: nn.Module = network
    return made


def _fill(network: nn.Module, state: dict[str, Any], weights: str | Path) -> None:
    """Load the tensors: all of them, but for a new classifier and, in a network cut short, the stages it lacks."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in state and not name.startswith("fc.")]
    if missing:
        named = ", ".join(missing[:8]) + (" and more" if len(missing) > 8 else "")
        raise UserError(
            f"{weights}: no tensor for {named}. A network that timm builds with other parts than a plain ResNet's "
            "cannot take these weights."
        )
    stages = {name.split(".")[0] for name in expected}
    kept = {name: tensor for name, tensor in state.items() if name.split(".")[0] in stages}
    network.load_state_dict({**{name: expected[name] for name in expected if name.startswith("fc.")}, **kept})
