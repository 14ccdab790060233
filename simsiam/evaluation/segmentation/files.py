"""A trained segmentor as the folder of its evaluation holds it: the last checkpoint says all of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling

from simsiam.backbones import ResNet, build_backbone
from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.transforms import MaskAugmentation, fitted
from simsiam.engine.checkpoints import Checkpoints
from simsiam.errors import UserError
from simsiam.evaluation.place import unfinished
from simsiam.evaluation.protocol import RESULT_FILE
from simsiam.evaluation.segmentation.inference import Tester
from simsiam.evaluation.segmentation.segmentor import Segmentor
from simsiam.evaluation.segmentation.settings import (
    RateSearch,
    Segmentation,
    SegmentationSchedule,
    SegmentorConfig,
    Testing,
)


@dataclass(frozen=True, kw_only=True)
class TrainedSegmentor:
    """A segmentor with what its use needs."""

    tester: Tester
    classes: tuple[str, ...]

    def classes_of(self, image: Image) -> np.ndarray:
        """The class ids of an RGB image, H x W uint8 at its own size."""
        testing = self.tester.settings.testing
        size = fitted(image.size, long=testing.test_long, short=testing.test_short)
        pixels = torch.from_numpy(np.array(image.resize(size, Resampling.BILINEAR)))[None].to(self.tester.device)
        found = self.tester.classes_of(self.tester.normalisation(pixels), image.height, image.width)
        return found.cpu().numpy().astype(np.uint8)


def load_segmentor(folder: Path, device: torch.device) -> TrainedSegmentor:
    """The trained network of an evaluation's folder; raises UserError where there is none, or an unfinished one."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    stored = checkpoints.latest()
    known = (stored or {}).get("recipe", {}).get("segmentor")
    if stored is None or known is None:
        raise UserError(
            f"{folder}: no trained segmentor in it. Name a folder that `simsiam evaluate segmentation-...` wrote, with "
            "its checkpoints."
        )
    settings = _settings(stored["recipe"]["protocol"]["segmentation"])
    if not (folder / RESULT_FILE).exists():
        done = int(checkpoints.numbered()[-1].stem.removeprefix("step-"))
        raise UserError(unfinished(folder, "segmentor", f"iteration {done:,} of {settings.course.iterations:,}"))
    backbone = build_backbone(known["backbone"], width=known["width"], stem=known["stem"])
    assert isinstance(backbone, ResNet)
    backbone.conv1.padding = (int(known["stem_padding"]),) * 2
    network = Segmentor(backbone, len(known["classes"]), settings.design)
    network.load_state_dict(stored["modules"]["network"], strict=True)
    tester = Tester(
        network=network.to(device).eval(),
        settings=settings,
        normalisation=Normalisation(mean=tuple(known["mean"]), std=tuple(known["std"])),
        device=device,
        workers=0,
    )
    return TrainedSegmentor(tester=tester, classes=tuple(known["classes"]))


def _settings(raw: dict[str, Any]) -> Segmentation:
    """The record that a checkpoint carries as plain values."""
    return Segmentation(
        augmentation=MaskAugmentation(**raw["augmentation"]),
        design=SegmentorConfig(**raw["design"]),
        course=SegmentationSchedule(**raw["course"]),
        testing=Testing(**raw["testing"]),
        search=RateSearch(**{**raw["search"], "lr_sweep": tuple(raw["search"]["lr_sweep"])}),
        expected_classes=raw["expected_classes"],
        published_iterations=raw["published_iterations"],
    )
