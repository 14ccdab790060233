"""Labels that have nothing to do with the training images: a folder a class, or a CSV of path,label."""

from __future__ import annotations

from pathlib import Path

from simsiam.data.class_names import numbered
from simsiam.data.classification.csv_table import label_column, read_table
from simsiam.data.folders import FolderSource
from simsiam.data.source import FileSource, Source
from simsiam.errors import UserError
from simsiam.wording import counted, plural

SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing", "dev"))


def labelled_source(path: Path) -> Source:
    """Images with labels from a folder with a sub-folder a class, or from a CSV.

    Raises UserError if a file is missing, a row has no label, or there are fewer than two classes.
    """
    if not path.is_dir():
        return csv_source(path)
    source = FolderSource(path)
    splits = source.splits or tuple(name for name in source.classes or () if name.lower() in SPLIT_NAMES)
    if source.labels is None and not splits:
        raise UserError(f"{path}: not a labelled folder: {_why_not(source)}")
    if source.splits or len(splits) == len(source.classes or ()):
        raise UserError(
            f"{path}: its sub-folders are {', '.join(splits)}, the parts of a data set and no classes. Name "
            "one of them, or two as --train and --test."
        )
    return source


def csv_source(file: Path) -> Source:
    """Images that a CSV lists, one "path,label" a row; any usual heading and separator, paths relative to the file."""
    table = read_table(file)
    column = label_column(file, table)
    words = [row[column] if len(row) > column else "" for row in table.cells]
    lacking = [path for path, word in zip(table.paths, words, strict=True) if not word]
    if lacking:
        raise UserError(f"{file}: {lacking[0]!r} has no label ({counted(len(lacking), 'such row')}). Write path,label.")
    classes, labels = numbered(words)
    if len(classes) < 2:
        raise UserError(
            f"{file}: {counted(len(classes), 'class', 'classes')} in {counted(len(words), 'row')}; at least "
            f"two are needed."
        )
    return FileSource(file.parent, table.paths, labels, name=file.stem, classes=classes)


def _why_not(source: FolderSource) -> str:
    """What is amiss with a folder whose images got no labels, and the cure."""
    names = [source.path(index) for index in range(len(source))]
    cure = "Put each class's images in a sub-folder of its own."
    loose = [name for name in names if "/" not in name]
    if loose and len(loose) < len(names):
        lie = plural(len(loose), "lies", "lie")
        more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
        return f"{loose[0]}{more} {lie} outside the class folders. Move {plural(len(loose), 'it', 'them')} into one."
    if loose:
        return f"all {counted(len(names), 'image')} lie in it directly. {cure}"
    top = names[0].split("/")[0]
    deeper = {name.split("/")[1] for name in names if name.count("/") > 1}
    if len(deeper) > 1:
        return f"all images lie below {top}/, whose sub-folders may be the classes. Name {source.root / top} instead."
    return f"all {counted(len(names), 'image')} lie in one sub-folder, {top}/; at least two classes are needed. {cure}"
