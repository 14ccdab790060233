"""Boxes in VOC's XML: the published VOC07 and VOC07+12 splits, and any folder that a labelling tool has written."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simsiam.data.annotations import UnreadableAnnotation, flag, read_xml
from simsiam.data.class_names import class_name
from simsiam.data.classification.voc import image_ids
from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Problem, joined
from simsiam.data.detection.records import Item, Record, assembled
from simsiam.data.find_images import IMAGE_FOLDERS, ImageFinder, folders_in, images_by_stem, role_of, visible
from simsiam.errors import UserError
from simsiam.wording import some

FirstPixel = Literal[0, 1]
XML = "*.[xX][mM][lL]"


@dataclass(frozen=True, kw_only=True)
class BoxSplits:
    """What is learnt from and what is scored."""

    train: BoxFiles
    test: BoxFiles


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    file: Path
    image: str  # the file name that it gives, or ""
    width: int  # 0: not said
    height: int
    objects: tuple[Item, ...]


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
    folder: Path | str,
    classes: Sequence[str] | None = None,
    *,
    first_pixel: FirstPixel = 0,
    images: Path | None = None,
    only: Sequence[str] | None = None,
) -> BoxFiles:
    """Any folder of images with VOC-XML annotations; no lists of images are needed.

    Args:
        folder: holds the XML files, or Annotations with them; the images lie beside them or in one of the usual places.
        classes: the names that count; None: all that occur, sorted. Give a test set the training set's.
        first_pixel: how the tool counts pixels: from 0, as most do, or from 1 and with the last pixel named, as VOC.
        images: the folder of the images, where they lie elsewhere.
        only: the names, without suffix, of the annotations that count; one that is not there is a problem.

    Raises UserError where there is no XML file at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    annotations = next((each for each in folders_in(folder, ("annotations",)) if any(each.glob(XML))), folder)
    files = visible(annotations.glob(XML))
    if not files:
        raise UserError(f"{folder}: no VOC-XML annotation (*.xml) in it or in its Annotations folder.{_deeper(folder)}")
    finder = ImageFinder([images] if images else [], around=annotations, role=role_of(folder.name))
    beside = images or next(iter(folders_in(folder, ("jpegimages", *IMAGE_FOLDERS))), folder)
    present = images_by_stem(beside)
    wanted = None if only is None else set(only)
    read = [_parse(file, first_pixel) for file in files if wanted is None or file.stem in wanted]
    annotated = {file.stem for file in files}
    named = {one.image for one in read if isinstance(one, _Annotation)}
    bare = [
        Problem(kind="image without annotation", where=str(file), what=f"no {stem}.xml in {annotations}")
        for stem, twins in (present if wanted is None else {}).items()
        if stem not in annotated
        for file in twins
        if file.name not in named
    ]
    lost = [name for name in dict.fromkeys(only or ()) if name not in annotated]
    bare += [
        Problem(kind="image without annotation", where=name, what=f"listed, and not in {annotations}") for name in lost
    ]

    def find(annotation: _Annotation) -> Path | None:
        twins = present.get(annotation.file.stem) or []
        best = next((file for file in twins if file.name == annotation.image), None)
        return best or next(iter(twins), None) or finder.find(annotation.image, annotation.file.stem)

    return _files(folder.resolve().name, folder, read, classes, find, problems=bare, tried=finder.tried)


def _deeper(folder: Path) -> str:
    """Where annotations lie that were looked for in `folder`, as a hint."""
    places = {file.parent for file in visible(folder.rglob(XML))}
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
    present = images_by_stem(tree / "JPEGImages") if (tree / "JPEGImages").is_dir() else {}

    def find(annotation: _Annotation) -> Path | None:
        return next(iter(present.get(annotation.file.stem, [])), None)

    return _files(f"{tree.name.lower()}-{split}", tree.parent, read, classes, find)


def _files(
    name: str,
    root: Path,
    read: Sequence[_Annotation | Problem],
    classes: Sequence[str] | None,
    find: Callable[[_Annotation], Path | None],
    *,
    problems: Iterable[Problem] = (),
    tried: str = "",
) -> BoxFiles:
    """The set of what was read; annotations without an image become problems."""
    records: list[Record] = []
    bad: list[Problem] = []
    for annotation in read:
        if isinstance(annotation, Problem):
            bad.append(annotation)
        elif (image := find(annotation)) is None:
            found = f"names {annotation.image!r}" if annotation.image else "names no image"
            what = f"{found}, and there is none of its own name" + (f"; looked in {tried}" if tried else "")
            bad.append(Problem(kind="annotation without image", where=str(annotation.file), what=what))
        else:
            path = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
            width, height = annotation.width, annotation.height
            shown = BoxImage(id=image.stem, path=path, file=image, width=width, height=height)
            records.append(Record(image=shown, items=annotation.objects))
    return assembled(records, name=name, place=str(root), classes=classes, problems=[*bad, *problems])


def _parse(file: Path, first_pixel: FirstPixel) -> _Annotation | Problem:
    """One annotation, or why it cannot be read."""
    try:
        root = read_xml(file)
        size = root.find("size")
        width, height = (int(float(size.findtext(key) or 0)) if size is not None else 0 for key in ("width", "height"))
        return _Annotation(
            file=file,
            image=(root.findtext("filename") or "").strip(),
            width=width,
            height=height,
            objects=tuple(_object(file, n, each, first_pixel) for n, each in enumerate(root.findall("object"), 1)),
        )
    except FileNotFoundError:
        return Problem(kind="image without annotation", where=str(file), what="no such file")
    except (UnreadableAnnotation, ValueError, OverflowError, OSError) as error:
        return Problem(kind="unreadable annotation", where=str(file), what=str(error))


def _object(file: Path, number: int, each: ElementTree.Element, first_pixel: FirstPixel) -> Item:
    name = each.findtext("name") or ""
    if not name.strip():
        raise ValueError("an object without a name")
    box = each.find("bndbox")
    texts = [box.findtext(key) if box is not None else None for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError as error:
        raise ValueError(f"{name.strip()}: bndbox needs xmin, ymin, xmax and ymax as numbers, not {texts}") from error
    return Item(
        name=name,
        box=(x1 - first_pixel, y1 - first_pixel, x2, y2),  # the last pixel ends where the next would begin
        where=f"{file}, object {number} ({name.strip()})",
        difficult=flag(each.findtext("difficult")),
    )


def _class_names(read: Sequence[_Annotation | Problem]) -> tuple[str, ...]:
    return tuple(
        sorted({class_name(each.name) for one in read if isinstance(one, _Annotation) for each in one.objects})
    )
