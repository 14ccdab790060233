"""State dicts for a timm network that the user names: any prefix, classifier dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from simsiam.backbones import build_backbone
from simsiam.weights.formats import Converted, find_state, unwrap

_PREFIXES = ("", "backbone.net.", "net.", "backbone.", "encoder.", "model.")
_CLASSIFIER = re.compile(r"(fc|head|head\.fc|classifier|last_linear)\.(weight|bias)")


def convert(raw: Any, backbone: str, path: Path) -> Converted:
    """The named timm network's tensors, under the prefix that fits most of them; raises UserError as `fill` does."""
    state = unwrap(find_state(raw, path))
    expected = {name.removeprefix("net.") for name in build_backbone(backbone).state_dict()}

    def fitting(prefix: str) -> int:
        return sum(prefix + name in state for name in expected)

    prefix = max(_PREFIXES, key=fitting)
    inside = _under(state, prefix)
    left = [name for name in inside if name not in expected and (_CLASSIFIER.fullmatch(name) or _is_head(name))]
    kept = {f"net.{name}": tensor for name, tensor in inside.items() if name not in left}
    notes = [f"left out, the classifier: {', '.join(left)}"] if left else []
    return Converted(format=f"timm state dict for {backbone}", backbone=kept, notes=notes)


def _is_head(name: str) -> bool:
    return name.startswith(("projector.", "predictor."))


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
