"""Images with several labels each: VOC trees, and ordinary labelled sets taken one class against the rest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsiam.data.annotations import UnreadableAnnotation, flag, read_xml
from simsiam.data.source import FileSource, Source
from simsiam.data.splits import ABSENT, DIFFICULT, PRESENT
from simsiam.errors import UserError
from simsiam.wording import counted, plural, some

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class MultiLabelSet:
    """Images and, for each class, whether it is in them."""

    source: Source
    targets: np.ndarray  # N x C, int8: PRESENT, ABSENT or DIFFICULT
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    def __len__(self) -> int:
        return len(self.source)

    def digests(self) -> np.ndarray:
        """Digests of the images' content, N x 16 uint8."""
        return self.source.digests()

    def fingerprint(self) -> str:
        """sha256 over the images' content and the labels by name."""
        whole = hashlib.sha256(self.source.content().encode())
        whole.update(repr(self.classes).encode("utf-8", "surrogateescape"))
        whole.update(np.ascontiguousarray(self.targets).tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, kw_only=True)
class MultiLabelSplits:
    """What is learnt from and what is scored."""

    train: MultiLabelSet
    test: MultiLabelSet


def voc_splits(root: Path | str, *, train: str = "trainval", test: str = "test") -> MultiLabelSplits:
    """Two splits of a VOC tree, with the classes that its own files name.

    Args:
        root: the folder with ImageSets, Annotations and JPEGImages (VOC2007), or the VOCdevkit above it.
        train: a split of ImageSets/Main.
        test: another.

    Labels come from ImageSets/Main/CLASS_SPLIT.txt; where a split has no such file, from Annotations. Images are
    sorted by name. Raises UserError where files are missing, contradict each other, or lack a class.
    """
    tree = _tree(Path(root))
    listed = {split: _list_classes(tree, split) for split in (train, test)}
    if all(listed.values()):
        _same_classes(tree, train, listed[train], test, listed[test])
        classes = tuple(sorted(listed[train]))
        sets = [_from_lists(tree, split, classes) for split in (train, test)]
    else:
        annotated = {split: _read_annotations(tree, image_ids(tree, split)) for split in (train, test)}
        classes = tuple(sorted({name for objects in annotated[train].values() for name in objects}))
        sets = [_from_annotations(tree, split, annotated[split], classes) for split in (train, test)]
    return checked(MultiLabelSplits(train=sets[0], test=sets[1]))


def one_against_rest(train: Source, test: Source) -> MultiLabelSplits:
    """Ordinary labelled sets, such as CIFAR-10 or class folders, with each class against all others."""
    from simsiam.data.classification.loader import class_count, labels_of

    count = class_count(train, test)
    classes = train.classes or test.classes or tuple(str(number) for number in range(count))

    def one(source: Source) -> MultiLabelSet:
        targets = (labels_of(source)[:, None] == np.arange(count)).astype(np.int8)
        return MultiLabelSet(source=source, targets=targets, classes=classes)

    return checked(MultiLabelSplits(train=one(train), test=one(test)))


def checked(splits: MultiLabelSplits) -> MultiLabelSplits:
    """The splits; raises UserError if a class has no positive or no negative image in one of them."""
    for what, part in (("training", splits.train), ("test", splits.test)):
        if len(part.classes) == 0:
            raise UserError(f"{part.source.name}: no class at all is labelled in the {what} set.")
        for mark, word in ((PRESENT, "positive"), (ABSENT, "negative")):
            counts = (part.targets == mark).sum(0)
            lacking = [name for name, count in zip(part.classes, counts, strict=True) if count == 0]
            if lacking:
                raise UserError(
                    f"{part.source.name}: no {word} image in the {what} set for {some(lacking)}; neither a classifier "
                    "nor its average precision exists without. Add images, or leave these classes out."
                )
    return splits


def _tree(root: Path) -> Path:
    for candidate in (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007"):
        if (candidate / "ImageSets" / "Main").is_dir():
            return candidate
    raise UserError(
        f"{root}: no VOC tree (ImageSets/Main is missing there and in VOC2007 below it). Give the folder that holds "
        "ImageSets, Annotations and JPEGImages."
    )


def _list_classes(tree: Path, split: str) -> list[str]:
    ending = f"_{split}.txt"
    files = sorted((tree / "ImageSets" / "Main").glob(f"*{ending}"))
    return [file.name.removesuffix(ending) for file in files]


def _same_classes(tree: Path, train: str, in_train: list[str], test: str, in_test: list[str]) -> None:
    for there, here, split in ((in_train, in_test, test), (in_test, in_train, train)):
        missing = sorted(set(there) - set(here))
        if missing:
            files = some([f"{name}_{split}.txt" for name in missing])
            raise UserError(f"{tree / 'ImageSets' / 'Main'}: the other split has classes that this one lacks: {files}.")


def image_ids(tree: Path, split: str) -> list[str]:
    """The names in ImageSets/Main/SPLIT.txt, sorted; raises UserError if there is no such list, or a faulty one."""
    file = tree / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        present = sorted({p.stem.rpartition("_")[2] for p in file.parent.glob("*.txt")})
        raise UserError(f"{file}: no such list of images. Splits there: {', '.join(present) or 'none'}.")
    ids = sorted(line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip())
    if not ids:
        raise UserError(f"{file}: an empty list of images.")
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise UserError(f"{file}: listed twice: {some(twice)}.")
    return ids


def _from_lists(tree: Path, split: str, classes: tuple[str, ...]) -> MultiLabelSet:
    ids = image_ids(tree, split)
    place = {name: row for row, name in enumerate(ids)}
    targets = np.empty((len(ids), len(classes)), np.int8)
    for column, name in enumerate(classes):
        marks = _read_marks(tree / "ImageSets" / "Main" / f"{name}_{split}.txt")
        if marks.keys() != place.keys():
            extra, missing = sorted(marks.keys() - place.keys()), sorted(place.keys() - marks.keys())
            raise UserError(
                f"{tree / 'ImageSets' / 'Main' / f'{name}_{split}.txt'}: disagrees with {split}.txt: "
                f"{counted(len(missing), 'image')} without a label ({some(missing)}), "
                f"{counted(len(extra), 'label')} without an image "
                f"({some(extra)}). Take both files from the same release."
            )
        for image, mark in marks.items():
            targets[place[image], column] = mark
    return MultiLabelSet(source=_source(tree, split, ids), targets=targets, classes=classes)


def _read_marks(file: Path) -> dict[str, int]:
    meaning = {"1": PRESENT, "-1": ABSENT, "0": DIFFICULT}
    marks: dict[str, int] = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in meaning:
            raise UserError(f"{file}, line {number}: found {line.strip()!r}; expected an image and 1, -1 or 0.")
        marks[words[0]] = meaning[words[1]]
    return marks


def _read_annotations(tree: Path, ids: list[str]) -> dict[str, dict[str, int]]:
    """For each image, the classes of its objects: DIFFICULT where every object of the class is."""
    files = {name: tree / "Annotations" / f"{name}.xml" for name in ids}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise UserError(
            f"{tree / 'Annotations'}: {len(missing)} of {counted(len(ids), 'image')} "
            f"{plural(len(missing), 'has', 'have')} no annotation: {some(missing)}, and "
            "ImageSets/Main has no CLASS_SPLIT.txt files to take labels from instead."
        )
    found: dict[str, dict[str, int]] = {}
    for image, file in files.items():
        try:
            root = read_xml(file)
        except UnreadableAnnotation as error:
            raise UserError(f"{file}: not a VOC annotation ({error}).") from error
        objects = found.setdefault(image, {})
        for each in root.iter("object"):
            name = (each.findtext("name") or "").strip()
            if not name:
                raise UserError(f"{file}: an object without a name.")
            try:
                difficult = flag(each.findtext("difficult"))
            except ValueError as error:
                raise UserError(f"{file}: {name} is marked difficult {error}.") from error
            objects[name] = PRESENT if not difficult else objects.get(name, DIFFICULT)
    return found


def _from_annotations(
    tree: Path, split: str, annotated: dict[str, dict[str, int]], classes: tuple[str, ...]
) -> MultiLabelSet:
    column = {name: number for number, name in enumerate(classes)}
    targets = np.full((len(annotated), len(classes)), ABSENT, np.int8)
    for row, (image, objects) in enumerate(annotated.items()):
        for name, mark in objects.items():
            if name not in column:
                raise UserError(
                    f"{tree / 'Annotations' / f'{image}.xml'}: unknown class {name!r}; training shows {some(classes)}."
                )
            targets[row, column[name]] = mark
    return MultiLabelSet(source=_source(tree, split, list(annotated)), targets=targets, classes=classes)


def _source(tree: Path, split: str, ids: list[str]) -> FileSource:
    folder = tree / "JPEGImages"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the tree has no images.")
    present = {file.stem: file.name for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES}
    missing = [name for name in ids if name not in present]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of the {counted(len(ids), 'image')} of {split} "
            f"{plural(len(missing), 'is', 'are')} missing: {some(missing)}."
        )
    name = f"{tree.resolve().name.lower()}-{split}"
    source = FileSource(folder, [present[each] for each in ids], None, name=name, classes=None)
    source.published = True
    return source
