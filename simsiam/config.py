"""The records that say what a pre-training run is: the recipe and the machine (standard library only).

Nothing that changes a result has a default here: a recipe function in `simsiam.recipes.pretrain` names every
field, so the recipe is the experiment. What depends on the machine lives in `Machine`, with defaults.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from simsiam.limits import Count, Finite, Hue, Positive, Share, Workers

Record = TypeVar("Record")
Stem = Literal["imagenet", "small", "small-stride2"]
HeadsNorm = Literal["none", "hidden", "default", "all"]
Similarity = Literal["cosine", "cross-entropy"]
TargetsBy = Literal["step", "10-steps", "100-steps", "epoch", "moving-average"]


@dataclass(frozen=True, kw_only=True)
class Views:
    """How one random view of an image is made; both views use it (MoCo v2 augmentation, paper section 3)."""

    size: Count  # Side of a view in pixels.
    min_scale: Share  # Smallest crop, as a share of the image's area.
    max_scale: Share  # Largest crop, as a share of the image's area.
    jitter_probability: Share  # Probability of the four colour operations, applied together in random order.
    brightness: float  # Largest change of brightness b: a factor of 1 - b to 1 + b.
    contrast: float  # Largest change of contrast, as a factor like brightness.
    saturation: float  # Largest change of saturation, as a factor like brightness.
    hue: Hue  # Largest shift of hue; 0.5 is half the colour circle.
    grayscale_probability: Share  # Probability that a view is turned grey.
    blur_probability: Share  # Probability that a view is blurred.
    blur_sigma_min: float  # Smallest blur: sigma of the Gaussian in pixels (Pillow's radius).
    blur_sigma_max: float  # Largest blur: sigma in pixels.
    flip_probability: Share  # Probability that a view is mirrored left to right.
    mean: tuple[Finite, Finite, Finite]  # Mean of red, green and blue to subtract, for pixels in [0, 1].
    std: tuple[Positive, Positive, Positive]  # Standard deviation of red, green and blue to divide by.


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network: backbone, projector (f's head) and predictor h (paper section 3, "Baseline settings")."""

    backbone: str  # The network: resnet8, 10, 18, 34, 50, 101 or 152, or timm:NAME, e.g. timm:resnet50d.
    width: Count  # Channels of the stem; 64 in every published ResNet.
    stem: Stem  # imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1; small-stride2: 3x3 stride 2.
    projector_layers: Count  # Layers of the projector.
    projector_hidden: int  # Width of the projector's hidden layers; 0: the backbone's own feature width, as published.
    projector_dim: Count  # Width d of the projections.
    # mlp, as published; fixed: at random weights that are never trained; none: no predictor, which collapses.
    predictor: Literal["mlp", "fixed", "none"]
    predictor_dim: Count  # Width of the predictor's hidden layer.
    stop_gradient: Literal["on", "off"]  # off: the paper's ablation without stop-gradient, which collapses.
    # BatchNorm in the heads (paper, Table 3): none; after hidden layers; default: after the projector's output as well;
    # all: after the predictor's output too.
    heads_norm: HeadsNorm


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
    heads_norm="default",
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
    # How the images are stored; by default recognised from DATA.
    data_kind: Literal["folder", "list", "imagenet", "cifar10", "shards", "demo"]
    train_images: int  # Number of images to train on, drawn at random by the seed; 0: all.
    model: Model
    views: Views
    epochs: Count  # Passes over the images.
    batch_size: Count  # Images in a step, over all devices; the learning rate follows it.
    base_lr: float  # Learning rate for a batch of 256: lr = base_lr x batch_size / 256.
    momentum: Share  # Momentum of SGD.
    weight_decay: float  # Weight decay, on every parameter.
    # When the cosine schedule is stepped: once an epoch, as published, or every step.
    schedule: Literal["epoch", "step"]
    warmup_epochs: int  # Epochs over which the learning rate rises from zero.
    # fixed: the predictor keeps the initial rate, as published; cosine: it follows the schedule.
    predictor_lr: Literal["fixed", "cosine"]
    similarity: Similarity  # How p and z are compared; cross-entropy: of their softmax (paper, section 4.5).
    symmetric: Literal["on", "off"]  # on: each view predicts the other; off: the first predicts the second only.
    # What p is to predict (paper, section 5.2): z by the step's own weights, as published; z by weights renewed every
    # 10 or 100 steps, or every epoch; or each image's moving average.
    targets: TargetsBy
    # Number format of the forward pass; bf16 and fp16 need a GPU that has them.
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    monitor_images: int  # Images held out to watch for collapse; 0: training images are watched instead.
    monitor_every: Count  # Epochs between checks for collapse.
    checkpoint_every: Count  # Epochs between checkpoints.
    keep_checkpoints: Count  # How many checkpoints are kept.
    seed: int  # Random seed.

    @property
    def lr(self) -> float:
        """The initial learning rate after linear scaling."""
        return self.base_lr * self.batch_size / 256


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What may differ from one machine to the next without changing what is computed."""

    out: Path | None = None  # Output folder; by default named after what is run.
    device: str = "auto"  # Where to compute: auto, cpu, cuda, cuda:N or mps.
    workers: Workers = -1  # Processes that decode images; -1: one fewer than the CPU cores, at most 8.
    # What makes the views: opencv; pil, the slow reference; batch, in memory or on a GPU. auto: what fits the data.
    views_engine: Literal["auto", "pil", "opencv", "batch"] = "auto"
    # Photos much larger than the views, decoded once and kept in the cache; off: each is decoded anew every time.
    photo_cache: Literal["auto", "off"] = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"  # NHWC memory layout; auto: whichever is usually faster.
    compile: Literal["on", "off"] = "off"  # torch.compile: takes minutes at the start, then steps are faster.
    cache: Path | None = None  # Folder for downloads, features, photos; by default $SIMSIAM_CACHE or ~/.cache/simsiam.
    checkpoint_minutes: float = 5.0  # Minutes between saves inside an epoch.

    def wants_channels_last(self, usual: bool) -> bool:
        """Whether images lie channels-last: as a person says, and for auto as is usual for the work at hand."""
        return usual if self.channels_last == "auto" else self.channels_last == "on"


def cache_folder(cache: Path | None) -> Path:
    """Where downloads, indexes and features are kept: `cache`, else $SIMSIAM_CACHE, else ~/.cache/simsiam."""
    if cache is not None:
        return cache
    named = os.environ.get("SIMSIAM_CACHE")
    return Path(named).expanduser() if named else Path("~/.cache/simsiam").expanduser()


def as_dict(record: Any) -> dict[str, Any]:
    """A record as plain JSON values: paths as text, tuples as lists."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

    found: dict[str, Any] = dataclasses.asdict(
        record, dict_factory=lambda items: {key: plain(value) for key, value in items}
    )
    return found


def command_line(arguments: Sequence[str], launcher: str = "") -> str:
    """A command of this program as a person types it, behind what starts its processes (`torchrun ... -m`)."""
    return f"{launcher} {shlex.join(['simsiam', *arguments])}".lstrip()


def command_to_go_on(run: Mapping[str, Any], folder: Path) -> str:
    """The command that resumes a run: the one that began it, or else one made from what is known of it.

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


def from_dict(kind: type[Record], raw: Mapping[str, Any]) -> Record:
    """The record that `as_dict` made plain, records within it too; TypeError or KeyError where the fields differ."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _restored(hints[name], value) for name, value in raw.items()})


def _restored(hint: Any, value: Any) -> Any:
    kinds: list[Any] = [each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)]
    if kinds and isinstance(value, dict):
        return from_dict(kinds[0], value)
    return tuple(value) if isinstance(value, list) else value


_LATER = {"train_images": 0, "similarity": "cosine", "symmetric": "on", "targets": "step"}
_LATER_OF_MODEL = {"heads_norm": "default"}


def with_later_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The pre-training recipe of a file, with what recipes of earlier versions did without."""
    model = {"model": {**_LATER_OF_MODEL, **raw["model"]}} if "model" in raw else {}
    return {**_LATER, **raw, **model}


def loader_workers(machine: Machine, *, world: int = 1) -> int:
    """Processes that decode images for one of `world` devices.

    `Machine.workers`, where -1 means one less than the device's share of the cores, at most 8.
    """
    return machine.workers if machine.workers >= 0 else max(0, min(8, (os.cpu_count() or 1) // world - 1))
