"""Detection transfer: a detector around the backbone, fine-tuned as a whole and scored by average precision.

Sources: the model zoo's configurations (Faster R-CNN R50-C4 on VOC07+12, Mask R-CNN on COCO); He et al. 2020 (MoCo),
appendix, for the C4 form with an extra BatchNorm; Chen & He 2021, table 5, for the transfer settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from simsiam.config import Machine, as_dict
from simsiam.data.splits import data_id
from simsiam.errors import UserError
from simsiam.evaluation.detection.settings import DetectionSettings
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, plural

if TYPE_CHECKING:
    from simsiam.data.detection.boxes import BoxSource
    from simsiam.evaluation.detection.data import BoxSets
    from simsiam.evaluation.detection.trainer import DetectorTrainer
    from simsiam.evaluation.fine_tuning import TrainingResult
    from simsiam.evaluation.place import Place
    from simsiam.evaluation.rate_search import Sweep


@dataclass(frozen=True, kw_only=True)
class Detection(DetectionSettings, Protocol["BoxSets"]):
    """The settings of a detection benchmark as a protocol."""

    nested_flags: ClassVar[bool] = True
    everyday: ClassVar[tuple[str, ...]] = ("lr", "batch_size", "accumulate", "lr_sweep", "sweep_choice", "precision")

    @property
    def protocol(self) -> str:  # type: ignore[override]  # one class serves several benchmarks, distinguished by a field
        """What Result.protocol says."""
        return f"detection_{self.benchmark}"

    def remarks(self, subject: PretrainedBackbone, data: BoxSets) -> list[str]:
        """How the sets were read, images in both, and in one's own what is too small or far from all anchors."""
        return [*self.data_notes(data), *data.notes, *self._fit(subject, data)]

    def fitted(self, recipe: Self, subject: PretrainedBackbone, data: BoxSets) -> Self:
        """Anchors for the training objects of one's own set; published sets and scales that a person named stay."""
        from simsiam.evaluation.detection.anchor_fit import anchor_fit

        rpn = self.architecture.rpn
        if self.benchmark != "folder" or rpn.scales != recipe.architecture.rpn.scales:
            return self
        fit = anchor_fit(data.train, self.test_images, self.architecture, subject.backbone)
        if fit is None or fit.chosen is None:
            return self
        return replace(self, architecture=replace(self.architecture, rpn=replace(rpn, scales=fit.chosen)))

    def data_id(self, data: BoxSets) -> DataId:
        """Both sets."""
        return data_id(data.train, data.test)

    def score(self, subject: PretrainedBackbone, data: BoxSets, *, machine: Machine) -> Measured:
        """Average precisions in percent: ap50, ap50_area, ap, ap75 (VOC), or box_* and mask_* (COCO).

        Trains in `machine.out` from its last checkpoint on. Raises UserError as the settings, data or weights ask
        for it, and `engine.stopping.Interrupted` when asked to stop, with the state saved.
        """
        from simsiam.engine.distributed import barrier
        from simsiam.evaluation.detection.inference import FILE
        from simsiam.evaluation.place import place_of

        self.check()
        self._refuse_unfit(data)
        learnt = replace(data, train=self._to_learn_from(data.train))
        with place_of(self, subject, data_id(learnt.train, learnt.test).sha256, machine) as place:
            if place.process.is_main:
                (place.folder / FILE).unlink(missing_ok=True)  # of an earlier run; it stands for a finished training
            sweep = self._sweep(learnt, place)
            chosen = replace(self, lr=sweep.lr)
            trainer = chosen._trainer(learnt, place)
            trained = trainer.fit()
            detail: dict[str, Any] = {**trained.detail, "lr": chosen.scaled_lr, **sweep.detail}
            if machine.out is not None and place.process.is_main:
                detail["pictures"] = trainer.keep((trained.detail.get("threshold") or {}).get("score"))
            barrier()
        notes = [*self._notes(data, chosen.lr, len(data.train) - len(learnt.train)), *sweep.notes]
        notes += [_shown_from(trained.detail.get("threshold")), *self._fit(subject, data)]
        return Measured(metrics=trained.metrics, detail=detail, notes=notes)

    def _trainer(self, data: BoxSets, place: Place, folder: str = "") -> DetectorTrainer:
        from simsiam.evaluation.detection.trainer import DetectorTrainer

        place = place.part(folder, protocol=as_dict(self), data=data_id(data.train, data.test).sha256)
        return DetectorTrainer(settings=self, data=data, place=place)

    def _to_learn_from(self, source: BoxSource) -> BoxSource:
        """Without the images that have nothing to learn from, where the settings leave them out.

        Of the published sets an image without any annotation is left out in every case, as published; in a folder of
        one's own it is a negative that `kept` keeps.
        """
        from simsiam.data.detection.checks import with_objects

        learnt = with_objects(source, "difficult" if self.difficult == "learnt" else "ordinary")
        if not len(learnt):
            raise UserError(
                f"{source.name}: no object to learn from in {counted(len(source), 'image')}: all are marked as crowds "
                "or as difficult. Correct iscrowd or difficult in the annotations, or learn the latter by "
                "--difficult learnt."
            )
        if self.background == "left_out":
            return learnt
        return source if self.benchmark == "folder" else with_objects(source, "any")

    def _sweep(self, data: BoxSets, place: Place) -> Sweep:
        """Each rate on a short schedule, scored on training images held out for it."""
        import numpy as np

        from simsiam.evaluation.rate_search import MOST_HELD_OUT, Sweep, sweep

        if not self.lr_sweep:
            return Sweep(lr=self.lr)
        train = data.train
        order = np.random.default_rng((place.subject.seed, 3)).permutation(len(train))
        count = min(MOST_HELD_OUT, max(1, len(order) // 5))
        if count >= len(order):
            raise UserError(f"--lr-sweep: {train.name} has {counted(len(order), 'image')}, too few to hold some out.")
        held = replace(data, train=train.subset(np.sort(order[count:])), test=train.subset(np.sort(order[:count])))
        short = self.for_iterations(self.sweep_iterations)
        short = replace(short, evaluate_every=short.length, lr_sweep=())

        def train_at(lr: float) -> TrainingResult:
            return replace(short, lr=lr)._trainer(held, place, f"grid/lr{lr:g}").fit()

        return sweep(
            self.lr_sweep,
            train_at,
            lr=self.lr,
            choice=self.sweep_choice,
            metric=self.main_metric,
            iterations=short.length,
            held_out=count,
        )

    def _fit(self, subject: PretrainedBackbone, data: BoxSets) -> list[str]:
        """Objects of one's own that are too small to see, or far from all anchors."""
        from simsiam.evaluation.detection.anchor_fit import anchor_fit, object_sides

        if self.benchmark != "folder":  # the published sets have the published sizes and anchors
            return []
        found = []
        for source, what in ((data.train, "training"), (data.test, "test")):
            sides = object_sides(source, self.test_images)
            if tiny := int((sides.amin(1) < 1).sum()) if len(sides) else 0:
                found.append(
                    f"{tiny} of {counted(len(sides), f'{what} object')} {plural(tiny, 'is', 'are')} under a pixel wide "
                    "or high at the size that the network sees: raise --test-images.short-sides, or cut the images "
                    "into tiles."
                )
        fit = anchor_fit(data.train, self.test_images, self.architecture, subject.backbone)
        return [*found, fit.remark] if fit is not None and fit.remark is not None else found

    def _refuse_unfit(self, data: BoxSets) -> None:
        """Data that the settings cannot be trained or scored on."""
        if data.train.classes != data.test.classes:
            raise UserError(
                f"{data.train.name} and {data.test.name}: the classes differ "
                f"({', '.join(data.train.classes[:5])} ... and {', '.join(data.test.classes[:5])} ...). "
                "Both must have the same names in the same order."
            )
        if not sum(int(data.test.target(index).ordinary.sum()) for index in range(len(data.test))):
            raise UserError(
                f"{data.test.name}: no test object that counts in a score: the images have none, or crowds and "
                "difficult ones alone. Name a test set with objects by --test, or correct iscrowd or difficult in the "
                "annotations."
            )
        if self.architecture.masks is not None and not (data.train.has_masks and data.test.has_masks):
            without = data.train if not data.train.has_masks else data.test
            raise UserError(
                f"{without.name}: {self.name} learns masks, and this set has boxes only. Take a recipe without masks "
                "(--recipe folder_boxes), or COCO annotations with segmentations."
            )

    def _notes(self, data: BoxSets, lr: float, left_out: int) -> list[str]:
        notes = list(data.notes)
        if self.batch_size != self.lr_batch:
            scaled = lr * self.batch_size / self.lr_batch
            notes.append(f"batch {self.batch_size} instead of {self.lr_batch}: the rate {lr:g} became {scaled:g}")
            if self.unit == "iterations":
                seen, usual = (self.length * batch for batch in (self.batch_size, self.lr_batch))
                notes.append(
                    f"{counted(self.length, 'iteration')} saw {counted(seen, 'image')}, at batch "
                    f"{self.lr_batch} {usual:,}"
                )
        classes = len(data.train.classes)
        if self.expected_classes is not None and classes != self.expected_classes:
            notes.append(f"{counted(classes, 'class', 'classes')}; the published benchmark has {self.expected_classes}")
        if left_out:
            notes.append(
                f"{counted(left_out, 'training image')} without an object to learn from "
                f"{plural(left_out, 'was', 'were')} left out"
            )
        if self.architecture.backbone_norm == "frozen" or self.architecture.head_norm == "none":
            notes.append("BatchNorm is not trained throughout, as it is in the published recipe")
        return notes


def _shown_from(chosen: dict[str, float] | None) -> str:
    """The threshold of the detector as a person reads it."""
    if chosen is None:
        return "no detection on the test images is right, at any score: predict draws from 0.5 on"
    right, found = (f"{chosen[key]:.0f} %" for key in ("precision", "recall"))
    return (
        f"predict shows detections of score {chosen['score']:g} or more, the best F1 on the test images "
        f"({chosen['f1']:.1f}): "
        f"there {right} of them are right, and {found} of the objects are found"
    )
