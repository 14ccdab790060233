"""Small images of the page as data URIs within a budget: neighbours and augmented views."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
