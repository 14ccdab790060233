"""The published augmentation (MoCo v2; SimSiam paper, section 3) as a record, and variations of it, for the tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam.config import Views

PUBLISHED = Views(
    size=32,
    min_scale=0.2,
    max_scale=1.0,
    jitter_probability=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_probability=0.2,
    blur_probability=0.5,
    blur_sigma_min=0.1,
    blur_sigma_max=2.0,
    flip_probability=0.5,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
CROP_ONLY = {"jitter_probability": 0.0, "grayscale_probability": 0.0, "blur_probability": 0.0}
NO_COLOUR = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def views(**changes: Any) -> Views:
    """The published views with some fields changed."""
    return dataclasses.replace(PUBLISHED, **changes)


def only(**changes: Any) -> Views:
    """Crop and flip alone, but for the fields given."""
    return views(**{**CROP_ONLY, **NO_COLOUR, **changes})
