"""From the words of a person to the data of a protocol: known sets by name or by what lies in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simsiam.config import cache_folder
from simsiam.data.classification import csv_table, hugging_face, layouts
from simsiam.data.classification.layouts import Found
from simsiam.data.find_images import role_of, split_folders
from simsiam.data.folders import ListSource, imagenet_source
from simsiam.data.source import Source
from simsiam.data.splits import Splits
from simsiam.data.unpack import opened
from simsiam.errors import UserError

if TYPE_CHECKING:
    from simsiam.data.classification.voc import MultiLabelSplits

NAMES = ("cifar10", "cifar100", "fashion-mnist")
Layout = Literal["places205", "inaturalist2018"]
_SMALL_SETS = (  # what one of them begins with; to look closer imports torchvision
    *("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "data_batch_1", "data_batch_1.bin"),
    *("cifar-100-python", "cifar-100-python.tar.gz", "meta", "FashionMNIST", "MNIST"),
    *("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"),
)


def splits(
    *, data: str | None, train: str | None, test: str | None, cache: Path | None, layout: Layout | None = None
) -> Splits:
    """A labelled training and test set: one that has splits, or two places.

    Args:
        data: a set with splits of its own, by name, folder or archive.
        train, test: two places instead.
        cache: of downloads and unpacked archives.
        layout: of `data`, where the protocol is of one data set; None: inferred from the files.

    Raises UserError where nothing usable is there.
    """
    _check(data, train, test)
    if data is None:
        return Splits(train=labelled(str(train), cache=cache, split="train"), test=labelled(str(test), cache=cache))
    here = opened(Path(data), cache=cache_folder(cache))
    found = _of_layout(layout, here.place) if layout is not None else _known(data, here.place, cache)
    both = Splits(train=found.part("train"), test=found.part("test"))
    if here.notes:
        both.train.note(*here.notes)
    return both


def multilabel(*, data: str | None, train: str | None, test: str | None, cache: Path | None) -> MultiLabelSplits:
    """Training and test images with several labels each: a VOC tree, two CSV files, or one class against the rest."""
    from simsiam.data.classification.labels import csv_splits
    from simsiam.data.classification.voc import one_against_rest, voc_splits

    _check(data, train, test)
    if data is not None and _is_voc(Path(data)):
        return voc_splits(data)
    if train is not None and test is not None and _is_csv(train) and _is_csv(test):
        return csv_splits(Path(train), Path(test))
    both = splits(data=data, train=train, test=test, cache=cache)
    return one_against_rest(both.train, both.test)


def labelled(place: str, *, cache: Path | None, split: str = "test") -> Source:
    """One labelled set: class folders, a CSV of path,label, a list of "path label", or a split of a known set."""
    from simsiam.data.classification.labels import labelled_source

    role: Literal["train", "test"] = "train" if split == "train" else "test"
    if place in NAMES:
        return _by_name(place, None, cache).part(role)
    here = opened(Path(place), cache=cache_folder(cache))
    path, source = here.place, None
    if (found := recognise(path, cache)) is not None:
        source = found.part(role)
    elif path.is_file() and not _is_csv(place):
        source = ListSource(path)
    else:
        source = labelled_source(path)
    if here.notes:
        source.note(*here.notes)
    return source


def images_of(place: Path, *, every: bool, cache: Path | None) -> Source | None:
    """The images of a set or archive that is more than a folder of images, to learn from; None for any other place.

    Args:
        every: the part that is scored too.
    """
    here = opened(place, cache=cache_folder(cache))
    found = recognise(here.place, cache)
    if found is not None and found.words:
        source = found.images(every=every)
    elif here.place != place:
        from simsiam.data.folders import FolderSource

        source = FolderSource(here.place, split="all" if every else "train")
    else:
        return None
    if here.notes:
        source.note(*here.notes)
    return source


def recognise(place: Path, cache: Path | None) -> Found | None:
    """The set that lies in a place, or in the only folder in it; None where none of `FORMATS` knows it."""
    if not place.exists():
        return None
    for recogniser in FORMATS:
        if (found := recogniser(place, cache_folder(cache))) is not None:
            return found
    inside = _only_folder(place) if place.is_dir() else None
    return None if inside is None else recognise(inside, cache)


def _only_folder(place: Path) -> Path | None:
    with os.scandir(place) as entries:
        first = list(islice((each for each in entries if not each.name.startswith(".")), 2))
    return place / first[0].name if len(first) == 1 and first[0].is_dir() else None


def _check(data: str | None, train: str | None, test: str | None) -> None:
    """Raise UserError unless one set with splits, or two places, are named."""
    if data is not None and (train is not None or test is not None):
        raise UserError("--data names a set with its own splits; give it, or --train and --test, not both.")
    if data is None and (train is None or test is None):
        missing = "--data SET, or --train and --test" if train == test else "both --train and --test"
        raise UserError(
            f"say which data: {missing}. Each of --train and --test is a folder with a sub-folder for each class, "
            f"a list of 'path label' lines or a CSV of path,label; --data is {' or '.join(NAMES)}, or a folder of "
            "ImageNet, iNaturalist 2018, Places205 or train/ and test/."
        )


def _known(data: str, place: Path, cache: Path | None) -> Found:
    """Which known set a name or folder is; raises UserError if none."""
    if data in NAMES:
        return _by_name(data, None, cache)
    if not place.exists():
        raise UserError(f"--data {data}: no such folder, and no set of that name ({', '.join(NAMES)}).")
    if _is_voc(place):
        raise UserError(f"{data}: a VOC tree has several labels an image; use svm-voc07 or low-shot-voc07.")
    found = recognise(place, cache)
    if found is None:
        raise UserError(
            f"--data {data}: no data set that is known by its layout. Expected train/ and val/ or test/ (class "
            f"folders, or lists in meta/), a VOC tree, CIFAR's or MNIST's files, or one of {KNOWN}. For other layouts "
            "name both parts: --train DIR --test DIR."
        )
    return found


def _is_voc(place: Path) -> bool:
    return any((place / each / "ImageSets" / "Main").exists() for each in ("", "VOC2007", "VOCdevkit/VOC2007"))


def _parts(name: str, opener: Callable[[str], Source], *parts: str) -> Found:
    """A set that needs no naming, of which one part is read at a time."""
    return Found(name=name, words="", parts=dict.fromkeys(parts, 0), open=lambda names: opener(names[0]))


def _of_layout(layout: Layout, place: Path) -> Found:
    from simsiam.data.classification.named_sets import inaturalist_source, places205_source

    reader = {"places205": places205_source, "inaturalist2018": inaturalist_source}[layout]
    return _parts(layout, partial(reader, place), "train", "val")


def _by_name(name: str, place: Path | None, cache: Path | None) -> Found:
    from simsiam.data.classification.torchvision_sets import known_set

    where = cache_folder(cache)
    return _parts(name, lambda split: known_set(name, place, cache=where, split=split), "train", "test")


def _places205(place: Path, cache: Path) -> Found | None:
    return _of_layout("places205", place) if (place / "trainvalsplit_places205").exists() else None


def _inaturalist2018(place: Path, cache: Path) -> Found | None:
    holds = any((place / name).exists() for name in ("train2018.json", "train_val2018"))
    return _of_layout("inaturalist2018", place) if holds else None


def _small_sets(place: Path, cache: Path) -> Found | None:
    if not any((place / name).exists() for name in _SMALL_SETS):
        return None
    from simsiam.data.classification.torchvision_sets import known_in

    name = known_in(place)
    return None if name is None else _by_name(name, place, cache)


def _imagenet(place: Path, cache: Path) -> Found | None:
    listed = all((place / "meta" / f"{part}.txt").exists() or (place / part).exists() for part in ("train", "val"))
    return _parts("imagenet", partial(imagenet_source, place), "train", "val") if listed else None


def _split_folders(place: Path, cache: Path) -> Found | None:
    from simsiam.data.classification.labels import labelled_source

    folders = split_folders(place) if place.is_dir() else {}
    roles = {role_of(name) for name in folders}
    if "train" not in roles or len(roles) < 2:
        return None
    return _parts(place.resolve().name, lambda name: labelled_source(folders[name]), *folders)


def _is_csv(place: str) -> bool:
    return Path(place).suffix.lower() in csv_table.SUFFIXES


KNOWN = (
    "iNaturalist 2018, Places205, ImageNet from Kaggle, Tiny-ImageNet, STL-10, Flowers-102, Food-101, Caltech-101, "
    "Parquet or metadata.csv of Hugging Face's datasets"
)
FORMATS: Sequence[Callable[[Path, Path], Found | None]] = (  # the first that knows a place reads it
    _places205,
    _inaturalist2018,
    _small_sets,
    layouts.tiny_imagenet,
    layouts.kaggle_imagenet,
    layouts.food101,
    layouts.flowers102,
    layouts.caltech101,
    layouts.stl10,
    hugging_face.image_folder,
    hugging_face.parquet,
    _imagenet,
    _split_folders,
)
