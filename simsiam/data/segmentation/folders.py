"""Folders of images beside folders of masks, with a list of classes: one's own, and the exports of labelling tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.find_images import (
    IMAGE_FOLDERS,
    ROLES,
    ImageFinder,
    folders_in,
    images_by_stem,
    role_of,
    split_folders,
)
from simsiam.data.segmentation.class_list import CLASS_FILES, ClassList, find_class_file, read_classes
from simsiam.data.segmentation.masks import MaskSource, MaskSplits, Pair
from simsiam.errors import UserError
from simsiam.wording import counted

MASK_FOLDERS = ("masks", "mask", "segmentationclasspng", "segmentationclass", "labels", "annotations", "gt", "ann")
MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_labelIds", "_L", ".mask")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the images and the masks of one set lie."""

    images: Path
    masks: Path
    only: frozenset[str] | None = None  # names without suffix, where a list says which belong to the set


@dataclass(frozen=True, kw_only=True)
class MaskExport:
    """A tree of images and masks that a layout of the table below was recognised in."""

    words: str  # what it is, for a person
    splits: dict[str, Folders]  # by the name that the tree gives them; "": all in one
    classes: Path | None


def open_mask_folders(
    train: Folders, test: Folders | None, classes: Path, *, seed: int, notes: Sequence[str] = ()
) -> MaskSplits:
    """A set of training images and one to score, each a folder of images and one of masks.

    Args:
        test: None: a tenth of the training images is held out, by the seed and each image's name.
        classes: see `read_classes`.
        notes: of the layout that they were found in.

    A mask belongs to the image of the same name and sub-folder; `_mask`, `_label`, `_gt` and the like may follow.
    Images without a mask and masks without an image are left to the checks to report. Raises UserError where a
    folder is missing or empty.
    """
    listed = read_classes(classes)
    source = _source(train, listed)
    if test is not None:
        return MaskSplits(train=source, test=_source(test, listed), notes=tuple(notes))
    from simsiam.data.source import split_held_out

    parts = split_held_out(source, images=max(2, len(source) // 10), seed=seed)
    assert isinstance(parts.train, MaskSource)
    assert isinstance(parts.held_out, MaskSource)
    note = f"{len(parts.held_out)} of {counted(len(source), 'image')} held out to be scored on, drawn by seed {seed}."
    return MaskSplits(train=parts.train, test=parts.held_out, notes=(*notes, note))


def open_mask_tree(root: Path, classes: Path | None, *, seed: int) -> MaskSplits:
    """The set in a tree of any layout that `recognise` knows; its own split is used and named.

    Raises UserError where no layout is recognised, with what was looked for.
    """
    found = recognise(root)
    listed = classes or found.classes or root / CLASS_FILES[0]
    by_role = {role_of(name): name for name in reversed(found.splits)}
    train = found.splits[by_role.get("train", next(iter(found.splits)))]
    scored = by_role.get("val", by_role.get("test")) if "train" in by_role else None
    if scored is None:
        return open_mask_folders(train, None, listed, seed=seed, notes=[f"{root}: {found.words}."])
    note = f"{root}: {found.words}: trained on {by_role['train']} and scored on {scored}, its own split"
    unused = [name for name in found.splits if name not in (by_role["train"], scored)]
    note += f"; {', '.join(unused)} is not used" if unused else ""
    return open_mask_folders(train, found.splits[scored], listed, seed=seed, notes=[f"{note}."])


def recognise(root: Path) -> MaskExport:
    """The layout of a tree of images and masks; raises UserError where there is none of the table."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder.")
    for layout in LAYOUTS:
        if (found := layout(root)) is not None:
            folders = [folder for each in found.splits.values() for folder in (each.masks, each.masks.parent)]
            return found if found.classes else replace(found, classes=find_class_file(root, *folders))
    raise UserError(
        f"{root}: no images with masks recognised in it. Looked for images/ and masks/ (each with train/ and val/, or "
        "in train/ and val/ themselves), JPEGImages/ and SegmentationClass/ (CVAT, labelme, VOC), and NAME_mask.png "
        "beside the images with _classes.csv (Roboflow). Name the folders by --train-images and --train-masks."
    )


def _kind_first(root: Path) -> MaskExport | None:
    """images/train beside masks/train, and so on; or images/ and masks/ without splits."""
    pair = _pair(root)
    if pair is None:
        return None
    images, masks = (
        {name.lower(): (name, each) for name, each in split_folders(f).items()} for f in (pair.images, pair.masks)
    )
    splits = {images[key][0]: Folders(images=images[key][1], masks=masks[key][1]) for key in images if key in masks}
    return MaskExport(words="images and masks", splits=splits or {"": pair}, classes=None)


def _split_first(root: Path) -> MaskExport | None:
    """train/images beside train/masks, and so on."""
    splits = {name: pair for name, each in split_folders(root).items() if (pair := _pair(each)) is not None}
    return MaskExport(words="images and masks", splits=splits, classes=None) if splits else None


def _voc_like(root: Path) -> MaskExport | None:
    """CVAT's "Segmentation mask", labelme's VOC export and VOC's own tree: SegmentationClass with its images."""
    masks = next(iter(folders_in(root, ("segmentationclasspng", "segmentationclass"))), None)
    if masks is None:
        return None
    finder = ImageFinder(around=root)
    stems = images_by_stem(masks, deep=True)
    images = next((found.parent for stem in stems if (found := finder.find(stem)) and found.parent != masks), None)
    if images is None:
        raise UserError(
            f"{masks}: no image of these masks was found; looked in {finder.tried}. Put them in JPEGImages/."
        )
    whole = Folders(images=images, masks=masks, only=frozenset(stems))
    splits = {}
    for file in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        if file.stem.lower() in ROLES:
            try:
                listed = frozenset(read_text(file).split())
            except (UnreadableAnnotation, OSError) as error:
                raise UserError(f"{file}: no list of images: {error}.") from error
            splits[file.stem] = replace(whole, only=listed)
    cvat = (root / "labelmap.txt").is_file()
    words = "CVAT segmentation masks" if cvat else "masks in VOC's layout"
    return MaskExport(words=words, splits=splits or {"": whole}, classes=None)


def _roboflow(root: Path) -> MaskExport | None:
    """NAME_mask.png beside NAME.jpg, with _classes.csv, in train/, valid/ and test/."""
    places = {name: each for name, each in split_folders(root).items() if (each / "_classes.csv").is_file()}
    if not places and (root / "_classes.csv").is_file():
        places = {"": root}
    if not places:
        return None
    splits = {name: Folders(images=each, masks=each) for name, each in places.items()}
    return MaskExport(
        words="Roboflow semantic masks", splits=splits, classes=next(iter(places.values())) / "_classes.csv"
    )


LAYOUTS: tuple[Callable[[Path], MaskExport | None], ...] = (_roboflow, _voc_like, _kind_first, _split_first)


def _pair(root: Path) -> Folders | None:
    images, masks = folders_in(root, IMAGE_FOLDERS), folders_in(root, MASK_FOLDERS)
    return Folders(images=images[0], masks=masks[0]) if images and masks else None


def _source(folders: Folders, listed: ClassList) -> MaskSource:
    images, masks, unmatched = _files(folders)
    pairs, taken = [], set()
    for key, image in images.items():
        named = next((masks[key + ending] for ending in MASK_ENDINGS if key + ending in masks), None)
        taken.add(named)
        missing = folders.masks / f"{key}.png"
        pairs.append(Pair(name=str(image.relative_to(folders.images)), image=image, mask=named or missing))
    unmatched += [
        f"{mask}: a mask without an image in {folders.images}" for mask in masks.values() if mask not in taken
    ]
    return MaskSource(
        pairs,
        name=_set_name(folders.images.resolve()),
        classes=listed.names,
        coding=listed.coding,
        unmatched=tuple(unmatched),
    )


def _set_name(images: Path) -> str:
    """The nearest folder's name that says more than `images` or `train`."""
    general = (*IMAGE_FOLDERS, *ROLES)
    return next((each.name for each in (images, *images.parents) if each.name.lower() not in general), images.name)


def _files(folders: Folders) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Images and masks by their path without suffix, and a line for each two files of one name."""
    for folder in (folders.images, folders.masks):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder.")
    of_images, of_masks = images_by_stem(folders.images, deep=True), images_by_stem(folders.masks, deep=True)
    if folders.images == folders.masks:
        ends = [ending for ending in MASK_ENDINGS if ending]
        of_masks = {key: files for key, files in of_images.items() if any(_base(key, end) in of_images for end in ends)}
        of_images = {key: files for key, files in of_images.items() if key not in of_masks}
    if folders.only is not None:
        of_images = {key: files for key, files in of_images.items() if key in folders.only}
        of_masks = {key: files for key, files in of_masks.items() if key in folders.only}
    for folder, found in ((folders.images, of_images), (folders.masks, of_masks)):
        if not found:
            raise UserError(f"{folder}: no image in it or below it.")
    twins = [
        f"{', '.join(map(str, files))}: {counted(len(files), 'file')} of one name; keep the one that is meant"
        for files in (*of_images.values(), *of_masks.values())
        if len(files) > 1
    ]
    first = ({key: files[0] for key, files in found.items()} for found in (of_images, of_masks))
    return next(first), next(first), twins


def _base(key: str, ending: str) -> str | None:
    return key.removesuffix(ending) if key.endswith(ending) else None
