"""From images to predicted masks: a trained segmentor, for scoring, for pictures, and as a folder holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from simsiam.backbones import ResNet, build_backbone
from simsiam.config import from_dict
from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.loader import whole_images
from simsiam.data.segmentation.masks import MaskSource
from simsiam.data.segmentation.transforms import fitted
from simsiam.engine import precision
from simsiam.engine.checkpoints import Checkpoints
from simsiam.errors import UserError
from simsiam.evaluation.place import unfinished
from simsiam.evaluation.protocol import RESULT_FILE
from simsiam.evaluation.segmentation.metrics import slide
from simsiam.evaluation.segmentation.segmentor import Segmentor
from simsiam.evaluation.segmentation.settings import Segmentation


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The best class of each pixel beside the true one, both at the size of the mask."""

    found: Tensor  # H x W int64
    mask: Tensor  # H x W int64: class ids and 255
    index: int  # of the image in its source


@dataclass(frozen=True, kw_only=True)
class TrainedSegmentor:
    """A segmentor with what it needs to look at images."""

    network: Segmentor
    settings: Segmentation
    classes: tuple[str, ...]
    normalisation: Normalisation
    device: torch.device
    workers: int

    @torch.no_grad()
    def predict(self, source: MaskSource, indices: np.ndarray) -> Iterator[Predicted]:
        """The named images one by one, in evaluation mode; the network trains on afterwards."""
        was_training = self.network.training
        self.network.eval()
        for whole in whole_images(
            source,
            self.normalisation,
            scale_long=self.settings.testing.test_long,
            scale_short=self.settings.testing.test_short,
            indices=indices,
            device=self.device,
            workers=self.workers,
        ):
            height, width = whole.mask.shape
            yield Predicted(found=self.classes_of(whole.image, height, width), mask=whole.mask, index=whole.index)
        self.network.train(was_training)

    @torch.no_grad()
    def classes_of(self, image: Tensor, height: int, width: int) -> Tensor:
        """The best class of each pixel of 1 x 3 x H x W, at another size: height x width int64.

        Scores go to the size of the image that the network saw, and from there to the other, as published.
        """
        testing = self.settings.testing
        if testing.windows == "whole":
            scores = self._scores(image)
        else:
            scores = slide(image, self._scores, crop=testing.window, stride=testing.window_stride)
        return self.network.scores_at(scores, (height, width))[0].argmax(0)

    def _scores(self, images: Tensor) -> Tensor:
        """B x C x H x W of B x 3 x H x W."""
        with precision.autocast(self.settings.course.precision, self.device):
            scores: Tensor = self.network(images).main
        return self.network.scores_at(scores, (images.shape[2], images.shape[3]))

    def mask_of(self, image: Image) -> np.ndarray:
        """The class ids of an RGB image, H x W uint8 at its own size."""
        testing = self.settings.testing
        size = fitted(image.size, long=testing.test_long, short=testing.test_short)
        pixels = torch.from_numpy(np.array(image.resize(size, Resampling.BILINEAR)))[None].to(self.device)
        found = self.classes_of(self.normalisation(pixels), image.height, image.width)
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
    settings = from_dict(Segmentation, stored["recipe"]["protocol"]["segmentation"])
    if not (folder / RESULT_FILE).exists():
        done = int(checkpoints.numbered()[-1].stem.removeprefix("step-"))
        raise UserError(unfinished(folder, "segmentor", f"iteration {done:,} of {settings.course.iterations:,}"))
    backbone = build_backbone(known["backbone"], width=known["width"], stem=known["stem"])
    assert isinstance(backbone, ResNet)
    backbone.conv1.padding = (int(known["stem_padding"]),) * 2
    network = Segmentor(backbone, len(known["classes"]), settings.design)
    network.load_state_dict(stored["modules"]["network"], strict=True)
    return TrainedSegmentor(
        network=network.to(device).eval(),
        settings=settings,
        classes=tuple(known["classes"]),
        normalisation=Normalisation(mean=tuple(known["mean"]), std=tuple(known["std"])),
        device=device,
        workers=0,
    )
