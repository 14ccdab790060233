"""Boxes in VOC's XML: the published VOC07 and VOC07+12 splits, and any folder that a labelling tool has written."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simsiam.data.classification.voc import image_ids, some
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Objects, Problem, joined
from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.errors import UserError

FirstPixel = Literal[0, 1]
XML = "*.[xX][mM][lL]"


@dataclass(frozen=True, kw_only=True)
class BoxSplits:
    """What is learnt from and what is scored."""

    train: BoxFiles
    test: BoxFiles


@dataclass(frozen=True, kw_only=True)
class _Object:
    name: str
    corners: tuple[float, float, float, float]  # x1 y1 x2 y2, continuous, counted from 0
    difficult: bool


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    file: Path
    image: str  # the file name that it gives, or ""
    width: int  # 0: not said
    height: int
    objects: tuple[_Object, ...]


def open_voc0712(root: Path | str) -> BoxSplits:
    """trainval of VOC2007 and VOC2012 one after the other, and test of VOC2007.

    Args:
        root: the VOCdevkit, which holds VOC2007 and VOC2012, or the folder above it.

    Raises UserError where a tree or a list of images is missing.
    """
    devkit = _devkit(Path(root), ("VOC2007", "VOC2012"))
    seven, twelve = (_read_split(devkit / year, "trainval") for year in ("VOC2007", "VOC2012"))
    classes = _class_names([*seven, *twelve])
    train = joined(
        "voc0712-trainval",
        [
            _tree_files(devkit / year, "trainval", read, classes)
            for year, read in (("VOC2007", seven), ("VOC2012", twelve))
        ],
    )
    return BoxSplits(
        train=train, test=_tree_files(devkit / "VOC2007", "test", _read_split(devkit / "VOC2007", "test"), classes)
    )


def open_voc07(root: Path | str) -> BoxSplits:
    """trainval and test of VOC2007; `root` and errors as for open_voc0712."""
    tree = _devkit(Path(root), ("VOC2007",)) / "VOC2007"
    train = _read_split(tree, "trainval")
    classes = _class_names(train)
    return BoxSplits(
        train=_tree_files(tree, "trainval", train, classes),
        test=_tree_files(tree, "test", _read_split(tree, "test"), classes),
    )


def open_voc_folder(
    folder: Path | str, classes: Sequence[str] | None = None, *, first_pixel: FirstPixel = 0
) -> BoxFiles:
    """Any folder of images with VOC-XML annotations; no lists of images are needed.

    Args:
        folder: holds the images, or JPEGImages or images with them; and the XML files, or Annotations with them.
        classes: the names that count; None: all that occur, sorted. Give a test set the training set's.
        first_pixel: how the tool counts pixels: from 0, as most do, or from 1 and with the last pixel named, as VOC.

    Raises UserError where there is no XML file at all.
    """
    folder = Path(folder)
    annotations = _first_folder(folder, ("Annotations", "annotations"), XML)
    files = sorted(annotations.glob(XML))
    if not files:
        raise UserError(f"{folder}: no VOC-XML annotation (*.xml) in it or in its Annotations folder.{_deeper(folder)}")
    images = next((folder / name for name in ("JPEGImages", "images", "Images") if (folder / name).is_dir()), folder)
    present = _images_by_stem(images)
    read = [_parse(file, first_pixel) for file in files]
    known = tuple(classes) if classes is not None else _class_names(read)
    annotated = {file.stem for file in files}
    named = {one.image for one in read if isinstance(one, _Annotation)}
    problems = [
        Problem(kind="image without annotation", where=str(images / name), what=f"no {stem}.xml in {annotations}")
        for stem, names in present.items()
        if stem not in annotated
        for name in names
        if name not in named
    ]

    def find(annotation: _Annotation) -> Path | None:
        names = present.get(annotation.file.stem) or present.get(Path(annotation.image).stem) or []
        best = annotation.image if annotation.image in names else next(iter(names), None)
        return images / best if best is not None else None

    made = _files(folder.resolve().name, folder, read, known, find)
    made.problems += tuple(problems)
    return made


def _deeper(folder: Path) -> str:
    """Where annotations lie that were looked for in `folder`, as a hint."""
    places = {file.parent for file in folder.rglob(XML)}
    places = {each.parent if each.name.lower() == "annotations" else each for each in places}
    named = some(sorted(map(str, places)), 3)
    return f" There are some in {named}: name one folder, and another by --test." if places else ""


def _devkit(root: Path, years: Sequence[str]) -> Path:
    for candidate in (root, root / "VOCdevkit", root.parent):
        if all((candidate / year / "ImageSets" / "Main").is_dir() for year in years):
            return candidate
    raise UserError(
        f"{root}: no VOCdevkit with {' and '.join(years)} (each with ImageSets/Main, Annotations and JPEGImages). For "
        "a folder of your own without ImageSets use detection-folder."
    )


def _read_split(tree: Path, split: str) -> list[_Annotation | Problem]:
    return [_parse(tree / "Annotations" / f"{name}.xml", 1) for name in image_ids(tree, split)]


def _tree_files(tree: Path, split: str, read: Sequence[_Annotation | Problem], classes: tuple[str, ...]) -> BoxFiles:
    present = _images_by_stem(tree / "JPEGImages") if (tree / "JPEGImages").is_dir() else {}

    def find(annotation: _Annotation) -> Path | None:
        names = present.get(annotation.file.stem, [])
        return tree / "JPEGImages" / names[0] if names else None

    return _files(f"{tree.name.lower()}-{split}", tree.parent, read, classes, find)


def _files(
    name: str,
    root: Path,
    read: Sequence[_Annotation | Problem],
    classes: tuple[str, ...],
    find: Callable[[_Annotation], Path | None],
) -> BoxFiles:
    """The set of what was read; annotations without an image and objects of unknown classes become problems."""
    number = {each: label for label, each in enumerate(classes, 1)}
    images: list[BoxImage] = []
    problems: list[Problem] = []
    counts: list[int] = []
    objects: list[_Object] = []
    names: list[str] = []
    for annotation in read:
        if isinstance(annotation, Problem):
            problems.append(annotation)
            continue
        image = find(annotation)
        if image is None:
            found = f"names {annotation.image!r}" if annotation.image else "names no image"
            what = f"{found}, and there is none of its own name"
            problems.append(Problem(kind="annotation without image", where=str(annotation.file), what=what))
            continue
        kept = []
        for place, each in enumerate(annotation.objects, 1):
            where = f"{annotation.file}, object {place} ({each.name})"
            if each.name in number:
                kept.append(each)
                names.append(where)
            else:
                what = f"not among {some(classes)}"
                problems.append(Problem(kind="unknown class", where=where, what=what))
        objects += kept
        counts.append(len(kept))
        path = image.relative_to(root).as_posix()
        images.append(BoxImage(id=image.stem, path=path, file=image, width=annotation.width, height=annotation.height))
    boxes = np.array([each.corners for each in objects], np.float32).reshape(-1, 4)
    return BoxFiles(
        name=name,
        place=str(root),
        classes=classes,
        images=images,
        counts=np.array(counts, np.int64),
        objects=Objects(
            boxes=boxes,
            labels=np.array([number[each.name] for each in objects], np.int64),
            difficult=np.array([each.difficult for each in objects], bool),
            crowd=np.zeros(len(objects), bool),
            area=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            names=tuple(names),
        ),
        shapes=None,
        problems=problems,
    )


def _parse(file: Path, first_pixel: FirstPixel) -> _Annotation | Problem:
    """One annotation, or why it cannot be read."""
    try:
        root = ElementTree.parse(file).getroot()
        size = root.find("size")
        width, height = (int(float(size.findtext(key) or 0)) if size is not None else 0 for key in ("width", "height"))
        return _Annotation(
            file=file,
            image=(root.findtext("filename") or "").strip(),
            width=width,
            height=height,
            objects=tuple(_object(each, first_pixel) for each in root.findall("object")),
        )
    except FileNotFoundError:
        return Problem(kind="image without annotation", where=str(file), what="no such file")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        return Problem(kind="unreadable annotation", where=str(file), what=str(error))


def _object(each: ElementTree.Element, first_pixel: FirstPixel) -> _Object:
    name = (each.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    box = each.find("bndbox")
    texts = [box.findtext(key) if box is not None else None for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError as error:
        raise ValueError(f"{name}: bndbox needs xmin, ymin, xmax and ymax as numbers, not {texts}") from error
    return _Object(
        name=name,
        corners=(x1 - first_pixel, y1 - first_pixel, x2, y2),  # the last pixel ends where the next would begin
        difficult=(each.findtext("difficult") or "0").strip() == "1",
    )


def _class_names(read: Sequence[_Annotation | Problem]) -> tuple[str, ...]:
    found = {each.name for one in read if isinstance(one, _Annotation) for each in one.objects}
    return tuple(sorted(found))


def _images_by_stem(folder: Path) -> dict[str, list[str]]:
    present: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            present.setdefault(file.stem, []).append(file.name)
    return present


def _first_folder(folder: Path, names: Sequence[str], pattern: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    return next((folder / name for name in names if any((folder / name).glob(pattern))), folder)
