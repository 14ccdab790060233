"""A backbone as a function from pictures in memory to vectors, loaded once and called often."""

from __future__ import annotations

import numpy as np

from simsiam.data.images import BadImage
from simsiam.data.loading import image_batches
from simsiam.embedding.image_paths import Pictures, given
from simsiam.embedding.vectors import Embedding, at_layer, unit_rows
from simsiam.engine import precision as number_format
from simsiam.engine.distributed import pick_device
from simsiam.errors import UserError
from simsiam.features.extraction import stream
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

SHOWN = 20  # unreadable images that an error names


class Embedder:
    """Pictures in, vectors out, in the same order.

    Attributes:
        channels: numbers in a vector.
    """

    def __init__(self, subject: PretrainedBackbone, settings: Embedding, *, device: str) -> None:
        settings.check()
        self.subject = subject
        self.settings = settings
        self._device = pick_device(device)
        number_format.prepare(settings.precision, self._device)
        self._network = at_layer(subject.backbone, settings.layer).to(self._device)
        self.channels = self._network.features

    def __call__(self, images: Pictures) -> np.ndarray:
        """Embed pictures.

        Args:
            images: N x H x W x 3 uint8, a sequence of paths, PIL images, arrays or file contents, or a single one.

        Returns:
            N x C float32.

        Raises UserError that lists every picture which cannot be read: a row without its image would shift the rest.
        """
        source = given(images)
        batches = image_batches(
            source, self.settings.preprocess(self.subject), batch_size=self.settings.batch_size, device=self._device
        )
        blocks = list(
            stream(
                self._network,
                batches,
                layers="pooled",
                pooling="specified",
                precision=self.settings.precision,
                storage=self.settings.storage,
            )
        )
        _refuse([bad for block in blocks for bad in block.bad], len(source))
        rows = np.concatenate([block.arrays["pooled"] for block in blocks]).astype(np.float32)
        return unit_rows(rows) if self.settings.normalise == "l2" else rows


def _refuse(bad: list[BadImage], total: int) -> None:
    if not bad:
        return
    lines = "".join(f"\n  {each.path}: {each.reason}" for each in bad[:SHOWN])
    more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise UserError(f"{len(bad):,} of {counted(total, 'image')} cannot be read:{lines}{more}")
