"""Which changes to a photo the near-duplicate search still sees as the same photo, and how many others it takes in.

python benchmarks/near_duplicates.py WEIGHTS PHOTOS [--changed 100]

Some photos are changed in known ways in memory. For each change: the median similarity to its original and the share
that reaches each threshold; below, the share of images whose most similar other photo reaches it though nobody made
it a copy.
"""

from __future__ import annotations

import argparse
import io

import numpy as np
from PIL import Image, ImageEnhance

import simsiam
from simsiam.embedding.similarity import Index

THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("photos")
    parser.add_argument("--changed", type=int, default=100)
    asked = parser.parse_args()
    embedded = simsiam.embed_folder(asked.photos, asked.weights, normalise="l2")
    index = Index.of(embedded)
    background = index.background()
    embed = simsiam.embedder(asked.weights, normalise="l2")
    rows = np.random.default_rng(0).choice(len(embedded), min(asked.changed, len(embedded)), replace=False)
    originals = [embedded.source.read(int(embedded.features.indices[row])) for row in rows]
    print(
        f"{len(embedded)} photos, {embedded.facts['backbone']} at {embedded.settings.size} pixels, {asked.weights}; "
        f"random pairs: median {background.median:.3f}, 99.9 % below {background.high:.3f}"
    )
    print(f"{'change':<24} median  " + "  ".join(f">= {threshold:g}" for threshold in THRESHOLDS))
    for name, change in CHANGES.items():
        vectors = embed([change(image) for image in originals])
        _print(name, np.einsum("nc,nc->n", vectors, index.rows[rows]))
    nearest = [index.nearest(index.rows[row], 1, leave_out=row)[0].similarity for row in range(len(index))]
    _print("nearest other photo", np.array(nearest))


def _print(name: str, similarity: np.ndarray) -> None:
    shares = [f"{100 * float((similarity >= threshold).mean()):4.0f} %" for threshold in THRESHOLDS]
    print(f"{name:<24} {np.median(similarity):.3f}   " + "  ".join(shares))


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = (int(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES = {
    "JPEG, quality 40": lambda image: _jpeg(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "5 % cut off": lambda image: _cropped(image, 0.05),
    "20 % cut off": lambda image: _cropped(image, 0.2),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}

if __name__ == "__main__":
    main()
