"""The synthetic shapes of benchmarks/shapes.py, for tests."""

from __future__ import annotations

from benchmarks.shapes import (
    CATEGORY_IDS,
    CLASSES,
    HIDDEN,
    Drawn,
    annotation,
    coco_folder,
    draw_shapes,
    runs,
    voc_folder,
    voc_tree,
)

__all__ = [
    "CATEGORY_IDS",
    "CLASSES",
    "HIDDEN",
    "Drawn",
    "annotation",
    "coco_folder",
    "draw_shapes",
    "runs",
    "voc_folder",
    "voc_tree",
]
