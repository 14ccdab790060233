"""SimSiam: self-supervised pre-training of image backbones, and the benchmarks that tell how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simsiam.data.two_views.engines import TwoViews
    from simsiam.embedding.library import embed, embed_folder, embedder
    from simsiam.model import SimSiam, loss
    from simsiam.pretraining.library import pretrain
    from simsiam.pretraining.monitor import Monitor
    from simsiam.protocols import evaluate
    from simsiam.weights.load import load_backbone

__version__ = "0.1.0"
__all__ = [
    "Monitor",
    "SimSiam",
    "TwoViews",
    "__version__",
    "embed",
    "embed_folder",
    "embedder",
    "evaluate",
    "load_backbone",
    "loss",
    "pretrain",
]

_HOMES = {
    "SimSiam": "simsiam.model",
    "loss": "simsiam.model",
    "TwoViews": "simsiam.data.two_views.engines",
    "Monitor": "simsiam.pretraining.monitor",
    "pretrain": "simsiam.pretraining.library",
    "evaluate": "simsiam.protocols",
    "load_backbone": "simsiam.weights.load",
    "embed": "simsiam.embedding.library",
    "embedder": "simsiam.embedding.library",
    "embed_folder": "simsiam.embedding.library",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `simsiam --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'simsiam' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
