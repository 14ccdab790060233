"""The records that say what a pre-training run is: the recipe and the machine (standard library only).

Nothing that changes a result has a default here: a recipe function in `simsiam.recipes.pretrain` names every
field, so the recipe is the experiment. What depends on the machine lives in `Machine`, with defaults.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from simsiam.limits import Count, Finite, Hue, Positive, Share, Workers

Stem = Literal["imagenet", "small", "small-stride2"]


@dataclass(frozen=True, kw_only=True)
class Views:
    """How one random view of an image is made; both views use it (MoCo v2 augmentation, paper section 3)."""

    size: Count  # pixels; the view is size x size
    min_scale: Share  # of the image's area, the smallest crop
    max_scale: Share
    jitter_probability: Share  # of the four colour operations together, in random order
    brightness: float
    contrast: float
    saturation: float
    hue: Hue
    grayscale_probability: Share
    blur_probability: Share
    blur_sigma_min: float  # pixels; PIL GaussianBlur(radius=sigma)
    blur_sigma_max: float
    flip_probability: Share  # horizontal
    mean: tuple[Finite, Finite, Finite]  # RGB, of pixels in [0, 1]
    std: tuple[Positive, Positive, Positive]


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network: backbone, projector (f's head) and predictor h (paper section 3, "Baseline settings")."""

    backbone: str  # resnet10, resnet18, resnet34, resnet50, resnet101, resnet152, or timm:NAME
    width: Count  # channels of the stem; 64 in every published ResNet
    stem: Stem  # imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1; small-stride2: 3x3 stride 2
    projector_layers: Count
    projector_hidden: int  # width of the hidden layers; 0: the backbone's own feature width, as published
    projector_dim: Count  # output width d
    predictor: Literal["mlp", "none"]  # none: the paper's ablation, which collapses
    predictor_dim: Count  # hidden width
    stop_gradient: Literal["on", "off"]  # off: the paper's ablation, which collapses


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED_MODEL = Model(  # projector 2048-2048-2048, predictor 2048-512-2048
    backbone="resnet50",
    width=64,
    stem="imagenet",
    projector_layers=3,
    projector_hidden=2048,
    projector_dim=2048,
    predictor="mlp",
    predictor_dim=512,
    stop_gradient="on",
)


def published_views(size: int) -> Views:
    """The augmentation of MoCo v2, which the paper and both implementations use."""
    return Views(
        size=size,
        min_scale=0.2,
        max_scale=1.0,
        jitter_probability=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        grayscale_probability=0.2,
        blur_probability=0.5,
        blur_sigma_min=0.1,
        blur_sigma_max=2.0,
        flip_probability=0.5,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A whole pre-training experiment."""

    name: str
    about: str  # one line: what it is for and where it comes from
    data_kind: Literal["folder", "list", "imagenet", "cifar10", "shards", "demo"]  # how the images are stored
    model: Model
    views: Views
    epochs: Count
    batch_size: Count  # global: over all devices
    base_lr: float  # lr = base_lr x batch_size / 256
    momentum: Share
    weight_decay: float  # on every parameter
    schedule: Literal["epoch", "step"]  # the cosine is stepped once an epoch (published) or every step
    warmup_epochs: int
    predictor_lr: Literal["fixed", "cosine"]
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    monitor_images: int  # held out where there is no test split; 0: none, training images are watched
    monitor_every: Count  # epochs
    checkpoint_every: Count  # epochs
    keep_checkpoints: Count
    seed: int

    @property
    def lr(self) -> float:
        """The initial learning rate after linear scaling."""
        return self.base_lr * self.batch_size / 256


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What may differ from one machine to the next without changing what is computed."""

    out: Path | None = None  # folder of the run or result; without it: one named after what is run
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    workers: Workers = -1  # processes that decode images; -1: one less than the cores, at most 8
    views_engine: Literal["auto", "pil", "batch"] = "auto"  # auto: batch where the set lives in memory or on a GPU
    channels_last: Literal["auto", "on", "off"] = "auto"  # how images lie in memory; auto: what is usually faster
    compile: Literal["on", "off"] = "off"  # torch.compile: minutes at the start, faster steps after
    cache: Path | None = None  # of downloads; without it: SIMSIAM_CACHE, else ~/.cache/simsiam
    checkpoint_minutes: float = 5.0  # also save inside an epoch when this long has passed


def cache_folder(cache: Path | None) -> Path:
    """Where downloads, indexes and features are kept: `cache`, else $SIMSIAM_CACHE, else ~/.cache/simsiam."""
    if cache is not None:
        return cache
    named = os.environ.get("SIMSIAM_CACHE")
    return Path(named).expanduser() if named else Path("~/.cache/simsiam").expanduser()


def as_dict(record: Any) -> dict[str, Any]:
    """A record as plain JSON values (paths as text)."""
    plain: dict[str, Any] = dataclasses.asdict(
        record, dict_factory=lambda items: {k: str(v) if isinstance(v, Path) else v for k, v in items}
    )
    return plain


def command_line(arguments: Sequence[str], launcher: str = "") -> str:
    """A command of this program as a person types it, behind what starts its processes (`torchrun ... -m`)."""
    return f"{launcher} {shlex.join(['simsiam', *arguments])}".lstrip()


def command_to_go_on(run: Mapping[str, Any], folder: Path) -> str:
    """The command that goes on with a run: the one that began it, else what is known of it.

    Args:
        run: what its recipe.json holds.
        folder: the run folder.
    """
    typed = list(run.get("command") or [])[1:]
    if typed[:1] == ["pretrain"]:
        return command_line(typed, str(run.get("launcher") or ""))
    recipe = run.get("recipe") or {}
    data = {"demo": [], "cifar10": ["cifar10"]}.get(str(recipe.get("data_kind")), ["DATA"])
    named = ["--recipe", str(recipe["name"])] if "name" in recipe else []
    return command_line(["pretrain", *data, *named, "--out", str(folder)])


def pretraining_from_dict(raw: dict[str, Any]) -> Pretraining:
    """The recipe that a checkpoint or run folder carries."""
    views = dict(raw["views"])
    views["mean"], views["std"] = tuple(views["mean"]), tuple(views["std"])
    return Pretraining(**{**raw, "model": Model(**raw["model"]), "views": Views(**views)})


def loader_workers(machine: Machine, *, world: int = 1) -> int:
    """Processes that decode images for one of `world` devices.

    `Machine.workers`, where -1 means one less than the device's share of the cores, at most 8.
    """
    return machine.workers if machine.workers >= 0 else max(0, min(8, (os.cpu_count() or 1) // world - 1))
