"""BatchNorm's statistics measured over training images before a test, as Detectron2 does (PreciseBN)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from simsiam.data.detection.boxes import BoxBatch
from simsiam.evaluation.detection.detector import Detector


def measure_norms(detector: Detector, batches: Iterable[BoxBatch], losses: Callable[[BoxBatch], object]) -> None:
    """Replace every running mean and variance by its average over some batches; nothing else changes.

    The momentum and the mode, training or evaluation, are afterwards what they were; where the batches or a pass
    raise, so are the statistics.

    Args:
        detector: without frozen BatchNorm, whose statistics belong to the weights.
        batches: of training images, augmented as in training.
        losses: a forward pass in training mode, the whole of it: the heads' BatchNorm sees the sampled proposals.
    """
    norms = [part for part in detector.modules() if isinstance(part, _BatchNorm)]
    before = [(copy.deepcopy(dict(norm.named_buffers())), norm.momentum) for norm in norms]
    try:
        update_bn(batches, _Forward(detector, losses))
    except BaseException:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
            norm.momentum = momentum
        raise


class _Forward(nn.Module):
    """The detector as a function of a batch, which is how `update_bn` calls it."""

    def __init__(self, detector: Detector, losses: Callable[[BoxBatch], object]) -> None:
        super().__init__()
        self.detector, self._losses = detector, losses
        self.train(detector.training)  # which `update_bn` restores at the end

    def forward(self, batch: BoxBatch) -> None:
        """One pass, for its effect on BatchNorm; `update_bn` asks for no gradients."""
        self._losses(batch)
