"""A tiny VOC tree: images of coloured blobs, three classes, several on an image, some of them difficult."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
WORDS = {1: "1", 0: "-1", -1: "0"}  # this project's marks -> VOC's


def targets(count: int, *, seed: int) -> np.ndarray:
    """count x 3 of 1 (present), 0 (absent) and, now and then, -1 (difficult)."""
    random = np.random.default_rng(seed)
    marks = (random.random((count, 3)) < 0.4).astype(np.int8)
    marks[(random.random((count, 3)) < 0.08) & (marks == 1)] = -1
    return marks


def image(marks: np.ndarray, *, seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Grey noise with a square for each class that is present or difficult (those small)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 150, (size[1], size[0], 3))
    for name, mark in zip(CLASSES, marks, strict=True):
        if mark:
            side = 16 if mark == 1 else 6
            x, y = random.integers(0, size[0] - side), random.integers(0, size[1] - side)
            pixels[y : y + side, x : x + side] = COLOURS[name]
    return Image.fromarray(pixels.astype(np.uint8))


def tree(root: Path, *, train: int = 60, test: int = 40, lists: bool = True, annotations: bool = True) -> Path:
    """Write VOC2007 under root; returns its folder. `lists` are the CLASS_SPLIT.txt files."""
    voc = root / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    first = 0
    for split, count in (("trainval", train), ("test", test)):
        marks = targets(count, seed=first + 1)
        names = [f"{number:06d}" for number in range(first + 1, first + count + 1)]
        first += count
        (voc / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for row, name in enumerate(names):
            image(marks[row], seed=int(name)).save(voc / "JPEGImages" / f"{name}.jpg", quality=95)
            if annotations:
                (voc / "Annotations" / f"{name}.xml").write_text(annotation(marks[row]))
        for column, kind in enumerate(CLASSES) if lists else ():
            lines = [f"{name} {WORDS[mark]:>2}\n" for name, mark in zip(names, marks[:, column].tolist(), strict=True)]
            (voc / "ImageSets/Main" / f"{kind}_{split}.txt").write_text("".join(lines))
    return voc


def annotation(marks: np.ndarray) -> str:
    """The XML of an image: a present class also has a difficult object, which must not outweigh the plain one."""
    entries = []
    for name, mark in zip(CLASSES, marks.tolist(), strict=True):
        flags = {1: ("1", "0"), 0: (), -1: ("1",)}[mark]
        entries += [f"<object><name>{name}</name><difficult>{flag}</difficult></object>" for flag in flags]
    return f"<annotation>{''.join(entries)}</annotation>"
