"""Semantic segmentation: a fully convolutional network on the weights, trained whole and scored by mIoU.

Sources: Long et al. 2015; the model zoo's configurations for VOC2012 + aug and Cityscapes (all settings). Nothing is
frozen and BatchNorm trains, over all devices where they are GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from simsiam.config import Machine
from simsiam.data.splits import data_id
from simsiam.errors import UserError
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.evaluation.segmentation.settings import Segmentation
from simsiam.results import DataId
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.data.segmentation.masks import MaskSplits
    from simsiam.evaluation.fine_tuning import TrainingResult
    from simsiam.evaluation.place import Place
    from simsiam.evaluation.rate_search import Sweep


@dataclass(frozen=True, kw_only=True)
class _MaskProtocol(Protocol["MaskSplits"]):
    """A segmentor around the backbone, trained whole; what the benchmarks below have in common."""

    everyday: ClassVar[tuple[str, ...]] = ("iterations", "batch_size", "lr", "lr_sweep", "sweep_choice", "precision")
    segmentation: Segmentation

    @property
    def main_metric(self) -> str:
        """Mean intersection over union."""
        return "miou"

    def data_id(self, data: MaskSplits) -> DataId:
        """Both sets."""
        return data_id(data.train, data.test)

    def remarks(self, subject: PretrainedBackbone, data: MaskSplits) -> list[str]:
        """How the sets were read, and images in both of them."""
        return [*self.data_notes(data), *data.notes]

    def score(self, subject: PretrainedBackbone, data: MaskSplits, *, machine: Machine) -> Measured:
        """miou, pixel_accuracy and mean_accuracy, percent; `detail["per_class"]["IoU"]` by class.

        Checks the data, searches the rate where asked, trains, and scores the last iteration. Raises UserError for
        data, weights or settings that nothing can be trained with; `engine.stopping.Interrupted` when asked to stop,
        with the state saved.
        """
        from simsiam.evaluation.place import place_of
        from simsiam.evaluation.segmentation.trainer import check_data, trainer_for

        settings = self.segmentation
        settings.course.check(settings.design)
        if data.train.classes != data.test.classes:
            raise UserError(f"{data.train.name} and {data.test.name}: the two sets have different classes.")
        with place_of(self, subject, data_id(data.train, data.test).sha256, machine) as place:
            data, absent = check_data(data, place)
            sweep = self._sweep(data, place)
            chosen = replace(settings, course=replace(settings.course, lr=sweep.lr))
            trainer = trainer_for(chosen, data, place.part("", part="main"))
            trained = trainer.fit()
            detail: dict[str, Any] = {
                **trained.detail,
                "loaded_tensors": len(subject.backbone.state_dict()),  # all of them: `check_complete`
                "lr": chosen.course.scaled_lr,
                **sweep.detail,
            }
            if machine.out is not None:
                detail["pictures"] = trainer.draw_examples()
        notes = [*data.notes, *absent, *chosen.notes]
        classes = len(data.train.classes)
        if settings.expected_classes is not None and classes != settings.expected_classes:
            published = settings.expected_classes
            notes.append(f"{counted(classes, 'class', 'classes')}; the published data set has {published}")
        if unseen := [name for name in data.test.classes if name not in trained.detail["per_class"]["IoU"]]:
            notes.append(
                f"{counted(len(unseen), 'class is', 'classes are')} neither in the test masks nor in the predictions "
                f"and not in the means: {', '.join(unseen)}"
            )
        return Measured(metrics=trained.metrics, detail=detail, notes=[*notes, *sweep.notes], data=data)

    def _sweep(self, data: MaskSplits, place: Place) -> Sweep:
        """Each rate on a short schedule, scored on training images held out for it."""
        from simsiam.data.segmentation.masks import MaskSource, MaskSplits
        from simsiam.data.splits import split_held_out
        from simsiam.evaluation.rate_search import MOST_HELD_OUT, Sweep, sweep
        from simsiam.evaluation.segmentation.trainer import trainer_for

        settings, search = self.segmentation, self.segmentation.search
        if not search.lr_sweep:
            return Sweep(lr=settings.course.lr)
        parts = split_held_out(data.train, images=MOST_HELD_OUT, seed=place.subject.seed)
        assert isinstance(parts.train, MaskSource)
        assert isinstance(parts.held_out, MaskSource)
        held = MaskSplits(train=parts.train, test=parts.held_out)
        short = replace(settings.course, iterations=search.sweep_iterations, evaluate_every=search.sweep_iterations)

        def train_at(lr: float) -> TrainingResult:
            course = replace(short, lr=lr)
            course.check(settings.design)
            own = place.part(f"grid/lr{lr:g}", part=f"lr {lr:g}")
            return trainer_for(replace(settings, course=course), held, own).fit()

        return sweep(
            search.lr_sweep,
            train_at,
            lr=settings.course.lr,
            choice=search.sweep_choice,
            metric="miou",
            iterations=short.iterations,
            held_out=len(held.test),
        )


class SegmentationVoc12Aug(_MaskProtocol):
    """mIoU on VOC2012 val after training on VOC2012 + aug."""

    protocol: ClassVar[str] = "segmentation_voc12aug"


class SegmentationCityscapes(_MaskProtocol):
    """mIoU on Cityscapes val after training on its fine masks."""

    protocol: ClassVar[str] = "segmentation_cityscapes"


class SegmentationFolder(_MaskProtocol):
    """mIoU on images and masks of one's own."""

    protocol: ClassVar[str] = "segmentation_folder"
