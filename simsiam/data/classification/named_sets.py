"""The labelled sets of the linear protocols: iNaturalist 2018, Places205, and the 1 % and 10 % lists of ImageNet."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simsiam.data.folders import check_files, imagenet_source
from simsiam.data.source import FileSource, Source
from simsiam.errors import UserError
from simsiam.results import write_atomic
from simsiam.wording import counted, plural

INATURALIST_CLASSES = 8142
PLACES205_CLASSES = 205


def inaturalist_source(root: Path | str, split: str = "train") -> FileSource:
    """iNaturalist 2018 from `root/meta/SPLIT.txt` ("path id" lines) or, without it, from `root/SPLIT2018.json`.

    Images are looked for below `root`, or below `root/train_val2018`. Raises UserError for missing lists, files and
    ids outside 0..8141.
    """
    root = _folder(root, "train2018.json, val2018.json and train_val2018/")
    listed, described = root / "meta" / f"{split}.txt", root / f"{split}2018.json"
    if listed.is_file():
        entries = _read_list(listed, classes=INATURALIST_CLASSES)
    elif described.is_file():
        entries = _read_annotations(described)
    else:
        raise UserError(f"{root}: neither meta/{split}.txt nor {split}2018.json is in it; unpack one of them there.")
    inside = root / "train_val2018"
    base = root if (root / entries.names[0]).exists() or not inside.is_dir() else inside
    return _source(entries, base, name=f"inaturalist2018-{split}", classes=_numbers(entries.classes))


def convert_inaturalist(annotations: Path, out: Path) -> int:
    """Write the "path id" list of an iNaturalist JSON file, in the order of its images; returns the number of lines."""
    entries = _read_annotations(annotations)
    lines = [f"{name} {label}\n" for name, label in zip(entries.names, entries.labels.tolist(), strict=True)]
    write_atomic(out, "".join(lines).encode())
    return len(lines)


def places205_source(root: Path | str, split: str = "train") -> FileSource:
    """Places205 from `root/trainvalsplit_places205/SPLIT_places205.csv` with its images below `root/images256`.

    A line is "path id" or "path,id". Raises UserError for missing lists, files and ids outside 0..204.
    """
    root = _folder(root, "trainvalsplit_places205/ and images256/")
    listed = root / "trainvalsplit_places205" / f"{split}_places205.csv"
    if not listed.is_file():
        raise UserError(f"{listed}: no such list. Unpack trainvalsplit_places205 into {root}.")
    entries = _read_list(listed, classes=PLACES205_CLASSES)
    return _source(entries, root / "images256", name=f"places205-{split}", classes=_numbers(entries.classes))


def imagenet_part(root: Path | str, part: Path | str) -> Source:
    """The images of ImageNet's training set that a list names (the 1 % and 10 % lists of semi-supervised learning).

    Args:
        root: an ImageNet folder, as for `imagenet_source`.
        part: a text file with one image a line: "n01440764_10026.JPEG", "n01440764/n01440764_10026.JPEG", or either
            followed by a class id. The label is always the training set's own; an id that contradicts it is an error.
    """
    whole, part = imagenet_source(root, "train"), Path(part)
    if not part.is_file():
        raise UserError(f"{part}: no such list. It names the labelled images, one a line.")
    lines = [line.split() for line in part.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{part}: an empty list.")
    place = {os.path.basename(whole.path(index)): index for index in range(len(whole))}
    missing = [words[0] for words in lines if os.path.basename(words[0]) not in place]
    if missing:
        raise UserError(
            f"{part}: {len(missing):,} of {counted(len(lines), 'image')} "
            f"{plural(len(missing), 'is', 'are')} not in {root} (first: {missing[0]}). "
            "The list belongs to another data set, or the folder is incomplete."
        )
    chosen = np.array([place[os.path.basename(words[0])] for words in lines], np.int64)
    if whole.labels is not None:
        for words, label in zip(lines, whole.labels[chosen].tolist(), strict=True):
            if len(words) > 1 and words[1] not in (str(label), whole.class_name(label)):
                raise UserError(f"{part}: {words[0]} has id {words[1]} here but {whole.class_name(label)} in {root}.")
    subset = whole.subset(chosen)
    subset.name = f"imagenet-{part.stem}"
    return subset


@dataclass(frozen=True, kw_only=True)
class _Entries:
    file: Path
    names: list[str]
    labels: np.ndarray[Any, Any]
    classes: int  # one more than the highest id


def _read_list(file: Path, *, classes: int) -> _Entries:
    names, labels = [], []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, word = line.strip().replace("\t", " ").replace(",", " ").rpartition(" ")
        if not name or not word.isdecimal():
            raise UserError(f"{file}, line {number}: found {line.strip()!r}; expected 'path id' with a whole number.")
        if int(word) >= classes:
            raise UserError(f"{file}, line {number}: id {word} is outside 0..{classes - 1}.")
        names.append(name.strip())
        labels.append(int(word))
    if not names:
        raise UserError(f"{file}: an empty list; expected one 'path id' a line.")
    return _Entries(file=file, names=names, labels=np.array(labels, np.int64), classes=max(labels) + 1)


def _read_annotations(file: Path) -> _Entries:
    try:
        content = json.loads(file.read_text("utf-8"))
        paths = {image["id"]: image["file_name"] for image in content["images"]}
        wanted = {note["image_id"]: int(note["category_id"]) for note in content["annotations"]}
        categories = {int(category["id"]) for category in content["categories"]}
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file.") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not an iNaturalist annotation file ({type(error).__name__}: {error}).") from error
    without = [path for key, path in paths.items() if key not in wanted]
    if without or not paths:
        first = f" (first: {without[0]})" if without else ""
        raise UserError(
            f"{file}: {len(without):,} of {counted(len(paths), 'image')} "
            f"{plural(len(without), 'has', 'have')} no annotation{first}."
        )
    names, labels = list(paths.values()), [wanted[key] for key in paths]
    beyond = sorted({label for label in labels if label not in categories or label < 0})
    if beyond:
        raise UserError(
            f"{file}: category ids {beyond[:5]} are used but not among its "
            f"{counted(len(categories), 'category', 'categories')}."
        )
    return _Entries(file=file, names=names, labels=np.array(labels, np.int64), classes=max(categories) + 1)


def _source(entries: _Entries, base: Path, *, name: str, classes: tuple[str, ...]) -> FileSource:
    check_files(entries.file, base, entries.names)
    source = FileSource(base, entries.names, entries.labels, name=name, classes=classes)
    source.published = True
    return source


def _folder(root: Path | str, holds: str) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the folder that holds {holds}.")
    return root


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))
