"""YOLO's text files: a line for each object, its class and a box or an outline as fractions of the image.

Ultralytics' and Roboflow's data.yaml, Label Studio's classes.txt, and CVAT's obj.names. An image without a file of
labels has no object, as these tools have it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_json, read_text
from simsiam.data.detection.files import BoxFiles, Problem
from simsiam.data.detection.formats.export import Export, Given, item_of_points, made, shown, tool_of, upright_size
from simsiam.data.detection.records import Item, Record
from simsiam.data.find_images import IMAGE_FOLDERS, folders_in, images_by_stem, role_of, split_folders, visible
from simsiam.errors import UserError
from simsiam.wording import counted

NAME_FILES = ("classes.txt", "obj.names", "names.txt", "labels.txt")


def find(given: Given) -> Export | None:
    """Folders labels/ with their images/, in any order of kind and split; CVAT's obj_train_data."""
    root = given.place.parent if given.place.suffix.lower() in (".yaml", ".yml") else given.place
    if not root.is_dir():
        return None
    pairs = _pairs(root)
    if not pairs:
        return None
    names = _names(root)
    parts = {
        name: partial(_read, root, given.images or images, labels, names) for name, (images, labels) in pairs.items()
    }
    return Export(words=f"{tool_of(root)}YOLO labels", parts=parts)


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Images and labels of each split, by its name."""
    pairs: dict[str, tuple[Path, Path]] = {}
    for name, folder in {"": root, **split_folders(root)}.items():
        labels = next(iter(folders_in(folder, ("labels",))), None)
        images = next(iter(folders_in(folder, IMAGE_FOLDERS)), None)
        if labels is None or images is None:
            continue
        below = {each.lower(): found for each, found in split_folders(images).items()}
        inner = {
            each: (below[each.lower()], found) for each, found in split_folders(labels).items() if each.lower() in below
        }
        if not name and inner:
            pairs |= inner
        elif any(_is_label(file) for file in labels.rglob("*.txt")):
            pairs[name] = (images, labels)
    if any(pairs):
        pairs.pop("", None)
    for folder in visible(root.glob("obj_*_data")):  # CVAT: the labels lie beside the images
        pairs[folder.name.split("_")[1]] = (folder, folder)
    if set(pairs) == {"train"}:
        pairs = {"": pairs["train"]} if (root / "obj.names").is_file() else pairs
    return pairs


def _read(root: Path, images: Path, labels: Path, names: dict[int, str], classes: Sequence[str] | None) -> BoxFiles:
    pictures = images_by_stem(images, deep=True)
    texts = {
        file.relative_to(labels).with_suffix("").as_posix(): file
        for file in visible(labels.rglob("*.txt"))
        if file.name not in NAME_FILES and _is_label(file)
    }
    problems = [
        Problem(kind="annotation without image", where=str(file), what=f"no image {stem} in {images}")
        for stem, file in texts.items()
        if stem not in pictures
    ]
    records = []
    for stem, files in pictures.items():
        try:
            size = upright_size(files[0])
        except Exception:  # decoders raise many kinds; the checks report the file
            size = (0, 0)
        items: list[Item] = []
        lines = enumerate(_lines(texts[stem], problems), 1) if stem in texts and 0 not in size else ()
        for number, line in lines:
            where = f"{texts[stem]}, line {number}"
            try:
                items.append(_item(line, size, names, where))
            except ValueError as error:
                problems.append(Problem(kind="unreadable annotation", where=where, what=str(error)))
        records.append(Record(image=shown(files[0], root, size), items=items))
    if classes is None:
        classes = [names[number] for number in sorted(names)] or None
    role = role_of(images.name) or role_of(images.parent.name)
    name = root.resolve().name + (f"-{role}" if role else "")
    return made(records, name=name, place=labels, classes=classes, problems=problems)


def _lines(file: Path, problems: list[Problem]) -> list[str]:
    try:
        return [line for line in read_text(file).splitlines() if line.strip()]
    except (UnreadableAnnotation, OSError) as error:
        problems.append(Problem(kind="unreadable annotation", where=str(file), what=str(error)))
        return []


def _item(line: str, size: tuple[int, int], names: dict[int, str], where: str) -> Item:
    words = line.split()
    try:
        number, values = int(float(words[0])), [float(word) for word in words[1:]]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"found {line.strip()[:80]!r}; expected a class and numbers") from error
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise ValueError(f"found {line.strip()[:80]!r}; expected fractions of the image, 0 to 1")
    name, (width, height) = names.get(number, str(number)), size
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
        words = next((line.split() for line in read_text(file).splitlines() if line.strip()), None)
        return words is None or (len(words) >= 5 and all(float(word) is not None for word in words))
    except (UnreadableAnnotation, OSError, ValueError):
        return False


def _names(root: Path) -> dict[int, str]:
    """The classes by number: of a data.yaml, a list of names, or Label Studio's notes.json; empty where none is."""
    for file in (each for each in visible(root.iterdir()) if each.suffix.lower() in (".yaml", ".yml")):
        try:
            if found := _names_of_yaml(read_text(file)):
                return found
        except (UnreadableAnnotation, OSError) as error:
            raise UserError(f"{file}: {error}.") from error
    for name in NAME_FILES:
        for place in (root, root / "labels"):
            if (place / name).is_file():
                lines = [line.strip() for line in read_text(place / name).splitlines() if line.strip()]
                return dict(enumerate(lines))
    if (root / "notes.json").is_file():
        notes = read_json(root / "notes.json")
        return {int(each["id"]): str(each["name"]) for each in notes.get("categories", ())}
    return {}


def _names_of_yaml(text: str) -> dict[int, str]:
    """The `names` of a data.yaml in any of its forms: ["a", "b"], lines of "- a", or lines of "0: a"."""
    found = re.search(
        r"^names\s*:[ \t]*(\[[^\]]*\]|\{[^}]*\})?[^\n]*\n?((?:[ \t]*(?:-|\d+\s*:)[^\n]*\n?)*)", text, re.M
    )
    if found is None:
        return {}
    inner = found[1][1:-1].split(",") if found[1] else [line.strip() for line in found[2].splitlines()]
    names: dict[int, str] = {}
    for place, entry in enumerate(each for each in inner if each.strip()):
        numbered = re.match(r"^\s*(\d+)\s*:\s*(.*)$", entry)
        number, written = (int(numbered[1]), numbered[2]) if numbered else (place, entry.strip().removeprefix("-"))
        bare = written.strip()
        quoted = re.match(r"""^(["'])(.*?)\1""", bare)
        names[number] = quoted[2] if quoted else bare.split(" #")[0].strip()
    return names
