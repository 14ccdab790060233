"""Trained models of all tasks as `simsiam predict` uses them: what is in an image, and how it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL.Image import Image

from simsiam.engine.distributed import pick_device
from simsiam.errors import UserError
from simsiam.evaluation.classification import inference as classification
from simsiam.evaluation.classification.inference import TrainedClassifier
from simsiam.evaluation.detection.drawing import draw, draw_prediction
from simsiam.evaluation.detection.inference import FILE, SHOWN, TrainedDetector, find_on, load_detector
from simsiam.evaluation.palette import is_background
from simsiam.evaluation.place import unfinished
from simsiam.evaluation.predicted import Form, Seen, Thing, objects_of, painted, regions_of, write
from simsiam.evaluation.segmentation.inference import TrainedSegmentor, load_segmentor
from simsiam.evaluation.segmentation.pictures import overlay, palette_image
from simsiam.results import write_atomic
from simsiam.wording import counted

TOP = 5  # classes of a whole image that are written


def open_model(folder: Path, *, device: str, threshold: float | None, most: int) -> Model:
    """The model that a folder holds.

    Args:
        device: as `Machine.device`.
        threshold: lowest score of a detection; None: the detector's own.
        most: detections that are drawn on an image.

    Raises UserError where there is none, or its training is not finished.
    """
    place = pick_device(device)
    if (folder / FILE).exists():
        detector = load_detector(folder)
        detector.detector.to(place)
        chosen = threshold if threshold is not None else detector.score
        return _Detections(trained=detector, threshold=SHOWN if chosen is None else chosen, most=most)
    if (folder / classification.FILE).exists():
        return _Classes(trained=classification.load_classifier(folder).to(place))
    log = folder / "metrics.jsonl"  # names the losses
    if log.is_file() and '"rpn_box"' in log.read_text(encoding="utf-8")[:10_000]:
        raise UserError(unfinished(folder, "detector"))
    if (folder / "checkpoints").is_dir():
        return _Masks(trained=load_segmentor(folder, place))
    if (folder / "grid").is_dir():
        raise UserError(unfinished(folder, "model", "rates are still being compared"))
    raise UserError(
        f"{folder}: holds no trained detector ({FILE}), no segmentor (checkpoints) and no classifier "
        f"({classification.FILE}). Name the folder of a finished `simsiam evaluate detection-...`, `segmentation-...`, "
        "`few-labels`, `probe`, `linear-avgpool` or `semi-supervised`."
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a model sees in one image, and how it is drawn."""

    things: tuple[Thing, ...]
    picture: Callable[[], Image]
    mask: Callable[[Seen], Image]


class Model(ABC):
    """A trained model as this command uses it."""

    trained: TrainedDetector | TrainedSegmentor | TrainedClassifier
    kind: ClassVar[str]
    forms: ClassVar[tuple[Form, ...]]  # what can be written
    usual: ClassVar[tuple[Form, ...]]
    suffix: ClassVar[str] = ".jpg"  # of the pictures

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.trained.classes

    def beginning(self) -> str:
        """A first line, where something was chosen."""
        return ""

    def note(self, seen: Sequence[Seen]) -> str:
        """A last line, where there is more to know."""
        return ""

    @abstractmethod
    def look(self, image: Image) -> Found:
        """What is in an RGB image."""

    def finish(self, seen: Sequence[Seen], forms: Sequence[Form], out: Path) -> None:
        """Write the files that hold all images."""
        for form in forms:
            write(form, seen, self.classes, out)

    @abstractmethod
    def summary(self, seen: Sequence[Seen]) -> str:
        """What was found, in a line."""


@dataclass(kw_only=True)
class _Detections(Model):
    """Boxes, and masks where the model has them."""

    kind = "a detector"
    forms = ("pictures", "json", "coco", "yolo", "csv", "masks")
    usual = ("pictures", "json")
    trained: TrainedDetector
    threshold: float
    most: int

    def beginning(self) -> str:
        if self.threshold != self.trained.score:
            return ""
        return (
            f"score {self.threshold:g} or more: the threshold with the best F1 on the detector's test images "
            "(--threshold takes another)"
        )

    def look(self, image: Image) -> Found:
        found = find_on(self.trained, image)
        return Found(
            things=objects_of(found, self.threshold),
            picture=lambda: draw_prediction(image, found, self.classes, threshold=self.threshold, most=self.most),
            mask=lambda seen: palette_image(painted(seen), ("background", *self.classes)),
        )

    def finish(self, seen: Sequence[Seen], forms: Sequence[Form], out: Path) -> None:
        super().finish(seen, forms, out)
        if "masks" in forms:
            _write_classes(out, ("background", *self.classes))

    def summary(self, seen: Sequence[Seen]) -> str:
        return f"{counted(sum(len(each.things) for each in seen), 'object')} in {counted(len(seen), 'image')}"

    def note(self, seen: Sequence[Seen]) -> str:
        crowded = sum(len(each.things) > self.most for each in seen)
        if not crowded:
            return ""
        drawn = "surest is drawn" if self.most == 1 else f"{self.most:,} surest are drawn"
        return (
            f"more than {counted(self.most, 'object')} in {counted(crowded, 'image')}: there the {drawn} "
            "(--most), and the files have all. A higher --threshold leaves doubtful ones out."
        )


@dataclass(kw_only=True)
class _Masks(Model):
    """The classes of all pixels."""

    kind = "a segmentor"
    forms = ("pictures", "json", "coco", "yolo", "csv", "masks")
    usual = ("pictures", "masks")
    suffix = ".png"
    trained: TrainedSegmentor

    def look(self, image: Image) -> Found:
        mask = self.trained.mask_of(image)
        behind = [number for number, name in enumerate(self.classes) if is_background(name)]
        return Found(
            things=regions_of(mask, behind),
            picture=lambda: overlay(image, mask, self.classes),
            mask=lambda seen: palette_image(mask, self.classes),
        )

    def finish(self, seen: Sequence[Seen], forms: Sequence[Form], out: Path) -> None:
        super().finish(seen, forms, out)
        if "masks" in forms:
            _write_classes(out, self.classes)

    def summary(self, seen: Sequence[Seen]) -> str:
        return counted(len(seen), "image with its mask", "images with their masks")


@dataclass(kw_only=True)
class _Classes(Model):
    """The classes of the whole image."""

    kind = "a classifier"
    forms = ("pictures", "json", "csv")
    usual = ("pictures", "csv")
    trained: TrainedClassifier

    def look(self, image: Image) -> Found:
        best = self.trained.probabilities(image).topk(min(TOP, len(self.classes)))
        scores, labels = best.values.tolist(), best.indices.tolist()
        words = f"{self.classes[labels[0]]} {100 * scores[0]:.0f} %"
        things = tuple(Thing(label=label, score=round(score, 4)) for label, score in zip(labels, scores, strict=True))
        return Found(things=things, picture=lambda: draw(image, [], none=words), mask=lambda seen: image)

    def summary(self, seen: Sequence[Seen]) -> str:
        counts = Counter(self.classes[each.things[0].label] for each in seen)
        return f"{counted(len(seen), 'image')}: {', '.join(f'{name} {n:,}' for name, n in counts.most_common())}"


def _write_classes(out: Path, names: Sequence[str]) -> None:
    """The names of the masks' ids, a line each from 0."""
    write_atomic(out / "classes.txt", "".join(f"{name}\n" for name in names))
