"""A trained detector on single images: beside the annotation for a report, and alone on images of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from simsiam.data.detection.boxes import BoxSample, BoxSource, Frame, Prediction, Target
from simsiam.data.detection.loader import network_images
from simsiam.data.detection.transforms import transform
from simsiam.data.preprocess import Normalisation
from simsiam.evaluation.detection.drawing import Compared, write_comparison
from simsiam.evaluation.detection.files import TrainedDetector
from simsiam.evaluation.detection.scoring import in_image

EXAMPLES = 6  # images of a report's grid
SHOWN = 0.5  # score of a detection that is drawn there, at least
MOST = 20  # detections that are drawn on one image: a barely trained detector finds a thicket of them
FILE = "pictures/predictions.jpg"


def find_on(kept: TrainedDetector, image: Image, *, index: int = 0) -> Prediction:
    """What the detector finds on an RGB image, in the image's own pixels."""
    nothing = Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        difficult=torch.zeros(0, dtype=torch.bool),
        crowd=torch.zeros(0, dtype=torch.bool),
        area=torch.zeros(0),
        masks=None,
    )
    ready = transform(BoxSample(image=image, target=nothing), kept.images, np.random.default_rng(0))
    height, width = ready.pixels.shape[:2]
    batch = network_images([ready], Normalisation(mean=kept.mean, std=kept.std))
    batch = batch.to(next(kept.detector.parameters()).device)
    frame = Frame(index=index, height=height, width=width, original_height=image.height, original_width=image.width)
    found = kept.detector.detect(batch, [(height, width)])[0]
    masks = kept.detector.architecture.masks
    return in_image(found, frame, masks.threshold if masks is not None else 0.0)


def draw_examples(kept: TrainedDetector, source: BoxSource, folder: Path) -> list[dict[str, str]]:
    """Write a grid of a few test images with objects, annotation beside detections; what a result says of it."""
    rows = [index for index in range(len(source)) if len(source.target(index))]
    chosen = [rows[place] for place in np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).astype(int)]
    compared = []
    for index in chosen:
        sample = source.read(index)
        prediction = find_on(kept, sample.image, index=index)
        compared.append(Compared(name=source.image(index).path, sample=sample, prediction=prediction))
    write_comparison(folder / FILE, compared, kept.classes, threshold=SHOWN, most=MOST)
    caption = (
        f"Test images: what is annotated, and what is found at a score of {SHOWN:g} or more, the {MOST} surest at most."
    )
    return [{"file": FILE, "caption": caption}]
