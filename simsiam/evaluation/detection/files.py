"""A trained detector as one file that says all of itself: detector.safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam.backbones import ResNet, build_backbone
from simsiam.config import as_dict
from simsiam.data.detection.transforms import BoxTransform
from simsiam.errors import UserError
from simsiam.evaluation.detection.detector import Detector, build_detector
from simsiam.evaluation.detection.settings import (
    Architecture,
    Assignment,
    Boxes,
    Masks,
    Proposals,
    Rpn,
    Sampling,
    Selection,
)
from simsiam.weights.reading import read
from simsiam.weights.save import metadata, write_tensors

FILE = "detector.safetensors"
FORMAT = "simsiam-detector-1"


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """A detector with what its use needs."""

    detector: Detector  # on the CPU, in evaluation mode
    classes: tuple[str, ...]  # label k is classes[k - 1]
    images: BoxTransform  # how they come in
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


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
    detector = build_detector(architecture_from_dict(json.loads(facts["architecture"])), backbone, len(classes))
    detector.load_state_dict(state, strict=True)
    detector.eval()
    images = json.loads(facts["images"])
    return TrainedDetector(
        detector=detector,
        classes=classes,
        images=BoxTransform(**{**images, "short_sides": tuple(images["short_sides"])}),
        mean=tuple(json.loads(facts["mean"])),
        std=tuple(json.loads(facts["std"])),
    )


def architecture_from_dict(raw: dict[str, Any]) -> Architecture:
    """The record that `as_dict` made plain."""
    rpn, boxes, masks = raw["rpn"], raw["boxes"], raw["masks"]
    return Architecture(
        **{
            **raw,
            "rpn": Rpn(
                **{
                    **rpn,
                    "scales": tuple(rpn["scales"]),
                    "ratios": tuple(rpn["ratios"]),
                    "assignment": Assignment(**rpn["assignment"]),
                    "sampling": Sampling(**rpn["sampling"]),
                    "train": Proposals(**rpn["train"]),
                    "test": Proposals(**rpn["test"]),
                }
            ),
            "boxes": Boxes(
                **{
                    **boxes,
                    "assignment": Assignment(**boxes["assignment"]),
                    "sampling": Sampling(**boxes["sampling"]),
                    "deviations": tuple(boxes["deviations"]),
                }
            ),
            "masks": Masks(**masks) if masks is not None else None,
            "test": Selection(**raw["test"]),
        }
    )
