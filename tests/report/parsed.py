"""A report page as tests ask about it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

ADDRESSES = {"src", "href", "srcset", "action", "data", "poster"}
VOID = {"meta", "link", "img", "input", "br", "line", "circle", "rect", "image", "polyline", "polygon"}


class Page(HTMLParser):
    """What the tests ask of a page: text, elements, addresses; fails where a tag is not closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.elements if "id" in attributes}

    def addresses(self) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key in ADDRESSES]


def read(path: Path) -> Page:
    return Page(path.read_text())
