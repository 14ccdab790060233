"""What a person looks at: augmented views, neighbours before and after, a map. Writes figures/ and figures.json."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from simsiam.config import Views
from simsiam.data.images import UnreadableImage
from simsiam.data.sources import Source
from simsiam.data.two_views.loader import pair_batches
from simsiam.embedding.similarity import Method, perplexity, plane
from simsiam.features.extraction import Features
from simsiam.features.neighbours import nearest
from simsiam.pretraining.monitor import Monitor, evaluating
from simsiam.results import write_atomic, write_json

THUMB = 96  # pixels, the longer side
MAP_THUMB = 48
QUERIES = 10
NEIGHBOURS = 6
GALLERY = 4000
MAP_POINTS = 1000
CLUSTERS = 10
VIEW_IMAGES, VIEW_PAIRS = 8, 3


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The images among which neighbours are shown."""

    source: Source
    before: Features
    after: Features


def draw(run: Path, monitor: Monitor, *, before: nn.Module, after: nn.Module, gallery: Source) -> None:
    """Write all figures of a run.

    Args:
        run: the run folder.
        monitor: its held-out images are the queries and the points of the map.
        before: the backbone at its random start.
        after: the trained backbone.
        gallery: images to find neighbours among.
    """
    with evaluating(before), evaluating(after):
        shown = Gallery(
            source=gallery,
            before=monitor.features(before, gallery),
            after=monitor.features(after, gallery),
        )
        held_before = monitor.features(before, monitor.held_out)
        held_after = monitor.features(after, monitor.held_out)
    thumbs = Thumbnails(run)
    write_json(
        run / "figures.json",
        {
            "views": _views(thumbs, monitor),
            "neighbours": _neighbours(thumbs, monitor.held_out, held_before, held_after, shown),
            "map": _map(thumbs, monitor.held_out, held_after, seed=monitor.seed),
        },
    )


class Thumbnails:
    """Small JPEG files under figures/, each written once."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._written: set[str] = set()

    def of(self, source: Source, index: int, *, side: int, group: str) -> str | None:
        """The thumbnail of an image, relative to the run folder; None where it cannot be read."""
        name = f"figures/{group}-{index:07d}-{side}.jpg"
        if name not in self._written:
            try:
                image = source.read(index)
            except UnreadableImage:
                return None
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            self.write(name, image)
        return name

    def write(self, name: str, image: Image.Image) -> str:
        """Write a picture under a name relative to the run folder."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        write_atomic(self._run / name, buffer.getvalue())
        self._written.add(name)
        return name


def _views(thumbs: Thumbnails, monitor: Monitor) -> list[dict[str, Any]]:
    """A few held-out images with several random views of each."""
    picked = monitor.held_out.subset(np.arange(min(VIEW_IMAGES, len(monitor.held_out))))
    rows: list[dict[str, Any]] = [
        {"original": thumbs.of(picked, n, side=THUMB, group="original"), "views": []} for n in range(len(picked))
    ]
    for repeat in range(VIEW_PAIRS):
        batches = pair_batches(
            picked, monitor.views, seed=monitor.seed + repeat, batch_size=VIEW_IMAGES, device=torch.device("cpu")
        )
        row = 0
        for batch in batches:
            for pair in zip(batch.x1, batch.x2, strict=True):
                for side, view in enumerate(pair):
                    name = f"figures/view-{row}-{repeat}-{side}.jpg"
                    rows[row]["views"].append(thumbs.write(name, as_image(view, monitor.views)))
                row += 1
    return [row for row in rows if row["original"]]


def as_image(view: Tensor, views: Views) -> Image.Image:
    """A normalised view (3 x S x S) as a picture again."""
    mean, std = torch.tensor(views.mean).view(3, 1, 1), torch.tensor(views.std).view(3, 1, 1)
    pixels = ((view.float().cpu() * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    if max(image.size) > THUMB:
        image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return image


def _neighbours(
    thumbs: Thumbnails, held_out: Source, before: Features, after: Features, gallery: Gallery
) -> list[dict[str, Any]]:
    """For a few held-out images, their nearest gallery images in the untrained and in the trained network."""
    count = min(QUERIES, len(after.indices))
    chosen = np.linspace(0, len(after.indices) - 1, count).round().astype(int)
    k = min(NEIGHBOURS, len(gallery.after.indices))
    found = {
        "before": nearest(before.pooled[chosen], gallery.before.pooled, k=k, device="cpu"),
        "after": nearest(after.pooled[chosen], gallery.after.pooled, k=k, device="cpu"),
    }
    rows = []
    for row, position in enumerate(chosen):
        index = int(after.indices[position])
        entry: dict[str, Any] = {
            "query": {
                "image": thumbs.of(held_out, index, side=THUMB, group="query"),
                "label": label_of(held_out, index),
            }
        }
        for when, embedded in (("before", gallery.before), ("after", gallery.after)):
            entry[when] = [
                {
                    "image": thumbs.of(gallery.source, int(embedded.indices[hit]), side=THUMB, group="gallery"),
                    "similarity": round(float(similarity), 4),
                    "label": label_of(gallery.source, int(embedded.indices[hit])),
                }
                for similarity, hit in zip(found[when].similarity[row], found[when].index[row], strict=True)
            ]
        rows.append(entry)
    return rows


def label_of(source: Source, index: int) -> str | None:
    """The class name of an image, or None."""
    if source.labels is None or source.classes is None or source.labels[index] < 0:
        return None
    return source.classes[int(source.labels[index])]


def _map(thumbs: Thumbnails, held_out: Source, features: Features, *, seed: int) -> dict[str, Any]:
    """The held-out images in two dimensions, with a cluster number each."""
    rows = functional.normalize(torch.from_numpy(features.pooled[:MAP_POINTS]), dim=1).double().numpy()
    method: Method = "tsne" if len(rows) >= 20 else "pca"
    place = plane(rows, method, seed=seed)
    said = f"t-SNE, perplexity {perplexity(len(rows)):.0f}" if method == "tsne" else "principal components"
    clusters = cluster(rows, seed=seed)
    points = []
    for position in range(len(rows)):
        index = int(features.indices[position])
        points.append(
            {
                "x": round(float(place[position, 0]), 4),
                "y": round(float(place[position, 1]), 4),
                "image": thumbs.of(held_out, index, side=MAP_THUMB, group="map"),
                "label": label_of(held_out, index),
                "cluster": int(clusters[position]),
            }
        )
    return {"method": said, "points": points}


def cluster(rows: np.ndarray, *, seed: int) -> np.ndarray:
    """Cluster numbers by k-means, ten clusters or one for every ten images."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(rows.round(9), axis=0))
    count = max(1, min(CLUSTERS, len(rows) // 10, distinct))
    labels: np.ndarray = KMeans(count, n_init=4, random_state=seed).fit_predict(rows)
    return labels


def gallery_of(train: Source, held_out: Source, *, seed: int) -> Source:
    """A sample of the training images (of the held-out ones where there are no others) to show neighbours from."""
    source = train if len(train) else held_out
    rng = np.random.default_rng(seed)
    size = min(GALLERY, len(source))
    return source.subset(np.sort(rng.choice(len(source), size, replace=False)))
