"""The fast linear probe: features once, a whole sweep of learning rates at once, chosen without the test set.

The exact protocol passes every image through the frozen backbone once an epoch. Here a few augmented copies pass
through it once in all, and every head of the sweep is trained on the stored features. A part of the training set
picks the rate and weight decay, by its cross-entropy: on a thousand images that is a far steadier judge than their
accuracy. The pick is then trained on the whole training set and scored on the test set, once.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from simsiam.config import Machine, loader_workers
from simsiam.data.classification.transforms import Augmentation, Augmenter
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import left_out

if TYPE_CHECKING:
    import numpy as np
    import torch

    from simsiam.evaluation.classification.probe_heads import HeadStack, Setting
    from simsiam.features.augmented import Extractor, Matrix


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Protocol[Splits]):
    """A linear classifier on stored pooled features."""

    protocol: ClassVar[str] = "linear_probe"
    augmentation: Augmentation
    copies: int  # augmented copies of the training set
    test_resize: int  # pixels: short edge before the centre crop
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    momentum: float
    epochs: int  # of training on the stored features
    batch_size: int
    validation_fraction: float  # of each class of the training set
    precision: Literal["fp32", "tf32", "bf16"]  # of the backbone
    storage: Literal["fp16", "fp32"]  # of the stored features

    @property
    def main_metric(self) -> str:
        """Top-1 of the pick."""
        return "top1"

    def data_id(self, data: Splits) -> DataId:
        """Both splits."""
        return data.data_id

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1 (and top5) of the pick, percent; `detail["sweep"]` has every rate's validation accuracy.

        Raises UserError if all rates diverge, or under several processes.
        """
        import numpy as np

        from simsiam.data.classification.loader import class_count, stratified_rows
        from simsiam.data.preprocess import Preprocess

        classes = class_count(data.train, data.test)
        started = time.perf_counter()
        extractor = self._extractor(subject, machine)
        augmenter = Augmenter(augmentation=self.augmentation, mean=subject.mean, std=subject.std)
        size = self.augmentation.size
        preprocess = Preprocess(kind="center", resize=self.test_resize, size=size, mean=subject.mean, std=subject.std)
        copies = [
            extractor.augmented(data.train, augmenter, copy=copy, seed=subject.seed) for copy in range(self.copies)
        ]
        validation = stratified_rows(data.train, fraction=self.validation_fraction, seed=subject.seed)
        plain = extractor.plain(data.train.subset(np.flatnonzero(validation)), preprocess)
        test = extractor.plain(data.test, preprocess)
        extracted = time.perf_counter()

        sweep = self._sweep(copies, plain, data, validation, classes, subject.seed, extractor.device)
        best = sweep.best
        final = self._train(
            [best], copies, data, np.ones(len(validation), bool), classes, subject.seed, extractor.device
        )
        measured = _score(final, test, data, classes, extractor.device)
        measured.detail.update(
            sweep=sweep.table,
            chosen={"lr": best.lr, "weight_decay": best.weight_decay},
            validation_images=int(validation.sum()),
            seconds={"features": extracted - started, "heads": time.perf_counter() - extracted},
        )
        bad = int((~np.isfinite(copies[0][:, 0])).sum())
        if bad:
            measured.notes.append(left_out(bad, "training image"))
        if sweep.at_edge:
            measured.notes.append(f"the best rate, {best.lr:g}, is at the edge of the sweep: widen --lrs")
        return measured

    def _extractor(self, subject: PretrainedBackbone, machine: Machine) -> Extractor:
        from simsiam.data.sources import cache_folder
        from simsiam.engine import precision
        from simsiam.engine.distributed import pick_device
        from simsiam.features.augmented import Extractor
        from simsiam.weights.load import fingerprint

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("the fast linear probe runs in one process; start it without torchrun.")
        device = pick_device(machine.device)
        weights = fingerprint(subject.backbone.state_dict())
        precision.prepare(self.precision, device)
        return Extractor(
            backbone=subject.backbone.to(device),
            weights=weights,
            folder=cache_folder(machine.cache) / "probe",
            device=device,
            workers=loader_workers(machine),
            precision=self.precision,
            storage=self.storage,
        )

    def _sweep(
        self,
        copies: list[Matrix],
        plain: Matrix,
        data: Splits,
        validation: np.ndarray[Any, Any],
        classes: int,
        seed: int,
        device: torch.device,
    ) -> _Sweep:
        from simsiam.evaluation.classification.probe_heads import Setting

        settings = [Setting(lr=lr, weight_decay=decay) for lr in self.lrs for decay in self.weight_decays]
        stack = self._train(settings, copies, data, ~validation, classes, seed, device)
        assert data.train.labels is not None
        scores = _scores(stack, plain, data.train.labels[validation], device)
        finite = stack.weight.isfinite().all(2).all(1).tolist()
        if not any(finite):
            raise UserError(f"{self.name}: every learning rate of {self.lrs} diverged; give lower ones.")
        table = [
            {
                "lr": setting.lr,
                "weight_decay": setting.weight_decay,
                "validation_top1": score.top1 if ok else None,
                "validation_loss": score.loss if ok else None,
            }
            for setting, score, ok in zip(settings, scores, finite, strict=True)
        ]
        best = min((i for i, ok in enumerate(finite) if ok), key=lambda i: scores[i].loss)
        edge = settings[best].lr in (min(self.lrs), max(self.lrs)) and len(self.lrs) > 1
        return _Sweep(best=settings[best], table=table, at_edge=edge)

    def _train(
        self,
        settings: list[Setting],
        copies: list[Matrix],
        data: Splits,
        rows: np.ndarray[Any, Any],
        classes: int,
        seed: int,
        device: torch.device,
    ) -> HeadStack:
        from simsiam.evaluation.classification.probe_heads import Features, HeadStack

        assert data.train.labels is not None
        features = Features(copies, data.train.labels, device, rows=rows)
        if not len(features):
            raise UserError(f"{data.train.name}: no training image could be read. Check the data path.")
        stack = HeadStack(
            settings, classes=classes, width=features.width, momentum=self.momentum, seed=seed, device=device
        )
        stack.train(features, epochs=self.epochs, batch_size=self.batch_size, seed=seed)
        return stack


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    best: Setting
    table: list[dict[str, float | None]]
    at_edge: bool


@dataclass(frozen=True, kw_only=True)
class _HeadScore:
    top1: float  # percent
    loss: float  # mean cross-entropy, nats


def _scores(stack: HeadStack, features: Matrix, labels: np.ndarray[Any, Any], device: torch.device) -> list[_HeadScore]:
    """Accuracy and loss of every head on the readable images."""
    import numpy as np
    import torch

    right = torch.zeros(len(stack.settings), device=device)
    loss = torch.zeros(len(stack.settings), device=device)
    readable = np.flatnonzero(np.isfinite(features[:, 0]))
    for rows in np.array_split(readable, max(1, len(readable) // 1024)):
        scores = stack.scores(torch.from_numpy(features[rows]).to(device).float())  # B x L x C
        truth = torch.from_numpy(labels[rows]).to(device)[:, None]  # B x 1
        right += (scores.argmax(2) == truth).sum(0)
        loss -= scores.log_softmax(2).gather(2, truth[:, :, None].expand(-1, scores.shape[1], 1))[:, :, 0].sum(0)
    count = max(1, len(readable))
    return [
        _HeadScore(top1=100 * r / count, loss=total / count)
        for r, total in zip(right.tolist(), loss.tolist(), strict=True)
    ]


def _score(stack: HeadStack, features: Matrix, data: Splits, classes: int, device: torch.device) -> Measured:
    import numpy as np
    import torch

    from simsiam.evaluation.classification.accuracy import AccuracyMeter

    tally = AccuracyMeter(classes, device)
    assert data.test.labels is not None
    readable = np.flatnonzero(np.isfinite(features[:, 0]))
    for rows in np.array_split(readable, max(1, len(readable) // 1024)):
        scores = stack.scores(torch.from_numpy(features[rows]).to(device).float())[:, 0]
        tally.add(scores, torch.from_numpy(data.test.labels[rows]).to(device))
    metrics = {"top1": tally.top1} | ({"top5": tally.top5} if tally.top5 is not None else {})
    bad = len(features) - len(readable)
    notes = [left_out(bad, "test image")] if bad else []
    return Measured(metrics=metrics, detail=tally.detail(data.train.classes), notes=notes)
