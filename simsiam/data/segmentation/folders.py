"""Any folder of images beside any folder of masks, with a list of classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.data.segmentation.masks import IGNORE, MOST_CLASSES, Coding, Colour, MaskSource, MaskSplits, Pair
from simsiam.errors import UserError
from simsiam.wording import counted

CLASS_FILE = "classes.txt"
IGNORED_NAMES = ("ignore", "void", "unlabelled", "unlabeled")
MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_labelIds", "_L")
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("val", "validation", "test")
FORMS = "NAME, or ID NAME, or RED GREEN BLUE NAME, one a line"

Key = TypeVar("Key", int, Colour)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the images and the masks of one set lie."""

    images: Path
    masks: Path


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The classes, and how masks store them."""

    names: tuple[str, ...]
    coding: Coding


def read_classes(file: Path) -> ClassList:
    """The classes that a text file lists: NAME, or ID NAME, or RED GREEN BLUE NAME, one a line.

    Lines without numbers count from 0. A name of `ignore`, `void` or `unlabelled` marks values that are not scored;
    255 is such a value wherever no class claims it. Raises UserError that names the line.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such list of classes. Write one with {FORMS}, or name it by --classes.")
    names: list[str] = []
    ids: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        numbers, name = _numbers_and_name(line, f"{file}, line {number}")
        ignored = name.lower() in IGNORED_NAMES
        if not ignored and name not in names:
            names.append(name)
        meaning = IGNORE if ignored else names.index(name)
        if len(numbers) == 3:
            _claim(colours, (numbers[0], numbers[1], numbers[2]), meaning, f"{file}, line {number}")
        else:
            _claim(ids, numbers[0] if numbers else len(ids), meaning, f"{file}, line {number}")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(f"{file}: {counted(len(names), 'class', 'classes')}; a segmentation needs 2 to {MOST_CLASSES}.")
    ids.setdefault(255, IGNORE)
    if colours:  # masks of such a set may also store the class numbers themselves
        ids = {**{n: n for n in range(len(names))}, **ids}
    return ClassList(names=tuple(names), coding=Coding(ids=ids, colours=colours))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # editors of Windows put a mark before the first word
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error}); save it as UTF-8.") from error


def open_mask_folders(train: Folders, test: Folders | None, classes: Path, *, seed: int) -> MaskSplits:
    """A set of training images and one to score, each a folder of images and one of masks.

    Args:
        test: None: a tenth of the training images is held out, by the seed and each image's name.
        classes: see `read_classes`.

    A mask belongs to the image of the same name and sub-folder; `_mask`, `_label`, `_gt` and the like may follow.
    Images without a mask and masks without an image are left to the checks to report. Raises UserError where a
    folder is missing or empty.
    """
    listed = read_classes(classes)
    source = _source(train, listed)
    if test is not None:
        return MaskSplits(train=source, test=_source(test, listed))
    from simsiam.data.source import split_held_out

    parts = split_held_out(source, images=max(2, len(source) // 10), seed=seed)
    assert isinstance(parts.train, MaskSource)
    assert isinstance(parts.held_out, MaskSource)
    return MaskSplits(train=parts.train, test=parts.held_out)


def open_mask_tree(root: Path, classes: Path | None, *, seed: int) -> MaskSplits:
    """Masks and images in one tree: images/ and masks/, each with train/ and val/ or without, or the other way round.

    Raises UserError where neither order is there.
    """
    listed = classes or root / CLASS_FILE
    for train in ("", *TRAIN_NAMES):
        for train_folders, order in _orders(root, train):
            if not train:
                if any((root / "images" / name).is_dir() for name in TRAIN_NAMES):
                    continue
                return open_mask_folders(train_folders, None, listed, seed=seed)
            for test in TEST_NAMES:
                for test_folders, other in _orders(root, test):
                    if other == order:
                        return open_mask_folders(train_folders, test_folders, listed, seed=seed)
            return open_mask_folders(train_folders, None, listed, seed=seed)
    raise UserError(
        f"{root}: no images/ and masks/ in it (each with train/ and val/, or in train/ and val/ themselves). "
        "Name the folders by --train-images and --train-masks."
    )


def _orders(root: Path, split: str) -> list[tuple[Folders, str]]:
    kinds = {
        "kind first": Folders(images=root / "images" / split, masks=root / "masks" / split),
        "split first": Folders(images=root / split / "images", masks=root / split / "masks"),
    }
    return [(folders, order) for order, folders in kinds.items() if folders.images.is_dir() and folders.masks.is_dir()]


def _source(folders: Folders, listed: ClassList) -> MaskSource:
    images, masks = (_files(folder) for folder in (folders.images, folders.masks))
    pairs, taken = [], set()
    for key, image in images.items():
        named = next((masks[key + ending] for ending in MASK_ENDINGS if key + ending in masks), None)
        taken.add(named)
        missing = folders.masks / f"{key}.png"
        pairs.append(Pair(name=str(image.relative_to(folders.images)), image=image, mask=named or missing))
    alone = tuple(
        f"{mask}: a mask without an image in {folders.images}" for mask in masks.values() if mask not in taken
    )
    return MaskSource(
        pairs, name=_set_name(folders.images.resolve()), classes=listed.names, coding=listed.coding, unmatched=alone
    )


def _set_name(images: Path) -> str:
    """The nearest folder's name that says more than `images` or `train`."""
    general = ("images", *TRAIN_NAMES, *TEST_NAMES)
    return next((each.name for each in (images, *images.parents) if each.name not in general), images.name)


def _files(folder: Path) -> dict[str, Path]:
    """Image files by their path below the folder without its suffix, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{folder}: no image in it or below it.")
    return {str(file.relative_to(folder).with_suffix("")): file for file in files}


def _numbers_and_name(line: str, where: str) -> tuple[list[int], str]:
    words = line.replace(",", " ").split()
    leading = 0
    while leading < min(len(words) - 1, 3) and words[leading].isdecimal():
        leading += 1
    numbers, name = [int(word) for word in words[:leading]], " ".join(words[leading:])
    if leading == 2 or (leading == 3 and max(numbers) > 255):
        raise UserError(f"{where}: found {line.strip()!r}; expected {FORMS}.")
    return numbers, name


def _claim(known: dict[Key, int], key: Key, meaning: int, where: str) -> None:
    if known.get(key, meaning) != meaning or (key in known and meaning != IGNORE):
        raise UserError(f"{where}: {key} is listed before; each value or colour belongs to one class.")
    known[key] = meaning
