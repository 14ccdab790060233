"""A trained classifier of whole images: its file, which says all of itself, and what it says of an image."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor, nn

from simsiam.backbones import Backbone, ResNet, build_backbone
from simsiam.data.preprocess import Preprocess
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import NORM_FLOOR, TrainingConfig
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.weights.reading import read
from simsiam.weights.save import metadata, write_tensors

FILE = "classifier.safetensors"
FORMAT = "simsiam-classifier-1"


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """A backbone with a linear classifier on its pooled features, and how images come in."""

    backbone: Backbone
    weight: Tensor  # C x features
    bias: Tensor  # C
    classes: tuple[str, ...]
    preprocess: Preprocess
    unit: bool = False  # features are divided by their L2 norm first

    @torch.no_grad()
    def probabilities(self, image: Image) -> Tensor:
        """Of each class, C float32 on the CPU, of one RGB image."""
        pixels = self.preprocess.apply(image)[None].to(self.weight.device)
        return self.classified(self.backbone(pixels))[0].cpu()

    def classified(self, features: Tensor) -> Tensor:
        """Probabilities B x C of pooled features."""
        features = features.float()
        if self.unit:
            features = features / (features.norm(dim=1, keepdim=True) + NORM_FLOOR)
        return nn.functional.linear(features, self.weight, self.bias).softmax(1)

    def to(self, device: torch.device) -> TrainedClassifier:
        """The same on another device, in evaluation mode."""
        backbone = self.backbone.to(device).eval()
        return dataclasses.replace(self, backbone=backbone, weight=self.weight.to(device), bias=self.bias.to(device))


def of_linear(
    how: TrainingConfig, subject: PretrainedBackbone, backbone: Backbone, head: nn.Module, classes: Sequence[str] | None
) -> TrainedClassifier:
    """A backbone and its linear layer as they stand after a training, for images as it was scored on."""
    size = how.augmentation.size
    preprocess = Preprocess(kind="center", resize=how.test_resize, size=size, mean=subject.mean, std=subject.std)
    weight, bias = (head.get_parameter(name).detach() for name in ("weight", "bias"))
    return TrainedClassifier(
        backbone=backbone, weight=weight, bias=bias, classes=names_of(classes, len(bias)), preprocess=preprocess
    )


def names_of(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The classes' names, or their numbers where they have none."""
    return tuple(classes or (str(number) for number in range(count)))


def save_classifier(folder: Path | None, trained: TrainedClassifier) -> None:
    """Write classifier.safetensors into a folder, atomically; nothing where there is none, or in another process."""
    if folder is None or os.environ.get("RANK", "0") != "0":
        return
    facts = {
        **metadata(trained.backbone, None),
        "format": FORMAT,
        "classes": json.dumps(trained.classes),
        "preprocess": json.dumps(dataclasses.asdict(trained.preprocess)),
        "unit": json.dumps(trained.unit),
    }
    backbone = {f"backbone.{name}": tensor for name, tensor in trained.backbone.state_dict().items()}
    write_tensors(folder / FILE, {**backbone, "weight": trained.weight, "bias": trained.bias}, facts=facts)


def load_classifier(folder: Path) -> TrainedClassifier:
    """The classifier of an evaluation's folder, on the CPU; raises UserError if its file is damaged."""
    content = read(folder / FILE)
    facts = content.metadata
    try:
        if facts.get("format") != FORMAT:
            raise ValueError(f"format {facts.get('format')!r}")
        shape = {"width": int(facts["width"]), "stem": facts["stem"]} if "width" in facts else {}
        backbone = build_backbone(facts["backbone"], **shape)  # type: ignore[arg-type]
        if "stem_padding" in facts and isinstance(backbone, ResNet):
            backbone.conv1.padding = (int(facts["stem_padding"]),) * 2
        state = dict(content.raw)
        weight, bias = state.pop("weight"), state.pop("bias")
        backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in state.items()})
        preprocess = json.loads(facts["preprocess"])
        shades = {key: tuple(preprocess[key]) for key in ("mean", "std")}
        return TrainedClassifier(
            backbone=backbone.eval(),
            weight=weight,
            bias=bias,
            classes=tuple(json.loads(facts["classes"])),
            preprocess=Preprocess(**{**preprocess, **shades}),
            unit=json.loads(facts["unit"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder / FILE}: not a classifier of this version, or damaged ({error}).") from error
