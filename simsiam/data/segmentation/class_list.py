"""Lists of the classes of masks, as people and labelling tools write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.class_names import class_name, refuse_look_alikes
from simsiam.data.segmentation.masks import IGNORE, MOST_CLASSES, Coding, Colour
from simsiam.errors import UserError
from simsiam.wording import counted

CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "labelmap.txt", "_classes.csv", "class_dict.csv")
IGNORED_NAMES = ("ignore", "void", "unlabelled", "unlabeled", "__ignore__")
FORMS = "NAME, or ID NAME, or RED GREEN BLUE NAME, one a line"
_CVAT = re.compile(r"^([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*$")  # labelmap.txt: label:colour:parts:actions
_KAGGLE = re.compile(r"^([^,]+),\s*(\d+),\s*(\d+),\s*(\d+)$")  # class_dict.csv: name,r,g,b
_NUMBERED = re.compile(r"^(-?\d+)\s*[:=.)]\s*(.+)$")  # 0: background
_NAME_FIRST = re.compile(r"^(.*\D)[\s,;:=]+(\d+)$")  # background 0, where every line is so
_VOID = (224, 224, 192)  # the outlines of VOC masks, and of tools that follow VOC

Key = TypeVar("Key", int, Colour)


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The classes, and how masks store them."""

    names: tuple[str, ...]
    coding: Coding


def find_class_file(*folders: Path) -> Path | None:
    """The list of classes that lies in one of the folders, under any of its usual names."""
    for folder in folders:
        files = {each.name.lower(): each for each in folder.iterdir() if each.is_file()} if folder.is_dir() else {}
        if found := next((files[name] for name in CLASS_FILES if name in files), None):
            return found
    return None


def read_classes(file: Path) -> ClassList:
    """The classes that a text file lists: NAME, or ID NAME, or RED GREEN BLUE NAME, one a line.

    The number may stand behind the name, if it does so in all lines, and the first line may be a header. Lines without
    numbers count from 0. A name of `ignore`, `void` or `unlabelled` marks values that are not scored;
    255 is such a value wherever no class claims it, and labelme's `__ignore__` counts as none of the lines,
    as do lines of negative numbers. CVAT's
    labelmap.txt, Roboflow's _classes.csv and name,r,g,b tables are read too. Raises UserError that names the line.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such list of classes. Write one with {FORMS}, or name it by --classes.")
    try:
        lines = read_text(file).splitlines()
    except (UnreadableAnnotation, OSError) as error:
        raise UserError(f"{file}: no list of classes: {error}.") from error
    lines = ["" if line.startswith("#") else line.strip() for line in lines]
    filled = [line for line in lines if line]
    if len(filled) > 2 and not re.search(r"\d", filled[0]) and all(re.search(r"\d", line) for line in filled[1:]):
        lines[lines.index(filled[0])] = ""  # a header
        filled = filled[1:]
    if len(filled) > 1 and all(map(_NAME_FIRST.match, filled)):
        lines = [_NAME_FIRST.sub(r"\2 \1", line) for line in lines]
    names: list[str] = []
    ids: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        if not line or line.lower() == "__ignore__" or line.startswith("-"):
            continue
        numbers, name = _numbers_and_name(line, where)
        ignored = name.lower() in IGNORED_NAMES
        if name in names and not numbers:
            raise UserError(
                f"{where}: {name!r} is listed before, and each line is a class. (Blanks and Unicode forms make no "
                "difference.)"
            )
        if not ignored and name not in names:
            names.append(name)
        meaning = IGNORE if ignored else names.index(name)
        if len(numbers) == 3:
            _claim(colours, (numbers[0], numbers[1], numbers[2]), meaning, where)
        else:
            _claim(ids, numbers[0] if numbers else len(ids), meaning, where)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(f"{file}: {counted(len(names), 'class', 'classes')}; a segmentation needs 2 to {MOST_CLASSES}.")
    refuse_look_alikes(file, names)
    ids.setdefault(255, IGNORE)
    if colours:
        colours.setdefault(_VOID, IGNORE)
        # masks of such a set may also store the class numbers themselves
        ids = {**{n: n for n in range(len(names))}, **ids}
    return ClassList(names=tuple(names), coding=Coding(ids=ids, colours=colours))


def _numbers_and_name(line: str, where: str) -> tuple[list[int], str]:
    if table := _CVAT.match(line) or _KAGGLE.match(line):
        return _colour([int(table[place]) for place in (2, 3, 4)], line, where), class_name(table[1])
    if numbered := _NUMBERED.match(line):
        return [int(numbered[1])], class_name(numbered[2])
    words = re.sub(r"[,;]", " ", line).split()
    leading = 0
    while leading < min(len(words) - 1, 3) and words[leading].isdecimal():
        leading += 1
    numbers, name = [int(word) for word in words[:leading]], class_name(" ".join(words[leading:]))
    if leading == 2:
        raise UserError(f"{where}: found {line.strip()!r}; expected {FORMS}.")
    return _colour(numbers, line, where) if leading == 3 else numbers, name


def _colour(numbers: list[int], line: str, where: str) -> list[int]:
    if max(numbers) > 255:
        raise UserError(f"{where}: found {line.strip()!r}; expected {FORMS}.")
    return numbers


def _claim(known: dict[Key, int], key: Key, meaning: int, where: str) -> None:
    if known.get(key, meaning) != meaning or (key in known and meaning != IGNORE):
        raise UserError(f"{where}: {key} is listed before; each value or colour belongs to one class.")
    known[key] = meaning
