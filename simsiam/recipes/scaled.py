"""Recipes at the scale that a person asks for: pixels of the images or of a crop, iterations of a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from simsiam.errors import UserError
from simsiam.evaluation.detection.protocol import Detection
from simsiam.evaluation.protocol import Protocol
from simsiam.evaluation.segmentation.settings import CPU_RECIPE
from simsiam.recipes import linear, segmentation

SMALL = 64  # pixels; up to here the recipes for CIFAR-sized images are the usual ones


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a person says of a recipe's scale."""

    trained: int = 224  # pixels of the images that the weights were trained on
    size: int | None = None  # pixels of the images; of a crop in segmentation
    iterations: int | None = None  # of a detector's training
    device: str = "cuda"  # where it is trained: cpu, or what is much faster


Make = Callable[[Wanted], Protocol[Any]]


def by_size(**makers: Callable[[int], Protocol[Any]]) -> dict[str, Make]:
    """Recipes that are functions of the image's side."""
    return {name: partial(at_side, make) for name, make in makers.items()}


def at_side(make: Callable[[int], Protocol[Any]], wanted: Wanted) -> Protocol[Any]:
    """A recipe for images of the side that was asked for, or that the weights were trained at."""
    return make(wanted.size or wanted.trained)


def linear_recipes(*makers: Callable[[], linear.LinearRecipe]) -> dict[str, Make]:
    """Recipes of the linear protocols, adapted to the image's side."""
    return {make().name: partial(at_side, partial(_adapted, make)) for make in makers}


def _adapted(make: Callable[[], linear.LinearRecipe], size: int) -> Protocol[Any]:
    return linear.adapted(make(), size=size)


def small_is(name: str) -> Callable[[Wanted, Any], str | None]:
    """The recipe that is the usual one for CIFAR-sized images."""
    return lambda wanted, data: name if (wanted.size or wanted.trained) <= SMALL else None


def in_iterations(make: Callable[[], Detection], wanted: Wanted) -> Protocol[Any]:
    """A detector's recipe at the number of iterations that was asked for."""
    return make() if wanted.iterations is None else make().for_iterations(wanted.iterations)


def for_annotations(wanted: Wanted, sets: Any) -> str:
    """A detector with masks where both sets have them; before they are read too, as it has the flags of both.

    On a CPU a small one.
    """
    masks = sets is None or (sets.train.has_masks and sets.test.has_masks)
    return ("folder_masks" if masks else "folder_boxes") + ("_cpu" if wanted.device == "cpu" else "")


def for_masks(wanted: Wanted, sets: Any) -> str | None:
    """A small segmentor on a CPU."""
    return CPU_RECIPE if wanted.device == "cpu" else None


def at_crop(make: segmentation.Make, wanted: Wanted) -> Protocol[Any]:
    """A segmentor's recipe at the crop that was asked for; raises UserError for one that no network takes."""
    if wanted.size is not None and wanted.size < 8:
        raise UserError(f"--size {wanted.size}: a crop has 8 pixels or more.")
    return make() if wanted.size is None else segmentation.sized(make(), wanted.size)
