"""From images to predicted masks: the test side of a segmentor, for scoring and for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simsiam.data.preprocess import Normalisation
from simsiam.data.segmentation.loader import whole_images
from simsiam.data.segmentation.masks import MaskSource
from simsiam.engine import precision
from simsiam.evaluation.segmentation.segmentor import Segmentor
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.evaluation.segmentation.slide_test import slide


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The best class of each pixel beside the true one, both at the size of the mask."""

    found: Tensor  # H x W int64
    mask: Tensor  # H x W int64: class ids and 255
    index: int  # of the image in its source


@dataclass(frozen=True, kw_only=True)
class Tester:
    """A segmentor with what it needs to look at images."""

    network: Segmentor
    settings: Segmentation
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
