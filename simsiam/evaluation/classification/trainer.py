"""Training a classifier and scoring it every few epochs: what linear evaluation and fine-tuning share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.config import loader_workers
from simsiam.data.classification.loader import LabelledBatch, LabelledLoader
from simsiam.data.classification.transforms import Augmenter
from simsiam.data.images import BadImage, write_skipped
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.splits import Splits
from simsiam.engine import distributed, precision
from simsiam.engine.fit import Plan, Training
from simsiam.engine.optimizers import Group
from simsiam.evaluation.classification.accuracy import AccuracyMeter
from simsiam.evaluation.classification.settings import TrainingConfig
from simsiam.evaluation.fine_tuning import FineTuning, Scored, TrainingResult, Watch, share_buffers
from simsiam.evaluation.place import Place
from simsiam.wording import in_words

TEST_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network in two parts: what is frozen, and what is trained."""

    features: Callable[[Tensor], Any]  # images B x 3 x S x S -> what `network` takes; runs without gradients
    network: nn.Module  # -> a list of scores, each B x C
    names: tuple[str, ...]  # of the metrics, one for each tensor of scores; the last decides which epoch is best
    groups: list[Group]
    classes: int


@dataclass(kw_only=True)
class ClassifierTrainer:
    """One supervised training of a classifier."""

    settings: TrainingConfig
    data: Splits
    place: Place
    classifier: Classifier
    _bad: set[BadImage] = field(default_factory=set)

    def fit(self) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the end, and score on the way.

        Raises as `FineTuning.run` does.
        """
        how, device = self.settings.optimisation, self.place.process.device
        how.check()
        precision.prepare(self.settings.precision, device)
        self.classifier.network.to(device)  # before the optimiser is made and its state restored
        with closing(self._loader()) as loader:
            result = FineTuning(
                network=self.classifier.network,
                optimizer=how.build(self.classifier.groups),
                plan=Plan(
                    epochs=how.epochs,
                    steps_per_epoch=loader.steps,
                    schedule=how.factor(),
                    schedule_by="epoch",
                    images_per_step=how.batch_size,
                    checkpoint_minutes=self.place.machine.checkpoint_minutes,
                ),
                step=self._step,
                batches=loader.epoch,
                score=self._score,
                lr=how.lr,
                cure="Lower --lr.",
                metric=self.classifier.names[-1],
                scored_every=self.settings.evaluate_every,
                keep=self.settings.keep,
                learns=f"{in_words(self.data.train.classes or (), count=self.classifier.classes)} of whole images",
            ).run(self.place)
        if self._bad and self.place.process.is_main and self.place.machine.out is not None:
            write_skipped(self.place.folder / "skipped.csv", self._bad)
        return result

    def _loader(self) -> LabelledLoader:
        subject, process = self.place.subject, self.place.process
        return LabelledLoader(
            self.data.train,
            Augmenter(augmentation=self.settings.augmentation, mean=subject.mean, std=subject.std),
            batch_size=self.settings.optimisation.batch_size,
            seed=subject.seed,
            device=process.device,
            rank=process.rank,
            world=process.world,
            workers=loader_workers(self.place.machine, world=process.world),
        )

    def _step(self, training: Training) -> Callable[[LabelledBatch], dict[str, Tensor]]:
        assert training.extra is not None
        self._bad |= {BadImage(path=path, reason=reason) for path, reason in training.extra.get("bad", [])}
        self.classifier.network.train()
        network = distributed.parallel(self.classifier.network, self.place.process)
        world = self.place.process.world

        def step(batch: LabelledBatch) -> dict[str, Tensor]:
            assert training.extra is not None
            if not self._bad.issuperset(batch.bad):
                self._bad.update(batch.bad)
                training.extra["bad"] = [[bad.path, bad.reason] for bad in sorted(self._bad)]
            with torch.no_grad():
                features = self.classifier.features(batch.images)
            # The mean is over the global batch, whose parts differ in size in the last step of an epoch.
            rows = distributed.sum_over_processes(batch.labels.new_tensor([len(batch.labels)])).clamp(min=1)
            scores = network(features)
            losses = [functional.cross_entropy(s, batch.labels, reduction="sum") * world / rows[0] for s in scores]
            loss = torch.stack(losses).sum()
            training.update(loss)
            return {"loss": loss.detach()}

        return step

    def _score(self, watch: Watch) -> Scored:
        names, classes = self.classifier.names, self.data.train.classes
        meters = dict(zip(names, self._meters(watch), strict=True))
        self._bad = set(distributed.gathered(sorted(self._bad)))
        metrics: dict[str, float] = {}
        for name, meter in meters.items():
            metrics[name] = meter.top1
            if meter.top5 is not None:
                metrics["top5" if name == "top1" else f"{name}_top5"] = meter.top5
        detail = meters[names[-1]].detail(classes)
        if len(names) > 1:
            detail["per_class"] = {name: meter.detail(classes)["per_class"] for name, meter in meters.items()}
        return Scored(
            metrics=metrics, detail={"train_images": len(self.data.train), **detail, "skipped": len(self._bad)}
        )

    def _meters(self, watch: Watch) -> list[AccuracyMeter]:
        subject, process, network = self.place.subject, self.place.process, self.classifier.network
        preprocess = Preprocess(
            kind="center",
            resize=self.settings.test_resize,
            size=self.settings.augmentation.size,
            mean=subject.mean,
            std=subject.std,
        )
        labels = torch.as_tensor(self.data.test.labels)
        mine = np.array_split(np.arange(len(self.data.test)), process.world)[process.rank]
        meters = [AccuracyMeter(self.classifier.classes, process.device) for _ in self.classifier.names]
        share_buffers(network)
        batches = image_batches(
            self.data.test,
            preprocess,
            batch_size=TEST_BATCH,
            device=process.device,
            workers=loader_workers(self.place.machine, world=process.world),
            indices=mine,
        )
        network.eval()
        with torch.no_grad():
            for batch in watch.over(batches, len(mine), each=TEST_BATCH):
                self._bad.update(batch.bad)
                truth = labels[batch.indices.cpu()].to(process.device)
                for meter, part in zip(meters, network(self.classifier.features(batch.images)), strict=True):
                    meter.add(part, truth)
        network.train()
        for meter in meters:
            meter.total()
        return meters
