"""The two views as a transform of torchvision's kind, for data sets and loaders of the user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simsiam.config import published_views
from simsiam.data.normalise import Normalisation
from simsiam.data.two_views.draws import draw_pair
from simsiam.data.two_views.opencv import opencv_view


class TwoViews:
    """Two random views of an image, each 3 x size x size, normalised: the published augmentation (paper, section 3).

    Random numbers come from torch's global generator, which a DataLoader seeds in each of its workers.

    Args:
        size: pixels of a view.
        changes: fields of `simsiam.config.Views` other than published; for images of 32 pixels the paper leaves out the
            blur: blur_probability=0.0.

    >>> views = TwoViews(size=64)
    >>> x1, x2 = views(Image.new("RGB", (100, 80), "red"))
    >>> x1.shape, x1.dtype
    (torch.Size([3, 64, 64]), torch.float32)
    """

    def __init__(self, size: int = 224, **changes: Any) -> None:
        self.views = replace(published_views(size), **changes)

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """The two views of a PIL image."""
        image = image.convert("RGB")
        draws = draw_pair(self.views, 1, None)
        pixels = np.stack([opencv_view(image, self.views, view, 0) for view in (draws.view1, draws.view2)])
        x1, x2 = Normalisation(mean=self.views.mean, std=self.views.std)(torch.from_numpy(pixels))
        return x1, x2

    def __repr__(self) -> str:
        return f"TwoViews({self.views})"
