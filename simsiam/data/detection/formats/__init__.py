"""The formats of annotated boxes and masks: a module each, whose `find` says what it recognises in a place.

A new format is a new module here; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simsiam.data.detection.files import BoxFiles
from simsiam.data.detection.formats.export import Export, Given
from simsiam.data.find_images import ROLES, Role, near, role_of, visible
from simsiam.errors import UserError
from simsiam.sniff import looks_like
from simsiam.wording import counted

FORMATS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "export"))
EXPECTED = (
    "COCO json (Roboflow, CVAT, Label Studio), Pascal VOC XML, YOLO (data.yaml and labels/), CVAT's images XML, "
    "LabelMe json, Label Studio json, Supervisely, VGG VIA json or CSV, OpenImages CSV"
)


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Annotations that were found in a place and read."""

    words: str  # "Roboflow COCO export"
    parts: dict[str, BoxFiles]  # by the export's own names of its splits; "": all in one
    notes: tuple[str, ...] = ()  # how it was understood, where that may surprise

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
    where = near(place, lambda each: _find(replace(given, place=each)))
    if where is None:
        raise UserError(f"{place}: no boxes recognised in it ({_lies_there(place)}). Known: {EXPECTED}.")
    found, parts = where.found, dict[str, BoxFiles]()
    split = [name for name in found.parts if where.split and name.lower() == where.split]
    for name in split or sorted(found.parts, key=_order):
        parts[name] = found.parts[name](classes)
        classes = parts[name].classes if classes is None else classes
    words = found.words + (f" in {where.below}/" if where.below else "")
    return Recognised(words=words, parts=parts, notes=found.notes)


def _find(given: Given) -> Export | None:
    for name in FORMATS:
        found: Export | None = importlib.import_module(f"{__name__}.{name}").find(given)
        if found is not None:
            return found
    return None


def _order(name: str) -> int:
    """Training first: its classes are those of the others; `train` before `trainval`."""
    role = role_of(name)
    return list(dict.fromkeys(ROLES.values())).index(role) if role is not None else -1


def _lies_there(place: Path) -> str:
    if not place.is_dir():
        return f"it is {looks_like(place)}"
    files = [file for file in visible(place.rglob("*")) if file.is_file()]
    kinds = Counter(file.suffix.lower() for file in files)
    counts = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common(5))
    first = next((file for file in files if file.suffix.lower() in (".json", ".xml", ".csv", ".txt")), None)
    said = f"; {first.relative_to(place)} is {looks_like(first)}" if first is not None else ""
    return f"files there: {counts or 'none'}{said}"
