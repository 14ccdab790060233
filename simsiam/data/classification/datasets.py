"""From the words of a person to the data of a protocol: known sets by name or by what lies in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simsiam.data.classification import csv_table
from simsiam.data.splits import Splits
from simsiam.errors import UserError

if TYPE_CHECKING:
    from simsiam.data.classification.voc import MultiLabelSplits
    from simsiam.data.sources import Source

NAMES = ("cifar10", "cifar100", "fashion-mnist")
Layout = Literal[
    "cifar10", "cifar100", "fashion-mnist", "places205", "inaturalist2018", "voc", "imagenet", "train-test"
]


def splits(
    *, data: str | None, train: str | None, test: str | None, cache: Path | None, layout: Layout | None = None
) -> Splits:
    """A labelled training and test set: one that has splits, or two places.

    Args:
        data: a set with splits of its own, by name or folder.
        train, test: two places instead.
        cache: of downloads.
        layout: of `data`, where the protocol is of one data set; None: inferred from the files.

    Raises UserError where nothing usable is there.
    """
    _check(data, train, test)
    if data is None:
        return Splits(train=labelled(str(train), cache=cache), test=labelled(str(test), cache=cache))
    found = layout if layout is not None else layout_of(data)
    if found == "voc":
        raise UserError(f"{data}: a VOC tree has several labels an image; use svm-voc07 or low-shot-voc07.")
    return Splits(train=_part(data, found, "train", cache), test=_part(data, found, "test", cache))


def multilabel(*, data: str | None, train: str | None, test: str | None, cache: Path | None) -> MultiLabelSplits:
    """Training and test images with several labels each: a VOC tree, two CSV files, or one class against the rest."""
    from simsiam.data.classification.labels import csv_splits
    from simsiam.data.classification.voc import one_against_rest, voc_splits

    _check(data, train, test)
    if data is not None and layout_of(data) == "voc":
        return voc_splits(data)
    if train is not None and test is not None and _is_csv(train) and _is_csv(test):
        return csv_splits(Path(train), Path(test))
    both = splits(data=data, train=train, test=test, cache=cache)
    return one_against_rest(both.train, both.test)


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


def labelled(place: str, *, cache: Path | None, split: str = "test") -> Source:
    """One labelled set: class folders, a CSV of path,label, a list of "path label", or a split of a known set."""
    from simsiam.data.classification.labels import labelled_source
    from simsiam.data.sources import ListSource

    path = Path(place)
    if place in NAMES:
        return _part(place, layout_of(place), split, cache)
    if path.is_file() and not _is_csv(place):
        return ListSource(path)
    if path.is_dir() and (found := _find_layout(path)) is not None and found != "voc":
        return _part(place, found, split, cache)
    return labelled_source(path)


def layout_of(data: str) -> Layout:
    """Which known set a name or folder is; raises UserError if none."""
    if data in NAMES:
        return data  # type: ignore[return-value]
    path = Path(data)
    if not path.is_dir():
        raise UserError(f"--data {data}: no such folder, and no set of that name ({', '.join(NAMES)}).")
    found = _find_layout(path)
    if found is None:
        raise UserError(
            f"--data {data}: no data set that is known by its layout. Expected train/ and val/ or test/ (class "
            "folders, or lists in meta/), a VOC tree, iNaturalist 2018, Places205, CIFAR's or MNIST's files. For "
            "other layouts name both parts: --train DIR --test DIR."
        )
    return found


def _find_layout(path: Path) -> Layout | None:
    from simsiam.data.classification.torchvision_sets import known_in

    def holds(*names: str) -> bool:
        return any((path / name).exists() for name in names)

    if holds("trainvalsplit_places205"):
        return "places205"
    if holds("train2018.json", "train_val2018"):
        return "inaturalist2018"
    if holds("ImageSets/Main", "VOC2007/ImageSets/Main", "VOCdevkit/VOC2007/ImageSets/Main"):
        return "voc"
    if (known := known_in(path)) is not None:
        return known  # type: ignore[return-value]
    if holds("meta/train.txt", "train") and holds("meta/val.txt", "val"):
        return "imagenet"
    return "train-test" if holds("train") and holds("test") else None


def _part(data: str, layout: Layout, split: str, cache: Path | None) -> Source:
    from simsiam.config import cache_folder
    from simsiam.data.classification.labels import labelled_source
    from simsiam.data.classification.named_sets import inaturalist_source, places205_source
    from simsiam.data.classification.torchvision_sets import known_set
    from simsiam.data.sources import imagenet_source

    where = cache_folder(cache)
    local = None if data in NAMES else Path(data)
    evaluated = "val" if split == "test" else split  # what these three call the set that is scored
    match layout:
        case "cifar10" | "cifar100" | "fashion-mnist":
            return known_set(layout, local, cache=where, split=split)
        case "places205":
            return places205_source(data, evaluated)
        case "inaturalist2018":
            return inaturalist_source(data, evaluated)
        case "imagenet":
            return imagenet_source(data, evaluated)
        case "train-test":
            return labelled_source(Path(data) / split)
        case "voc":
            raise UserError(f"{data}: a VOC tree has several labels an image; this protocol needs one for each.")


def _is_csv(place: str) -> bool:
    return Path(place).suffix.lower() in csv_table.SUFFIXES
