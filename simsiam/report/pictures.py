"""Images on the page as data URIs within a budget: neighbours, augmented views, the map of the embedding."""

from __future__ import annotations

import base64
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simsiam.wording import counted

BUDGET = 6_500_000  # characters of all pictures on one page, so that it opens on a phone and fits a mail
KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png", b"RIF": "webp", b"GIF": "gif"}


@dataclass(kw_only=True)
class Album:
    """Embeds images of one run folder until the budget is spent."""

    folder: Path
    left: int = BUDGET
    left_out: int = 0  # images without a picture: missing, outside the folder, no image, or over the budget
    seen: dict[str, str | None] = field(default_factory=dict)

    def embed(self, name: str | None) -> str | None:
        """The data URI of an image named relative to the run folder, None if it cannot be shown."""
        if name is None:  # the run could not read the image
            self.left_out += 1
            return None
        uri = self.seen[name] if name in self.seen else self._read(name)
        self.seen[name] = uri
        if uri is None or len(uri) > self.left:
            self.left_out += 1
            return None
        self.left -= len(uri)
        return uri

    def _read(self, name: str) -> str | None:
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder.resolve()):
                return None
            content = path.read_bytes()
        except (OSError, ValueError):
            return None
        kind = KINDS.get(content[:3])
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if kind else None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One shown image."""

    uri: str | None
    alt: str
    caption: str = ""
    same_label: bool | None = None  # as the query's; None where there are no labels


@dataclass(frozen=True, kw_only=True)
class NeighbourCard:
    """A query image and its nearest neighbours before and after training."""

    query: Picture
    before: list[Picture]
    after: list[Picture]


@dataclass(frozen=True, kw_only=True)
class ViewCard:
    """An image and augmented views of it."""

    original: Picture
    views: list[Picture]


def views(raw: list[dict[str, Any]], album: Album) -> list[ViewCard]:
    """The section of augmented views."""
    return [
        ViewCard(
            original=Picture(uri=album.embed(entry["original"]), alt=f"image {number}"),
            views=[
                Picture(uri=album.embed(view), alt=f"augmented view {index} of image {number}")
                for index, view in enumerate(entry.get("views", []), 1)
            ],
        )
        for number, entry in enumerate(raw, 1)
    ]


def neighbours(raw: list[dict[str, Any]], album: Album) -> list[NeighbourCard]:
    """The section of neighbours before and after training."""
    cards = []
    for number, entry in enumerate(raw, 1):
        label = entry["query"].get("label")
        said = f"query image {number}" + (f", {label}" if label is not None else "")
        query = Picture(uri=album.embed(entry["query"]["image"]), alt=said, caption=str(label or "query"))
        found = {
            when: [_neighbour(one, label, index, album) for index, one in enumerate(entry.get(when, []), 1)]
            for when in ("before", "after")
        }
        cards.append(NeighbourCard(query=query, before=found["before"], after=found["after"]))
    return cards


def _neighbour(raw: dict[str, Any], query_label: str | None, rank: int, album: Album) -> Picture:
    label, similarity = raw.get("label"), raw.get("similarity")
    known = label is not None and query_label is not None
    said = f"neighbour {rank}" + (f", {label}" if label is not None else "")
    if similarity is not None:
        said += f", similarity {similarity:.2f}"
    return Picture(
        uri=album.embed(raw["image"]),
        alt=said,
        caption=f"{similarity:.2f}" if similarity is not None else "",
        same_label=label == query_label if known else None,
    )


COLOURS = 10  # categories with a colour of their own; the rest share grey
MAP_SIDE = 720  # user units of the drawing


@dataclass(frozen=True, kw_only=True)
class Category:
    """One entry of the map's legend."""

    name: str
    count: int
    colour: int  # index into the page's palette


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One image on the map."""

    x: float
    y: float
    uri: str | None
    title: str
    label_colour: int | None
    cluster_colour: int
    crowded: bool  # its thumbnail would cover another one


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """The 2-D map."""

    method: str
    dots: list[Dot]
    labels: list[Category]
    clusters: list[Category]
    thumb: float  # side of a thumbnail, in user units


def embedding_map(raw: dict[str, Any], album: Album) -> EmbeddingMap | None:
    """The map; None where the run drew none."""
    points = [
        point
        for point in raw.get("points", [])
        if all(isinstance(point.get(key), int | float) and math.isfinite(point[key]) for key in ("x", "y"))
    ]
    if not points:
        return None
    has_labels = any(point.get("label") is not None for point in points)
    labels = _categories([str(point.get("label")) for point in points]) if has_labels else []
    clusters = _categories([f"cluster {point.get('cluster', 0)}" for point in points])
    label_colours = {one.name: one.colour for one in labels}
    cluster_colours = {one.name: one.colour for one in clusters}
    thumb = max(30.0, min(52.0, MAP_SIDE / math.sqrt(len(points)) * 1.15))
    crowded = _crowded(points, thumb / MAP_SIDE)
    dots = []
    for point, covered in zip(points, crowded, strict=True):
        label, cluster = point.get("label"), f"cluster {point.get('cluster', 0)}"
        dots.append(
            Dot(
                x=_place(point["x"], thumb),
                y=_place(1 - point["y"], thumb),
                uri=album.embed(point.get("image")),
                title=f"{label}, {cluster}" if label is not None else cluster,
                label_colour=label_colours.get(str(label), COLOURS) if has_labels else None,
                cluster_colour=cluster_colours.get(cluster, COLOURS),
                crowded=covered,
            )
        )
    return EmbeddingMap(
        method=str(raw.get("method", "")), dots=dots, labels=_legend(labels), clusters=_legend(clusters), thumb=thumb
    )


def _place(fraction: float, thumb: float) -> float:
    """From 0..1 to user units, with room for half a thumbnail and a margin at the edge."""
    edge = thumb / 2 + 8
    return round(edge + min(1.0, max(0.0, fraction)) * (MAP_SIDE - 2 * edge), 1)


def _categories(names: list[str]) -> list[Category]:
    """Every category, by size where there are more of them than colours, else by name."""
    counted = Counter(names)
    order = sorted(counted, key=_natural) if len(counted) <= COLOURS else [name for name, _ in counted.most_common()]
    return [Category(name=name, count=counted[name], colour=min(index, COLOURS)) for index, name in enumerate(order)]


def _natural(name: str) -> tuple[str, int]:
    """Sorts "cluster 10" after "cluster 9"."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits) if digits else -1


def _legend(categories: list[Category]) -> list[Category]:
    """At most one entry a colour: those that share grey are summed."""
    shown, rest = categories[:COLOURS], categories[COLOURS:]
    if not rest:
        return shown
    return [*shown, Category(name=counted(len(rest), "other"), count=sum(one.count for one in rest), colour=COLOURS)]


def _crowded(points: list[dict[str, Any]], side: float) -> list[bool]:
    """Which thumbnails would cover one that stands already, found on a grid of thumbnail-sized cells."""
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    covered = []
    for point in points:
        x, y = float(point["x"]), float(point["y"])
        column, row = int(x / side), int(y / side)
        around = [cells.get((column + i, row + j), []) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        near = any(abs(x - a) < side * 0.8 and abs(y - b) < side * 0.8 for cell in around for a, b in cell)
        covered.append(near)
        if not near:
            cells.setdefault((column, row), []).append((x, y))
    return covered
