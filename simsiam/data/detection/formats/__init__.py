"""The formats of annotated boxes and masks: a module each, whose `find` says what it recognises in a place.

A new format is a new module here; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simsiam.data.detection.files import BoxFiles
from simsiam.data.detection.formats.export import Export, Given
from simsiam.data.find_images import ROLES, Role, role_of
from simsiam.errors import UserError
from simsiam.wording import counted

FORMATS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "export"))
EXPECTED = (
    "COCO json (Roboflow, CVAT, Label Studio), Pascal VOC XML, YOLO (data.yaml and labels/), CVAT's images XML, "
    "LabelMe json, VGG VIA json or CSV, OpenImages CSV"
)


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Annotations that were found in a place and read."""

    words: str  # "Roboflow COCO export"
    parts: dict[str, BoxFiles]  # by the export's own names of its splits; "": all in one

    @property
    def sentence(self) -> str:
        """What it is and what is in it, for a person."""
        counts = [f"{name} {len(part):,}".strip() for name, part in self.parts.items()]
        classes = next(iter(self.parts.values())).classes
        objects = sum(len(part.objects.labels) for part in self.parts.values())
        return (
            f"{self.words}: {', '.join(counts)} images, {counted(objects, 'object')}, "
            f"{counted(len(classes), 'class', 'classes')}"
        )

    def part(self, role: Role) -> str | None:
        """The export's name of the split that is for something; None where it has none."""
        named = {name: role_of(name) for name in self.parts if name}
        return next((name for name in sorted(named, key=_order) if named[name] == role), None)


def recognise(
    place: Path, *, images: Path | None = None, first_pixel: int = 0, classes: Sequence[str] | None = None
) -> Recognised:
    """Read the annotated images of a place, whatever format they are in.

    Args:
        place: a folder, or a file of annotations.
        images: the folder of the images, where they lie elsewhere.
        first_pixel: how VOC-XML counts pixels, from 0 or from 1.
        classes: the names that count; None: those of the training split, or of all.

    Raises UserError where no format is recognised, with what was looked for and what lies there.
    """
    if not place.exists():
        raise UserError(f"{place}: no such file or folder.")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images.")
    given = Given(place=place, images=images, first_pixel=1 if first_pixel else 0)
    found = next((export for name in FORMATS if (export := _find(name, given)) is not None), None)
    if found is None:
        raise UserError(f"{place}: no boxes recognised in it ({_lies_there(place)}). Known: {EXPECTED}.")
    parts: dict[str, BoxFiles] = {}
    for name in sorted(found.parts, key=_order):
        parts[name] = found.parts[name](classes)
        classes = parts[name].classes if classes is None else classes
    return Recognised(words=found.words, parts=parts)


def _find(name: str, given: Given) -> Export | None:
    module = importlib.import_module(f"{__name__}.{name}")
    found: Export | None = module.find(given)
    return found


def _order(name: str) -> int:
    """Training first: its classes are those of the others; `train` before `trainval`."""
    role = role_of(name)
    return list(dict.fromkeys(ROLES.values())).index(role) if role is not None else -1


def _lies_there(place: Path) -> str:
    if not place.is_dir():
        from simsiam.sniff import looks_like

        return f"it is {looks_like(place)}"
    kinds = Counter(file.suffix.lower() for file in place.rglob("*") if file.is_file() and file.name[0] != ".")
    counts = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common(5))
    return f"files there: {counts or 'none'}"
