"""What every page shares: the template engine, the style, and how values are written."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from simsiam.wording import duration

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def template(name: str, folder: Path = TEMPLATES) -> jinja2.Template:
    """A template of the folder; it escapes what it is given, and a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "duration": duration,
        "words": words,
        "sha": lambda text: text[:12],
        "code": code,
    }
    return environment.get_template(name)


def style() -> Markup:
    """The style that all pages begin with."""
    return Markup((TEMPLATES / "page.css").read_text("utf-8"))


def script() -> Markup:
    """What makes charts and maps answer to the pointer."""
    return Markup((TEMPLATES / "page.js").read_text("utf-8"))


def figure(value: Any) -> str:
    """A value as the page shows it: numbers with four significant digits or more, a true minus, grouped integers."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not finite"
        text = f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
        return text.replace("e-0", "e-").replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(figure(item) for item in value)
    return str(value)


def words(key: str) -> str:
    """A field's name as words."""
    return key.replace("_", " ")


def code(text: str) -> Markup:
    """Text whose parts between backticks are set as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner stays a backtick
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def flat(mapping: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names."""
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
