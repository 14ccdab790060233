"""Published labelled sets as their archives unpack: recognised by the files that lie there, named and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.class_names import numbered
from simsiam.data.find_images import role_of
from simsiam.data.folders import FolderSource, check_files
from simsiam.data.inventory import Inventory, LeftOut
from simsiam.data.source import UNKNOWN, ArraySource, FileSource, Source
from simsiam.data.unpack import opened
from simsiam.errors import UserError
from simsiam.wording import counted

Rows = list[tuple[str, str | None]]  # image and class
STL10_SIDE = 96
CALTECH_TRAIN = 30  # images of a class, as most papers have it


@dataclass(frozen=True, kw_only=True)
class Found:
    """A set that was recognised in a place, not read yet."""

    name: str
    words: str  # "Food-101 as its archive unpacks"; "" where a folder of images says it all
    parts: dict[str, int]  # images of each part, by the set's own names; "" for a set without parts
    open: Callable[[Sequence[str]], Source]  # one part or several in one
    classes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What it is and what is in it, for a person."""
        counts = ", ".join(f"{part} {count:,}".strip() for part, count in self.parts.items())
        of = f", {counted(self.classes, 'class', 'classes')}" if self.classes else ""
        return f"{self.words}: {counts} images{of}"

    def part(self, role: Literal["train", "test"]) -> Source:
        """The part to learn from or to score (test, else val); raises UserError where there is none."""
        if (name := self._name(role)) is None:
            there = ", ".join(self.parts) or "none"
            raise UserError(
                f"{self.sentence or self.name}; no part to {'learn from' if role == 'train' else 'score'} "
                f"(parts: {there}). {' '.join(self.notes)} Name both sets: --train and --test."
            )
        source = self.open([name])
        if role == "train" or self._name("train") is None:
            self._say(source)
        return source

    def images(self, *, every: bool) -> Source:
        """All images, or all but the part that is scored."""
        scored = None if every else self._name("test")
        names = [name for name in self.parts if name != scored or len(self.parts) == 1]
        source = self.open(names)
        used = f"; read here: {' and '.join(names)}" if len(names) < len(self.parts) else ""
        self._say(source, used)
        return source

    def _name(self, role: Literal["train", "test"]) -> str | None:
        wanted = ("train",) if role == "train" else ("test", "val")
        named = {role_of(name): name for name in reversed(self.parts)}
        return next((named[each] for each in wanted if each in named), "" if "" in self.parts else None)

    def _say(self, source: Source, more: str = "") -> None:
        if self.words:
            source.note(self.sentence + more, *self.notes)


def listed(
    name: str,
    words: str,
    root: Path,
    rows: Mapping[str, Rows],
    *,
    notes: Sequence[str] = (),
    left_out: tuple[LeftOut, ...] = (),
    published: bool = True,
) -> Found:
    """A set of image files, of which the rows of each part say name below `root` and class."""

    def read(parts: Sequence[str]) -> FileSource:
        chosen = [row for part in parts for row in rows[part]]
        classes, labels = numbered([word for _, word in chosen])
        known = "-".join(filter(None, [name, *parts])) if len(parts) == 1 else name
        account = Inventory(found=len(chosen), used=len(chosen), left_out=left_out)
        source = FileSource(
            root,
            [path for path, _ in chosen],
            labels if classes else None,
            name=known,
            classes=classes or None,
            inventory=account,
        )
        source.published = published
        return source

    classes = {word for part in rows.values() for _, word in part if word is not None}
    counts = {part: len(found) for part, found in rows.items()}
    return Found(name=name, words=words, parts=counts, open=read, classes=len(classes), notes=tuple(notes))


def tiny_imagenet(place: Path, cache: Path) -> Found | None:
    """train/WNID/images/*.JPEG, and val/images with val_annotations.txt."""
    file = place / "val" / "val_annotations.txt"
    if not (file.is_file() and (place / "val" / "images").is_dir() and (place / "train").is_dir()):
        return None
    val: Rows = [(f"val/images/{words[0]}", words[1]) for words in _lines(file, at_least=2)]
    check_files(file, place, [name for name, _ in val])
    rows = {"train": _class_folders(place / "train"), "val": val}
    return listed("tiny-imagenet", "Tiny-ImageNet as its archive unpacks", place, rows)


def kaggle_imagenet(place: Path, cache: Path) -> Found | None:
    """ILSVRC/Data/CLS-LOC with train/WNID and a val/ without folders, whose classes LOC_val_solution.csv gives."""
    inside = (place, place / "CLS-LOC", place / "Data" / "CLS-LOC", place / "ILSVRC" / "Data" / "CLS-LOC")
    data = next((each for each in inside if (each / "train").is_dir() and (each / "val").is_dir()), None)
    if data is None:
        return None
    with os.scandir(data / "val") as entries:
        folders = any(each.is_dir() for each in entries)
    whole = data.absolute()
    beside = [each / "LOC_val_solution.csv" for each in (whole, *whole.parents[:3])]
    solution = next((each for each in beside if each.is_file()), None)
    if data == place and (folders or solution is None):
        return None  # a folder as the others
    words, notes = "ImageNet as Kaggle has it", []
    rows = {"train": _class_folders(data / "train")}
    if folders:
        rows["val"] = _class_folders(data / "val")
    elif solution is not None:
        lines = _lines(solution, at_least=2)[1:]  # behind the headings
        rows["val"] = [(f"val/{line[0]}.JPEG", line[1]) for line in lines]
        check_files(solution, data, [name for name, _ in rows["val"]])
    else:
        notes.append("The images of val/ lie in no class folders: put LOC_val_solution.csv beside ILSVRC/.")
    return listed("imagenet", words, data, rows, notes=notes)


def food101(place: Path, cache: Path) -> Found | None:
    """images/CLASS/ID.jpg, and meta/train.txt and test.txt of CLASS/ID lines."""
    meta = place / "meta"
    if not ((place / "images").is_dir() and (meta / "train.txt").is_file() and (meta / "classes.txt").is_file()):
        return None
    rows: dict[str, Rows] = {}
    for part in ("train", "test"):
        lines = [line[0] for line in _lines(meta / f"{part}.txt", at_least=1)]
        rows[part] = [(f"images/{line}.jpg", line.split("/")[0]) for line in lines]
        check_files(meta / f"{part}.txt", place, [name for name, _ in rows[part]])
    return listed("food-101", "Food-101 as its archive unpacks", place, rows)


def flowers102(place: Path, cache: Path) -> Found | None:
    """jpg/image_00001.jpg (or 102flowers.tgz), imagelabels.mat and setid.mat; classes are numbers from 1."""
    files = (place / "imagelabels.mat", place / "setid.mat")
    if not all(file.is_file() for file in files):
        return None
    root = _folder_or_archive(place, "jpg", "102flowers.tgz", cache)
    import scipy.io

    matlab: Any = scipy.io  # its stubs leave loadmat untyped
    try:
        labels, ids = (matlab.loadmat(file) for file in files)
        classes = labels["labels"].ravel().tolist()
        rows: dict[str, Rows] = {
            part: [(f"image_{number:05d}.jpg", str(classes[number - 1])) for number in ids[key].ravel().tolist()]
            for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
        }
    except Exception as error:  # scipy raises many kinds on damaged files
        raise UserError(f"{place}: imagelabels.mat or setid.mat cannot be read ({error}). Fetch both again.") from error
    check_files(files[1], root, [name for part in rows.values() for name, _ in part])
    return listed("flowers-102", "Flowers-102 as its archives unpack", root, rows)


def caltech101(place: Path, cache: Path) -> Found | None:
    """101_ObjectCategories/CLASS (or its archive), without the class of other things; the split is drawn here."""
    folder, archive = "101_ObjectCategories", "101_ObjectCategories.tar.gz"
    if place.resolve().name != folder and not ((place / folder).is_dir() or (place / archive).is_file()):
        return None
    root = place if place.resolve().name == folder else _folder_or_archive(place, folder, archive, cache)
    by_class: dict[str, list[str]] = {}
    for name, word in _class_folders(root):
        by_class.setdefault(str(word), []).append(name)
    other = len(by_class.pop("BACKGROUND_Google", ()))
    rng, rows = np.random.default_rng(0), dict[str, Rows](train=[], test=[])
    for word, names in by_class.items():
        order = rng.permutation(len(names))
        cut = min(CALTECH_TRAIN, len(names) - 1)
        for part, chosen in (("train", order[:cut]), ("test", order[cut:])):
            rows[part] += [(names[place], word) for place in np.sort(chosen)]
    notes = [f"the archive has no split: {CALTECH_TRAIN} images of each class, drawn by seed 0, are the training set"]
    if other:
        notes.append(f"{counted(other, 'image')} of BACKGROUND_Google left out (no class of its own)")
    return listed("caltech-101", "Caltech-101 as its archive unpacks", root.parent, rows, notes=notes)


def stl10(place: Path, cache: Path) -> Found | None:
    """train_X.bin, train_y.bin and so on: planes of 96 x 96, column by column; labels from 1, unlabeled_X.bin none."""
    if not (place / "train_X.bin").is_file():
        return None
    size = 3 * STL10_SIDE * STL10_SIDE
    files = {part: place / f"{part}_X.bin" for part in ("train", "test", "unlabeled")}
    counts = {part: file.stat().st_size // size for part, file in files.items() if file.is_file()}
    for part in counts:
        if rest := files[part].stat().st_size % size:
            raise UserError(f"{files[part]}: cut short: {counted(rest, 'byte')} beyond whole images. Copy it again.")
    names = place / "class_names.txt"
    classes = tuple(line[0] for line in _lines(names, at_least=1)) if names.is_file() else tuple(map(str, range(1, 11)))

    def read(parts: Sequence[str]) -> ArraySource:
        pixels = [np.fromfile(files[part], np.uint8).reshape(-1, 3, STL10_SIDE, STL10_SIDE) for part in parts]
        labels = [_stl10_labels(place / f"{part}_y.bin", counts[part], len(classes)) for part in parts]
        upright = np.concatenate([np.ascontiguousarray(each.transpose(0, 3, 2, 1)) for each in pixels])
        known = "-".join(["stl10", *parts]) if len(parts) == 1 else "stl10"
        return ArraySource(upright, np.concatenate(labels), name=known, classes=classes)

    return Found(name="stl10", words="STL-10 in its binary form", parts=counts, open=read, classes=len(classes))


def _stl10_labels(file: Path, count: int, classes: int) -> np.ndarray:
    if file.name.startswith("unlabeled"):
        return np.full(count, UNKNOWN, np.int64)
    if not file.is_file():
        raise UserError(f"{file}: no such file. It holds the labels of {file.name.replace('_y', '_X')}: copy it too.")
    labels = np.fromfile(file, np.uint8).astype(np.int64) - 1
    if len(labels) != count or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise UserError(f"{file}: not {counted(count, 'label')} of 1 to {classes}. Copy it again.")
    return labels


def _lines(file: Path, *, at_least: int) -> list[list[str]]:
    """The words of each line of a list, split at blanks and commas; raises UserError where a line has too few."""
    try:
        lines = [line.replace(",", " ").split() for line in read_text(file).splitlines() if line.strip()]
    except (UnreadableAnnotation, OSError) as error:
        raise UserError(f"{file}: no list of images: {error}.") from error
    if short := [number for number, words in enumerate(lines, 1) if len(words) < at_least]:
        raise UserError(f"{file}, line {short[0]}: {counted(at_least, 'word')} expected. Copy the file again.")
    return lines


def _class_folders(folder: Path) -> Rows:
    """The images below a folder of class folders, named from the folder above."""
    source = FolderSource(folder)
    names = source.paths()
    return [(f"{folder.name}/{name}", name.split("/")[0]) for name in names]


def _folder_or_archive(place: Path, folder: str, archive: str, cache: Path) -> Path:
    if (place / folder).is_dir():
        return place / folder
    if not (place / archive).is_file():
        raise UserError(f"{place}: neither {folder}/ nor {archive} is in it. Put one of them there.")
    return opened(place / archive, cache=cache).place
