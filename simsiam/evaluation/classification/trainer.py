"""Training a classifier over `engine.fit` and scoring it every few epochs: what linear and fine-tuning share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam.config import Machine, loader_workers
from simsiam.data.classification.loader import LabelledBatch, LabelledLoader
from simsiam.data.classification.transforms import Augmenter
from simsiam.data.images import BadImage, write_skipped
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source
from simsiam.engine import distributed, precision
from simsiam.engine.distributed import Process
from simsiam.engine.fit import EpochEnd, Plan, Training
from simsiam.engine.logs import Display, MetricsLog
from simsiam.engine.optimizers import Group
from simsiam.evaluation.classification.accuracy import AccuracyMeter
from simsiam.evaluation.classification.training_config import TrainingConfig
from simsiam.evaluation.fine_tuning import train_and_evaluate
from simsiam.weights.pretrained import PretrainedBackbone

TEST_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network in two parts: what is frozen, and what is trained."""

    features: Callable[[Tensor], Any]  # images B x 3 x S x S -> what `network` takes; runs without gradients
    network: nn.Module  # -> a list of scores, each B x C
    names: tuple[str, ...]  # of the metrics, one for each tensor of scores
    groups: list[Group]
    classes: int


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The reported epoch, and all that were evaluated."""

    epoch: int
    metrics: dict[str, float]
    detail: dict[str, Any]
    history: list[dict[str, float]]
    bad: int  # unreadable images left out


@dataclass(kw_only=True)
class ClassifierTrainer:
    """One supervised training: data, machine and settings together.

    Args:
        identity: what the run is (recipe, weights, data); a folder that holds another run's state is refused.
    """

    settings: TrainingConfig
    subject: PretrainedBackbone
    train: Source
    test: Source
    machine: Machine
    process: Process
    folder: Path
    identity: dict[str, Any]
    _bad: set[BadImage] = field(default_factory=set)

    def fit(self, classifier: Classifier) -> TrainingResult:
        """Train from the last checkpoint (or the start) to the end, and evaluate on the way.

        Raises UserError when the loss stops being finite, or when the folder belongs to another run;
        `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        how = self.settings.optimisation
        how.check()
        precision.prepare(self.settings.precision, self.process.device)
        classifier.network.to(self.process.device)  # before the optimiser is made and its state restored
        loader = self._loader()
        training = Training(
            modules={"network": classifier.network},
            optimizer=how.build(classifier.groups),
            recipe=self.identity,
            extra={"history": [], "kept": None, "bad": []},
        )
        plan = Plan(
            epochs=how.epochs,
            steps_per_epoch=loader.steps,
            schedule=how.factor(),
            schedule_by="epoch",
            images_per_step=how.batch_size,
            checkpoint_minutes=self.machine.checkpoint_minutes,
        )

        def evaluate(end: EpochEnd, log: MetricsLog, display: Display) -> None:
            if end.epoch % self.settings.evaluate_every == 0 or end.epoch == plan.epochs:
                self._evaluate(classifier, training, end.epoch, log, display)

        with closing(loader):
            train_and_evaluate(
                training,
                make_step=lambda: self._step(classifier, training),
                batches=loader.epoch,
                evaluate=evaluate,
                plan=plan,
                folder=self.folder,
                process=self.process,
                lr=how.lr,
            )
        return self._training_result(training)

    def _loader(self) -> LabelledLoader:
        augmenter = Augmenter(augmentation=self.settings.augmentation, mean=self.subject.mean, std=self.subject.std)
        return LabelledLoader(
            self.train,
            augmenter,
            batch_size=self.settings.optimisation.batch_size,
            seed=self.subject.seed,
            device=self.process.device,
            rank=self.process.rank,
            world=self.process.world,
            workers=loader_workers(self.machine),
        )

    def _step(self, classifier: Classifier, training: Training) -> Callable[[LabelledBatch], dict[str, Tensor]]:
        assert training.extra is not None
        self._bad |= {BadImage(path=path, reason=reason) for path, reason in training.extra["bad"]}
        classifier.network.train()
        network = distributed.parallel(classifier.network, self.process)
        world = self.process.world

        def step(batch: LabelledBatch) -> dict[str, Tensor]:
            self._bad.update(batch.bad)
            with torch.no_grad():
                features = classifier.features(batch.images)
            # The mean is over the global batch, whose parts differ in size in the last step of an epoch.
            rows = distributed.sum_over_processes(batch.labels.new_tensor([len(batch.labels)])).clamp(min=1)
            scores = network(features)
            losses = [functional.cross_entropy(s, batch.labels, reduction="sum") * world / rows[0] for s in scores]
            loss = torch.stack(losses).sum()
            training.update(loss)
            return {"loss": loss.detach()}

        return step

    def _evaluate(
        self, classifier: Classifier, training: Training, epoch: int, log: MetricsLog, display: Display
    ) -> None:
        tallies = self._tallies(classifier)
        metrics: dict[str, float] = {}
        for name, tally in zip(classifier.names, tallies, strict=True):
            metrics[name] = tally.top1
            if tally.top5 is not None:
                metrics["top5" if name == "top1" else f"{name}_top5"] = tally.top5
        extra = training.extra
        assert extra is not None
        extra["history"].append({"epoch": epoch, **metrics})
        extra["bad"] = [[bad.path, bad.reason] for bad in sorted(self._bad)]
        main = classifier.names[-1]
        if self.settings.keep == "last" or extra["kept"] is None or metrics[main] > extra["kept"]["metrics"][main]:
            names = self.train.classes
            detail = {name: tally.detail(names) for name, tally in zip(classifier.names, tallies, strict=True)}
            extra["kept"] = {"epoch": epoch, "metrics": metrics, "detail": detail[main]}
            if len(detail) > 1:
                extra["kept"]["detail"]["per_class"] = {name: part["per_class"] for name, part in detail.items()}
        log.write("evaluation", epoch=epoch, **metrics)
        shown = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        display.say(f"epoch {epoch}: {shown}")

    def _tallies(self, classifier: Classifier) -> list[AccuracyMeter]:
        device = self.process.device
        preprocess = Preprocess(
            kind="center",
            resize=self.settings.test_resize,
            size=self.settings.augmentation.size,
            mean=self.subject.mean,
            std=self.subject.std,
        )
        labels = torch.as_tensor(self.test.labels)
        mine = np.array_split(np.arange(len(self.test)), self.process.world)[self.process.rank]
        tallies = [AccuracyMeter(classifier.classes, device) for _ in classifier.names]
        classifier.network.eval()
        with torch.no_grad():
            for batch in image_batches(
                self.test,
                preprocess,
                batch_size=TEST_BATCH,
                device=device,
                workers=loader_workers(self.machine),
                indices=mine,
            ):
                self._bad.update(batch.bad)
                truth = labels[batch.indices.cpu()].to(device)
                scores = classifier.network(classifier.features(batch.images))
                for tally, part in zip(tallies, scores, strict=True):
                    tally.add(part, truth)
        classifier.network.train()
        for tally in tallies:
            tally.total()
        return tallies

    def _training_result(self, training: Training) -> TrainingResult:
        assert training.extra is not None
        if self._bad and self.process.is_main and self.machine.out is not None:
            write_skipped(self.folder / "skipped.csv", self._bad)
        kept = training.extra["kept"]
        return TrainingResult(
            epoch=kept["epoch"],
            metrics=kept["metrics"],
            detail=kept["detail"],
            history=training.extra["history"],
            bad=len(self._bad),
        )
