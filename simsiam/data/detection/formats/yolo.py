"""YOLO's text files: a line for each object, its class and a box or an outline as fractions of the image.

Ultralytics' and Roboflow's data.yaml, Label Studio's classes.txt, and CVAT's obj.names. An image without a file of
labels has no object, as these tools have it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_json, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, item_of_points, made, shown, tool_of
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import IMAGE_FOLDERS, ROLES, folders_in, images_by_stem, role_of, split_folders, visible
from simsiam.data.images import header
from simsiam.errors import UserError
from simsiam.wording import counted

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"""
_FLOW = re.compile(rf"(?:[^,'\"]|{_QUOTED})+")
_ENTRY = re.compile(rf"(?:-\s*)?(?:[\"']?(\d+)[\"']?\s*:\s*)?(?:({_QUOTED})|(.*))", re.S)
NAME_FILES = ("classes.txt", "obj.names", "names.txt", "labels.txt")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One split: its images and where their labels lie, by the same path below the two folders."""

    images: Path
    labels: Path
    only: frozenset[str] | None = None  # the images that a list names, by that path without its suffix


def find(given: Given) -> Export | None:
    """Folders labels/ with their images/, in any order of kind and split, as data.yaml names them; or all in one."""
    root = given.place.parent if given.place.suffix.lower() in (".yaml", ".yml") else given.place
    if not root.is_dir():
        return None
    text = _yaml(root if root == given.place else given.place)
    parts, notes = _named_parts(root, text), []
    parts = parts or _parts(root)
    if not parts:
        return None
    if len(parts) > 1 and len({(part.images, part.only) for part in parts.values()}) == 1:
        notes.append(f"{', '.join(parts)} are the same images: some are held out to be scored on.")
        parts = {"": next(iter(parts.values()))}
    names = _names(root, text)
    if not names:
        notes.append(f"the classes have no names (no data.yaml or {NAME_FILES[0]}): they are called by their numbers.")
    count = next((int(value) for _, value in _entries(text, "nc") if value.isdecimal()), None)
    if names and count not in (None, len(names)):
        notes.append(f"data.yaml has nc: {count} and {counted(len(names), 'name')}: the names count.")
    points = bool(_entries(text, "kpt_shape"))
    read = partial(_read, root, names=names, boxes_first=points)
    if points:
        notes.append("key points behind each box are skipped.")
    readers = {
        name: partial(read, replace(part, images=given.images) if given.images is not None else part)
        for name, part in parts.items()
    }
    return Export(words=f"{tool_of(root)}YOLO labels", parts=readers, notes=tuple(notes))


def _parts(root: Path) -> dict[str, _Part]:
    """The splits by their folders, by name."""
    parts: dict[str, _Part] = {}
    for name, folder in {"": root, **split_folders(root)}.items():
        labels = next(iter(folders_in(folder, ("labels",))), None)
        images = next(iter(folders_in(folder, IMAGE_FOLDERS)), None)
        if labels is None or images is None:
            if _beside(folder):
                parts[name] = _Part(images=folder, labels=folder)
            continue
        below = {each.lower(): found for each, found in split_folders(images).items()}
        inner = {
            each: _Part(images=below[each.lower()], labels=found)
            for each, found in split_folders(labels).items()
            if each.lower() in below
        }
        if not name and inner:
            parts |= inner
        elif any(_is_label(file) for file in labels.rglob("*.txt")):
            parts[name] = _Part(images=images, labels=labels)
    if any(parts):
        parts.pop("", None)
    for folder in visible(root.glob("obj_*_data")):  # CVAT: the labels lie beside the images
        parts[folder.name.split("_")[1]] = _Part(images=folder, labels=folder)
    if set(parts) == {"train"}:
        parts = {"": parts["train"]} if (root / "obj.names").is_file() else parts
    return parts


def _beside(folder: Path) -> bool:
    """Whether the first image with a text of its name has labels in it."""
    stems = images_by_stem(folder)
    texts = (file for file in visible(folder.glob("*.txt")) if file.stem in stems and file.stat().st_size)
    return any(_is_label(file) for file in itertools.islice(texts, 1))


def _named_parts(root: Path, text: str) -> dict[str, _Part]:
    """The splits that a data.yaml names, as folders or lists of images; empty unless each of them is found."""
    parts: dict[str, _Part] = {}
    base = next((value for _, value in _entries(text, "path")), "")
    for key in ("train", "val", "valid", "test"):
        for _, value in _entries(text, key):
            inside = re.sub(r"^(\.{0,2}/)+", "", value.replace("\\", "/"))
            places = [root / inside, root / base / value, root / base / inside, Path(value)]
            place = next((each for each in places if value and each.exists()), None)
            part = None if place is None else _listed(root, place) if place.is_file() else _folder_part(place)
            if part is None or key in parts:
                return {}
            above = (part.images, part.images.parent) if part.only is None else ()
            named = (each.name for each in above if each in split_folders(each.parent).values())
            parts[next(named, key)] = part
    return parts if any(role_of(name) == "train" for name in parts) else {}


def _folder_part(images: Path) -> _Part | None:
    """A folder of images with its labels: where the path has labels/ for images/, or beside them."""
    images = next(iter(folders_in(images)), images) if not images_by_stem(images) else images
    for above in (images, *images.parents):
        if above.name.lower() in IMAGE_FOLDERS:
            labels = next(iter(folders_in(above.parent, ("labels",))), above) / images.relative_to(above)
            return _Part(images=images, labels=labels) if labels.is_dir() else None
    return _Part(images=images, labels=images) if _beside(images) else None


def _listed(root: Path, file: Path) -> _Part | None:
    """The images of a list, all below one folder."""
    lines = [Path(line.strip().replace("\\", "/")) for line in read_text(file).splitlines() if line.strip()]
    images = next(iter(folders_in(root)), root)
    part = _folder_part(images)
    if part is None or not lines:
        return None
    stems = [[*line.with_suffix("").parts] for line in lines]
    inside = ["/".join(each[each.index(images.name) + 1 :] if images.name in each else each[-1:]) for each in stems]
    return replace(part, only=frozenset(inside))


def _read(
    root: Path, part: _Part, classes: Sequence[str] | None, *, names: dict[int, str], boxes_first: bool
) -> BoxFiles:
    pictures = images_by_stem(part.images, deep=part.images != root)
    texts = {
        file.relative_to(part.labels).with_suffix("").as_posix(): file
        for file in visible(part.labels.rglob("*.txt"))
        if file.name not in NAME_FILES and _is_label(file)
    }
    problems = [
        Problem(kind="annotation without image", where=str(file), what=f"no image {stem} in {part.images}")
        for stem, file in texts.items()
        if stem not in pictures
    ]
    if part.only is not None:
        problems = [
            Problem(kind="missing image", where=stem, what=f"listed, and not in {part.images}")
            for stem in sorted(part.only - pictures.keys())
        ]
        pictures = {stem: files for stem, files in pictures.items() if stem in part.only}
    records = []
    for stem, files in pictures.items():
        try:
            size = header(files[0]).upright
        except Exception:  # decoders raise many kinds; the checks report the file
            size = (0, 0)
        items: list[Item] = []
        lines = enumerate(_lines(texts[stem], problems), 1) if stem in texts and 0 not in size else ()
        for number, line in lines:
            where = f"{texts[stem]}, line {number}"
            try:
                items.append(_item(line, size, names, where, boxes_first=boxes_first))
            except ValueError as error:
                problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
        records.append(Record(image=shown(files[0], root, size), items=items))
    if classes is None:
        classes = [names[number] for number in sorted(names)] or None
    role = role_of(part.images.name) or role_of(part.images.parent.name)
    name = root.resolve().name + (f"-{role}" if role else "")
    return made(records, name=name, place=part.labels, classes=classes, problems=problems)


def _lines(file: Path, problems: list[Problem]) -> list[str]:
    try:
        return [line for line in read_text(file).splitlines() if line.strip()]
    except (UnreadableAnnotation, OSError) as error:
        problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
        return []


def _item(line: str, size: tuple[int, int], names: dict[int, str], where: str, *, boxes_first: bool) -> Item:
    words = _words(line)
    try:
        name = names.get(int(float(words[0])), words[0]) if _is_number(words[0]) else words[0]
        values = [float(word) for word in words[1:]][: 4 if boxes_first else None]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"found {line.strip()[:80]!r}; expected a class and numbers") from error
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise ValueError(f"found {line.strip()[:80]!r}; expected fractions of the image, 0 to 1")
    width, height = size
    if len(values) in (4, 5):  # the fifth is a detector's confidence
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return Item(name=name, box=(x - w / 2, y - h / 2, x + w / 2, y + h / 2), where=where)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"{counted(len(values), 'number')} behind the class; a box has 4, an outline x and y of each corner"
        )
    points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
    return item_of_points(name, points, where)


def _is_label(file: Path) -> bool:
    """Whether a text file begins with a class and at least four numbers, or is empty."""
    try:
        words = next((_words(line) for line in read_text(file).splitlines() if line.strip()), None)
    except (UnreadableAnnotation, OSError):
        return False
    return words is None or (len(words) >= 5 and all(map(_is_number, words[1:])))


def _words(line: str) -> list[str]:
    return line.replace(",", " ").split()


def _is_number(word: str) -> bool:
    try:
        return float(word) is not None
    except ValueError:
        return False


def _yaml(place: Path) -> str:
    """The text of a data.yaml, or of the first in a folder that names classes; "" without one."""
    files = (
        [place] if place.is_file() else [each for each in visible(place.iterdir()) if each.suffix in (".yaml", ".yml")]
    )
    for file in files:
        try:
            text = read_text(file)
        except (UnreadableAnnotation, OSError) as error:
            raise UserError(f"{file}: {error}.") from error
        if _entries(text, "names") or _entries(text, "nc"):
            return text
    return ""


def _names(root: Path, text: str) -> dict[int, str]:
    """The classes by number: of a data.yaml, a list of names, or Label Studio's notes.json; empty where none is."""
    found = {int(number or place): name for place, (number, name) in enumerate(_entries(text, "names"))}
    alone = found.get(0, "") if len(found) == 1 else ""
    if found and not alone.endswith((".names", ".txt")):
        return found
    above = [root.parent] if root.name.lower() in ROLES else []  # train/ of a set that was named alone
    for file in (root / alone, *(place / name for name in NAME_FILES for place in (root, root / "labels", *above))):
        if file.is_file():
            return dict(enumerate(line.strip() for line in read_text(file).splitlines() if line.strip()))
    if (root / "notes.json").is_file():
        notes = read_json(root / "notes.json")
        return {int(each["id"]): str(each["name"]) for each in notes.get("categories", ())}
    return _names(root, text) if above and (text := _yaml(root.parent)) else {}


def _entries(text: str, key: str) -> list[tuple[str, str]]:
    """The values of a key of a data.yaml, each with the number before it or "": a word, ["a", "b"], {0: a} or lines."""
    found = re.search(rf"^{key}[ \t]*:(.*?)(?=^[^\s\-#\]}}]|\Z)", text, re.M | re.S)
    block = re.sub(r"(?m)(?:^|\s)#[^'\"\n]*$", "", found[1]).strip() if found is not None else ""
    parts = _FLOW.findall(block[1:].rstrip("]} \n")) if block[:1] in ("[", "{") else block.splitlines()
    entries = []
    for part in parts:
        number, quoted, bare = _ENTRY.fullmatch(part.strip()).groups("")  # type: ignore[union-attr]  # fits all text
        word = quoted[1:-1].replace("''", "'").replace('\\"', '"') if quoted else bare.strip()
        if word:
            entries.append((number, word))
    return entries
