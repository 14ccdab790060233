"""The page's own files, rendered once: HTML, style, script and icon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simsiam.report.html import template

if TYPE_CHECKING:
    from simsiam.browse.collection import Collection

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class File:
    """One answer that never changes."""

    content: bytes
    kind: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The files by the path that they are asked for under."""

    files: dict[str, File]

    @staticmethod
    def of(collection: Collection) -> Page:
        """The page of a collection; every value from it is escaped by the template engine."""
        embedded = collection.embedded
        html = template("page.html", TEMPLATES).render(
            name=embedded.source.name,
            images=len(collection),
            left_out=len(embedded.bad),
            weights=embedded.facts["weights"],
            backbone=embedded.facts["backbone"],
            size=embedded.settings.size,
            layer=embedded.settings.layer,
            background=collection.background,
        )
        return Page(
            files={
                "/": File(content=html.encode("utf-8", "replace"), kind="text/html; charset=utf-8"),
                "/page.css": _file("page.css", "text/css; charset=utf-8"),
                "/page.js": _file("page.js", "text/javascript; charset=utf-8"),
                "/icon.svg": _file("icon.svg", "image/svg+xml"),
            }
        )


def _file(name: str, kind: str) -> File:
    return File(content=(TEMPLATES / name).read_bytes(), kind=kind)
