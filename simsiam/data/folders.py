"""Images in folders and in text lists, ImageNet among them."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.class_names import numbered, numbered_ids
from simsiam.data.classification import csv_table
from simsiam.data.find_images import ROLES
from simsiam.data.images import IMAGE_SUFFIXES, is_image, is_image_name
from simsiam.data.inventory import Inventory, LeftOut, other_files
from simsiam.data.source import UNKNOWN, FileSource
from simsiam.errors import UserError
from simsiam.sniff import looks_like
from simsiam.wording import counted, plural

_OF_SYSTEMS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")  # thumbnails and bins, hidden where they are made
_DIGITS = 19  # fewer fit into 64 bits; longer numbers are names
_WORDNET = re.compile(r"n\d{8}")  # a class folder of ImageNet; a person's own train/ and val/ have others


class FolderSource(FileSource):
    """Every image below a folder, sorted by path; labelled where each lies in one of two or more sub-folders.

    Folders named train, val and test are splits, not classes: `split` picks one ("test": test, else val), and the
    classes are the folders in them.
    """

    def __init__(self, root: Path | str, *, split: Literal["train", "test", "all"] = "all") -> None:
        root = Path(root)
        if not root.exists():
            raise UserError(f"{root}: no such folder. Check the path.")
        if not root.is_dir():
            raise UserError(
                f"{root}: {looks_like(root)}, not a folder of images. Name the folder, or use the data kind 'list'."
            )
        found = _walk(root)
        if not found.names:
            reasons = [each.reason for each in other_files(found.others)]
            only = f"only {reasons[0]}" if reasons else "the folder is empty"
            if {".zip", ".tgz", ".gz", ".parquet"} & found.others.keys():
                only += "; to read an archive or a Parquet file, name the file itself"
            raise UserError(f"{root}: no image found ({only}). Known kinds: {' '.join(sorted(IMAGE_SUFFIXES))}.")
        part = _part_of(found.names, split)
        self.splits = part.splits  # the folders at the top, where they are splits
        folders = [name.split("/")[part.depth : -1] for name in part.names]
        tops = [below[0] if below else None for below in folders]
        classes, numbers = numbered(tops)
        labels = numbers if None not in tops and len(classes) >= 2 else None
        inventory = Inventory(
            found=len(found.names),
            used=len(part.names),
            left_out=(*part.left_out, *other_files(found.others), *found.unreadable),
            notes=part.notes,
        )
        named = root.resolve().name
        known = classes if labels is not None else None
        super().__init__(root, part.names, labels, name=named, classes=known, inventory=inventory)


class ListSource(FileSource):
    """The images that a text file lists, a line each: "path", "path label" or "label path" (a path may hold spaces).

    Paths are relative to `root`, by default the folder that the list lies in. Labels are whole numbers or words.
    """

    def __init__(self, file: Path | str, *, root: Path | None = None) -> None:
        file = Path(file)
        if not file.exists():
            raise UserError(f"{file}: no such list. Check the path.")
        if not file.is_file():
            raise UserError(f"{file}: a folder, not a list of images. Name the list, or use the data kind 'folder'.")
        base = file.parent if root is None else root
        entries = _entries(file, base)
        if not entries:
            raise UserError(f'{file}: an empty list. Write one image a line, as "path" or "path label".')
        names = [entry.path for entry in entries]
        check_files(file, base, names)
        words = [entry.label for entry in entries]
        classes, labels = _labels(words)
        notes = []
        if labels is not None and (bare := words.count(None)):
            notes.append(f"{bare:,} of {counted(len(words), 'line')} {plural(bare, 'has', 'have')} no label")
        if twice := len(names) - len(set(names)):
            notes.append(f"{twice:,} of {counted(len(words), 'line')} {plural(twice, 'names', 'name')} an image again")
        inventory = Inventory(found=len(names), used=len(names), notes=tuple(notes))
        super().__init__(base, names, labels, name=file.stem, classes=classes, inventory=inventory)


def imagenet_source(root: Path | str, split: str = "train") -> FileSource:
    """ImageNet as published: `root/meta/SPLIT.txt` lists over `root/SPLIT`, else class folders `root/SPLIT/WNID`."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the ImageNet folder that holds train/ and val/.")
    folder, listed = root / split, root / "meta" / f"{split}.txt"
    source: FileSource
    if listed.is_file():
        source = ListSource(listed, root=folder if folder.is_dir() else root)
    elif folder.is_dir():
        source = FolderSource(folder)
        if source.labels is None:
            raise UserError(
                f"{folder}: images, but no class folders and no list {listed}. "
                f"Sort them into class folders, or add the list with one 'path label' a line."
            )
    else:
        raise UserError(f"{root}: neither {split}/ nor meta/{split}.txt is in it. Expected train/WNID/*.JPEG.")
    source.name = f"imagenet-{split}"
    source.published = source.classes is None or all(map(_WORDNET.fullmatch, source.classes))
    return source


@dataclass(frozen=True, kw_only=True)
class _Found:
    names: list[str]  # relative to the root, with "/"
    others: Counter[str]  # what else lay there, by suffix
    unreadable: tuple[LeftOut, ...]  # folders that could not be listed


@dataclass(frozen=True, kw_only=True)
class _Part:
    names: list[str]
    depth: int  # of the folders that name classes
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


class _Entry(NamedTuple):
    path: str
    label: str | None


def _walk(root: Path) -> _Found:
    names: list[str] = []
    others: Counter[str] = Counter()
    unreadable = 0
    seen: set[tuple[int, int]] = set()  # folders by device and inode: none is entered twice, so loops end
    waiting = deque([("", root)])
    while waiting:
        prefix, folder = waiting.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise UserError(f"{root}: cannot be listed ({error.strerror}).") from error
            unreadable += 1
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _OF_SYSTEMS:
                continue
            if entry.is_dir():
                found = (f"{prefix}{entry.name}/", folder / entry.name)
                if entry.is_symlink():  # waits until every real folder has been entered: images go by their own place
                    waiting.appendleft(found)
                else:
                    waiting.append(found)
            elif is_image(entry.name):
                names.append(prefix + entry.name)
            else:
                others[os.path.splitext(entry.name)[1].lower()] += 1
    lost = (LeftOut(what="folder", count=unreadable, reason="they cannot be listed"),) if unreadable else ()
    return _Found(names=sorted(names), others=others, unreadable=lost)


def _part_of(names: list[str], split: Literal["train", "test", "all"]) -> _Part:
    """The images of one split, where the folders at the top are splits."""
    tops = Counter(name.split("/", 1)[0] if "/" in name else "" for name in names)
    kinds = {top: ROLES.get(top.lower()) for top in tops}
    if len(tops) < 2 or None in kinds.values() or "train" not in kinds.values():
        return _Part(names=names, depth=0)
    splits = tuple(sorted(tops))
    if split == "all":
        shown = ", ".join(f"{top}/" for top in splits)
        notes = (f"{shown} are splits of the set, not classes; all are used",)
        return _Part(names=names, depth=1, notes=notes, splits=splits)
    wanted = "train" if split == "train" else "test" if "test" in kinds.values() else "val"
    used = [name for name in names if kinds[name.split("/", 1)[0]] == wanted]
    rest = ", ".join(f"{count:,} in {top}/" for top, count in sorted(tops.items()) if kinds[top] != wanted)
    other = LeftOut(what="image", count=len(names) - len(used), reason=f"of other splits: {rest}")
    return _Part(names=used, depth=1, left_out=(other,), splits=splits)


def _entries(file: Path, base: Path) -> list[_Entry]:
    """The lines of a list, without comments and a first line of headings."""
    try:
        text = read_text(file)
    except UnreadableAnnotation as error:
        raise UserError(f"{file}: {looks_like(file)}, not a text list.") from error
    lines = re.split(r"\r\n|\r|\n", text)
    found = [_entry(line.strip(), base) for line in lines if line.strip()]
    found = [each for each in found if not each.path.startswith("#") or is_image_name(each.path)]  # else a comment
    if found and found[0].path.lower() in csv_table.PATH_HEADINGS and not os.path.lexists(base / found[0].path):
        del found[0]
    return found


def _entry(line: str, base: Path) -> _Entry:
    path, label = _parts(line)
    if label is None and (found := _label_first(line, base)) is not None:
        label, path = found
    path = path.strip().strip('"')
    if "\\" in path and not os.path.lexists(base / path):  # a path of Windows
        path = path.replace("\\", "/")
    return _Entry(path=path, label=label)


def _parts(line: str) -> tuple[str, str | None]:
    """Path and label of a line: with a tab, comma, semicolon, bar or colon between, else with the last blank."""
    if is_image_name(line.strip('"')):  # the whole line is a path, whatever spaces it holds
        return line, None
    for separator in "\t,;|:":
        if separator not in line:
            continue
        path, _, label = line.rpartition(separator) if separator == ":" else line.partition(separator)
        if label.strip() and is_image_name(path.strip().strip('"')):
            return path, label.strip()
    path, _, label = line.replace("\t", " ").rpartition(" ")
    return (path, label) if path else (line, None)


def _label_first(line: str, base: Path) -> tuple[str, str] | None:
    """Label and path of a line that begins with its label, where the rest alone is a file."""
    known = [separator for separator in "\t,;|: " if separator in line]
    if not known or os.path.lexists(base / line.strip('"')):
        return None
    for separator in known:
        label, _, path = line.partition(separator)
        if label.strip() and path.strip() and os.path.lexists(base / path.strip().strip('"')):
            return label.strip(), path.strip()
    return None


def check_files(file: Path, base: Path, names: list[str]) -> None:
    """Raise UserError if a listed file is missing; folders are listed once each, which is far cheaper."""
    present: dict[str, set[str]] = {}
    missing: list[str] = []
    for name in names:
        folder, slash, leaf = name.rpartition("/")
        if folder not in present:
            try:
                present[folder] = set(os.listdir(os.path.join(base, folder + slash)))
            except OSError:
                present[folder] = set()
        if leaf not in present[folder]:
            missing.append(name)
    if missing:
        raise UserError(
            f"{file}: {len(missing):,} of {counted(len(names), 'line')} "
            f"{plural(len(missing), 'points', 'point')} to no file, the first {missing[0]!r} "
            f"(looked for below {base}). Correct the list, or name the folder that the paths are relative to."
        )


def _labels(words: list[str | None]) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Classes and labels of a list: ids where all words are whole numbers (-1: unknown), else names."""
    known = {word for word in words if word is not None}
    if not known:
        return None, None
    if all(word.removeprefix("-").isdecimal() and len(word) < _DIGITS for word in known):
        return numbered_ids(np.array([UNKNOWN if word is None else int(word) for word in words], np.int64))
    return numbered(words)
