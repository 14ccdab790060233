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

from simsiam.config import Machine
from simsiam.data.classification.transforms import Augmentation, Augmenter
from simsiam.data.splits import Splits
from simsiam.errors import UserError
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count, Positive, Share
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import left_out

if TYPE_CHECKING:
    import numpy as np
    import torch

    from simsiam.data.classification.loader import AugmentedCopy
    from simsiam.data.preprocess import Preprocess
    from simsiam.data.sources import Source
    from simsiam.evaluation.classification.probe_heads import Features, HeadStack, Setting
    from simsiam.features.extraction import Features as Extracted

BATCH = 256  # images in a forward pass


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Protocol[Splits]):
    """A linear classifier on stored pooled features."""

    protocol: ClassVar[str] = "linear_probe"
    main_metric: ClassVar[str] = "top1"  # top-1 of the pick
    everyday: ClassVar[tuple[str, ...]] = ("epochs", "lrs")
    augmentation: Augmentation
    copies: Count  # Augmented copies of the training set whose features are stored.
    test_resize: Count  # Pixels that a test image's short edge is resized to, before the centre crop.
    lrs: tuple[Positive, ...]  # Learning rates to try; one is chosen on a part of the training set.
    weight_decays: tuple[float, ...]  # Weight decays to try with each rate.
    momentum: Share  # Momentum of SGD.
    epochs: Count  # Passes over the stored features.
    batch_size: Count  # Images in a step.
    validation_fraction: Share  # Share of each class of the training set that chooses rate and weight decay.
    precision: Literal["fp32", "tf32", "bf16"]  # Number format of the backbone's forward pass.
    storage: Literal["fp16", "fp32"]  # Number format of the features in their files.

    def score(self, subject: PretrainedBackbone, data: Splits, *, machine: Machine) -> Measured:
        """top1 (and top5) of the pick, percent; `detail["sweep"]` has every rate's validation accuracy.

        Raises UserError if all rates diverge, or under several processes.
        """
        import numpy as np

        from simsiam.data.classification.loader import class_count, stratified_rows
        from simsiam.engine.distributed import pick_device
        from simsiam.evaluation.classification.inference import TrainedClassifier, names_of, save_classifier
        from simsiam.evaluation.classification.probe_heads import Features

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("the fast linear probe runs in one process; start it without torchrun.")
        classes = class_count(data.train, data.test)
        started = time.perf_counter()
        held_out = stratified_rows(data.train, fraction=self.validation_fraction, seed=subject.seed)
        train = [self._copy(subject, data.train, copy, machine) for copy in range(self.copies)]
        copies, labels, seen = [each.pooled for each in train], train[0].labels(data.train), train[0].indices
        plain = self._plain(subject, data.train.subset(np.flatnonzero(held_out)), machine)
        test = self._plain(subject, data.test, machine)
        device = pick_device(machine.device)
        extracted = time.perf_counter()

        learnt = Features(copies, labels, device, rows=~held_out[seen])
        sweep = self._sweep(learnt, plain, classes, subject.seed, device)
        everything = Features(copies, labels, device, rows=np.ones(len(seen), bool))
        final = self._train([sweep.best], everything, classes, subject.seed, device)
        measured = _score(final, test, data, classes, device)
        measured.detail.update(
            sweep=sweep.table,
            chosen={"lr": sweep.best.lr, "weight_decay": sweep.best.weight_decay},
            validation_images=int(held_out.sum()),
            seconds={"features": extracted - started, "heads": time.perf_counter() - extracted},
        )
        trained = TrainedClassifier(
            backbone=subject.backbone,
            weight=final.weight[0],
            bias=final.bias[0],
            classes=names_of(data.train.classes, classes),
            preprocess=self._preprocess(subject),
        )
        save_classifier(machine.out, trained)
        if train[0].bad:
            measured.notes.append(left_out(len(train[0].bad), "training image"))
        if sweep.at_edge:
            measured.notes.append(f"the best rate, {sweep.best.lr:g}, is at the edge of the sweep: widen --lrs")
        return measured

    def _copy(self, subject: PretrainedBackbone, source: Source, copy: int, machine: Machine) -> Extracted:
        from simsiam.data.classification.loader import AugmentedCopy

        augmenter = Augmenter(augmentation=self.augmentation, mean=subject.mean, std=subject.std)
        return self._extract(subject, source, AugmentedCopy(augmenter=augmenter, copy=copy, seed=subject.seed), machine)

    def _plain(self, subject: PretrainedBackbone, source: Source, machine: Machine) -> _Labelled:
        found = self._extract(subject, source, self._preprocess(subject), machine)
        return _Labelled(rows=found.pooled, labels=found.labels(source), unreadable=len(found.bad))

    def _preprocess(self, subject: PretrainedBackbone) -> Preprocess:
        """How test images come in."""
        from simsiam.data.preprocess import Preprocess

        size = self.augmentation.size
        return Preprocess(kind="center", resize=self.test_resize, size=size, mean=subject.mean, std=subject.std)

    def _extract(
        self, subject: PretrainedBackbone, source: Source, preprocess: Preprocess | AugmentedCopy, machine: Machine
    ) -> Extracted:
        from simsiam.features.store import Extraction, features_of

        extraction = Extraction(
            preprocess=preprocess,
            layers="pooled",
            pooling="specified",
            precision=self.precision,
            storage=self.storage,
            batch_size=BATCH,
        )
        return features_of(subject, source, extraction, machine=machine)

    def _sweep(self, learnt: Features, plain: _Labelled, classes: int, seed: int, device: torch.device) -> _Sweep:
        from simsiam.evaluation.classification.probe_heads import Setting

        settings = [Setting(lr=lr, weight_decay=decay) for lr in self.lrs for decay in self.weight_decays]
        stack = self._train(settings, learnt, classes, seed, device)
        scores = _scores(stack, plain, device)
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
        self, settings: list[Setting], features: Features, classes: int, seed: int, device: torch.device
    ) -> HeadStack:
        from simsiam.evaluation.classification.probe_heads import HeadStack

        stack = HeadStack(
            settings, classes=classes, width=features.width, momentum=self.momentum, seed=seed, device=device
        )
        stack.train(features, epochs=self.epochs, batch_size=self.batch_size, seed=seed)
        return stack


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """Features of the readable images of a set, with their labels."""

    rows: np.ndarray[Any, Any]  # N x F
    labels: np.ndarray[Any, Any]  # N
    unreadable: int  # images left out


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    best: Setting
    table: list[dict[str, float | None]]
    at_edge: bool


@dataclass(frozen=True, kw_only=True)
class _HeadScore:
    top1: float  # percent
    loss: float  # mean cross-entropy, nats


def _scores(stack: HeadStack, features: _Labelled, device: torch.device) -> list[_HeadScore]:
    """Accuracy and loss of every head."""
    import numpy as np
    import torch

    right = torch.zeros(len(stack.settings), device=device)
    loss = torch.zeros(len(stack.settings), device=device)
    count = len(features.rows)
    for rows in np.array_split(np.arange(count), max(1, count // 1024)):
        scores = stack.scores(torch.from_numpy(features.rows[rows]).to(device).float())  # B x L x C
        truth = torch.from_numpy(features.labels[rows]).to(device)[:, None]  # B x 1
        right += (scores.argmax(2) == truth).sum(0)
        loss -= scores.log_softmax(2).gather(2, truth[:, :, None].expand(-1, scores.shape[1], 1))[:, :, 0].sum(0)
    return [
        _HeadScore(top1=100 * r / count, loss=total / count)
        for r, total in zip(right.tolist(), loss.tolist(), strict=True)
    ]


def _score(stack: HeadStack, features: _Labelled, data: Splits, classes: int, device: torch.device) -> Measured:
    import numpy as np
    import torch

    from simsiam.evaluation.classification.accuracy import AccuracyMeter

    tally = AccuracyMeter(classes, device)
    count = len(features.rows)
    for rows in np.array_split(np.arange(count), max(1, count // 1024)):
        scores = stack.scores(torch.from_numpy(features.rows[rows]).to(device).float())[:, 0]
        tally.add(scores, torch.from_numpy(features.labels[rows]).to(device))
    metrics = {"top1": tally.top1} | ({"top5": tally.top5} if tally.top5 is not None else {})
    notes = [left_out(features.unreadable, "test image")] if features.unreadable else []
    return Measured(metrics=metrics, detail=tally.detail(data.train.classes), notes=notes)
