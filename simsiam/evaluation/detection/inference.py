"""A trained detector on images: a whole set for a score, single images for pictures; and the file that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from simsiam.backbones import ResNet, build_backbone
from simsiam.config import as_dict, from_dict
from simsiam.data.detection.boxes import BoxBatch, BoxSample, BoxSource, Frame, Prediction, Target
from simsiam.data.detection.instance_masks import encode
from simsiam.data.detection.loader import network_images, ordered_batches
from simsiam.data.detection.transforms import BoxTransform, transform
from simsiam.data.preprocess import Normalisation
from simsiam.engine.distributed import Process, gathered
from simsiam.engine.precision import Precision, autocast
from simsiam.errors import UserError
from simsiam.evaluation.detection.detector import Detector, build_detector
from simsiam.evaluation.detection.drawing import Compared, write_comparison
from simsiam.evaluation.detection.heads import paste
from simsiam.evaluation.detection.settings import Architecture
from simsiam.evaluation.detection.stages import Detections
from simsiam.weights.reading import read
from simsiam.weights.save import metadata, write_tensors

Watched = Callable[[Iterable[BoxBatch], int], Iterator[BoxBatch]]
TEST_BATCH = 1  # images: what is found on one then depends on no other's padding
FILE = "detector.safetensors"
FORMAT = "simsiam-detector-1"
PICTURES = "pictures/predictions.jpg"
EXAMPLES = 6  # images of a report's grid
SHOWN = 0.5  # score of a detection that is drawn at least, where no better one is known
MOST = 20  # detections that are drawn on one image: a barely trained detector finds a thicket of them


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """A detector with what its use needs."""

    detector: Detector
    classes: tuple[str, ...]  # label k is classes[k - 1]
    images: BoxTransform  # how they come in
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    score: float | None = None  # from which detections are shown: the best on the test images; None: not known

    @property
    def normalisation(self) -> Normalisation:
        """Of the images that come in."""
        return Normalisation(mean=self.mean, std=self.std)

    @property
    def threshold(self) -> float:
        """Probability from which a pixel belongs to a mask."""
        return self.detector.architecture.masks.threshold if self.detector.architecture.masks is not None else 0.0


def find_all(
    kept: TrainedDetector, source: BoxSource, watched: Watched, *, precision: Precision, process: Process, workers: int
) -> list[Prediction]:
    """What is found on every image, in the source's order; the processes share the work and all get the whole.

    Args:
        watched: (batches, images in all) -> the same batches, watched; it may raise to leave.
    """
    kept.detector.eval()
    batches = ordered_batches(
        source,
        kept.images,
        normalisation=kept.normalisation,
        batch_size=TEST_BATCH,
        device=process.device,
        rank=process.rank,
        world=process.world,
        workers=workers,
    )
    found: list[Prediction] = []
    for batch in watched(batches, -(-(len(source) - process.rank) // process.world)):
        sizes = [(frame.height, frame.width) for frame in batch.frames]
        with torch.no_grad(), autocast(precision, process.device):
            detections = kept.detector.detect(batch.images, sizes)
        found += [in_image(each, at, kept.threshold) for each, at in zip(detections, batch.frames, strict=True)]
    return sorted(gathered(found), key=lambda prediction: prediction.image)


def in_image(found: Detections, frame: Frame, threshold: float) -> Prediction:
    """Detections on a resized image in the image's own pixels, on the CPU, masks drawn and encoded."""
    boxes = frame.to_image(found.boxes.float().cpu())
    masks = None
    if found.masks is not None:
        size = (frame.original_height, frame.original_width)
        # One by one: a hundred masks of a large photo would be gigabytes as pixels.
        masks = tuple(
            encode(paste(mask[None], box[None], size, threshold))[0]
            for mask, box in zip(found.masks.float().cpu(), boxes, strict=True)
        )
    return Prediction(
        image=frame.index, boxes=boxes, scores=found.scores.float().cpu(), labels=found.labels.cpu(), masks=masks
    )


def save_detector(folder: Path, trained: TrainedDetector) -> Path:
    """Write detector.safetensors into a folder, atomically."""
    facts = {
        **metadata(trained.detector.features.trunk, None),
        "format": FORMAT,
        "architecture": json.dumps(as_dict(trained.detector.architecture)),
        "images": json.dumps(as_dict(trained.images)),
        "classes": json.dumps(trained.classes),
        "mean": json.dumps(trained.mean),
        "std": json.dumps(trained.std),
        "score": json.dumps(trained.score),
    }
    write_tensors(folder / FILE, trained.detector.state_dict(), facts=facts)
    return folder / FILE


def load_detector(folder: Path) -> TrainedDetector:
    """The detector of an evaluation's folder; raises UserError if there is none, or if it is damaged."""
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder}: no {FILE} in it. Name the folder of a finished detection evaluation.")
    content = read(path)
    try:
        return _restore(content.metadata, content.raw)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a detector of this version, or damaged ({error}).") from error


def _restore(facts: dict[str, str], state: dict[str, Any]) -> TrainedDetector:
    if facts.get("format") != FORMAT:
        raise ValueError(f"format {facts.get('format')!r}")
    backbone = build_backbone(facts["backbone"], width=int(facts["width"]), stem=facts["stem"])  # type: ignore[arg-type]
    assert isinstance(backbone, ResNet)
    if "stem_padding" in facts:
        backbone.conv1.padding = (int(facts["stem_padding"]),) * 2
    classes = tuple(json.loads(facts["classes"]))
    detector = build_detector(from_dict(Architecture, json.loads(facts["architecture"])), backbone, len(classes))
    detector.load_state_dict(state, strict=True)
    detector.eval()
    return TrainedDetector(
        detector=detector,
        classes=classes,
        images=from_dict(BoxTransform, json.loads(facts["images"])),
        mean=tuple(json.loads(facts["mean"])),
        std=tuple(json.loads(facts["std"])),
        score=json.loads(facts.get("score", "null")),  # files of earlier versions have none
    )


def find_on(kept: TrainedDetector, image: Image, *, index: int = 0) -> Prediction:
    """What the detector finds on an RGB image, in the image's own pixels."""
    ready = transform(BoxSample(image=image, target=Target.empty()), kept.images, np.random.default_rng(0))
    height, width = ready.pixels.shape[:2]
    batch = network_images([ready], kept.normalisation)
    batch = batch.to(next(kept.detector.parameters()).device)
    frame = Frame(index=index, height=height, width=width, original_height=image.height, original_width=image.width)
    return in_image(kept.detector.detect(batch, [(height, width)])[0], frame, kept.threshold)


def draw_examples(kept: TrainedDetector, source: BoxSource, folder: Path) -> list[dict[str, str]]:
    """Write a grid of a few test images with objects, annotation beside detections; what a result says of it."""
    rows = [index for index in range(len(source)) if len(source.target(index))]
    chosen = [rows[place] for place in np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).astype(int)]
    compared = []
    for index in chosen:
        sample = source.read(index)
        prediction = find_on(kept, sample.image, index=index)
        compared.append(Compared(name=source.image(index).path, sample=sample, prediction=prediction))
    shown = SHOWN if kept.score is None else kept.score
    write_comparison(folder / PICTURES, compared, kept.classes, threshold=shown, most=MOST)
    caption = (
        f"Test images: what is annotated, and what is found at a score of {shown:g} or more, the {MOST} surest at most."
    )
    return [{"file": PICTURES, "caption": caption}]
