"""Folders of images beside folders of masks, with a list of classes: one's own, and the exports of labelling tools."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from simsiam.data.find_images import (
    IMAGE_FOLDERS,
    MASK_ENDINGS,
    MASK_FOLDERS,
    ROLES,
    ImageFinder,
    bare_name,
    folders_in,
    images_by_stem,
    mask_base,
    mask_partners,
    near,
    role_of,
    split_folders,
    split_lists,
    visible,
)
from simsiam.data.images import is_image
from simsiam.data.inventory import beside
from simsiam.data.segmentation.class_list import CLASS_FILES, ClassList, find_class_file, read_classes
from simsiam.data.segmentation.masks import MaskSource, MaskSplits, Pair
from simsiam.errors import UserError
from simsiam.wording import counted

TEXTS = (".txt", ".csv", ".json", ".xml", ".yaml", ".md", ".npy")  # files beside images that have their use


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the images and the masks of one set lie."""

    images: Path
    masks: Path
    only: frozenset[str] | None = None  # names without folder and suffix, where a list says which belong to the set


@dataclass(frozen=True, kw_only=True)
class MaskExport:
    """A tree of images and masks that a layout of the table below was recognised in."""

    words: str  # what it is, for a person
    splits: dict[str, Folders]  # by the name that the tree gives them; "": all in one
    classes: Path | None


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
    from simsiam.data.splits import split_held_out

    parts = split_held_out(source, images=max(2, len(source) // 10), seed=seed)
    assert isinstance(parts.train, MaskSource)
    assert isinstance(parts.held_out, MaskSource)
    note = f"{len(parts.held_out)} of {counted(len(source), 'image')} held out to be scored on, drawn by seed {seed}."
    return MaskSplits(train=parts.train, test=parts.held_out, notes=(note,))


def open_mask_tree(root: Path, classes: Path | None, *, seed: int) -> MaskSplits:
    """The set in a tree of any layout that `recognise` knows; its own split is used and named.

    Raises UserError where no layout is recognised, with what was looked for.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder.")
    where = near(root, recognise)
    if where is None:
        raise UserError(
            f"{root}: no images with masks recognised in it. Looked for images/ and masks/ (each with train/ and val/, "
            "in train/ and val/ themselves, or as train/ and train_masks/), JPEGImages/ and SegmentationClass/ (CVAT, "
            "labelme, VOC), and NAME_mask.png beside the images (Roboflow). Name the folders by --train-images and "
            f"--train-masks.{_boxes_instead(root)}"
        )
    found, words = where.found, where.found.words + (f" in {where.below}/" if where.below else "")
    listed = classes or found.classes or root / CLASS_FILES[0]
    by_role = {role_of(name): name for name in reversed(found.splits)}
    train = found.splits[by_role.get("train", next(iter(found.splits)))]
    scored = by_role.get("val", by_role.get("test")) if "train" in by_role else None
    splits = open_mask_folders(train, found.splits[scored] if scored else None, listed, seed=seed)
    classes_read = counted(len(splits.train.classes), "class", "classes")
    if scored is None:
        whole = counted(len(splits.train) + len(splits.test), "image")
        return replace(splits, notes=(f"{root}: {words}: {whole}, {classes_read}.", *splits.notes))
    sizes = {by_role["train"]: len(splits.train), scored: len(splits.test)}
    unused = [name for name in found.splits if name not in sizes]
    sizes |= {name: len(_files(found.splits[name]).images) for name in unused}
    counts = ", ".join(f"{name} {sizes[name]:,}" for name in found.splits)
    note = f"Trained on {by_role['train']} and scored on {scored}, its own split"
    note += f"; {', '.join(unused)} is not used" if unused else ""
    return replace(splits, notes=(f"{root}: {words}: {counts} images, {classes_read}. {note}.",))


def recognise(root: Path) -> MaskExport | None:
    """The layout of a tree of images and masks; None where it is none of the table."""
    for layout in LAYOUTS:
        if (found := layout(root)) is not None:
            folders = [folder for each in found.splits.values() for folder in (each.masks, each.masks.parent)]
            return found if found.classes else replace(found, classes=find_class_file(root, *folders))
    return None


def _boxes_instead(root: Path) -> str:
    """A sentence on annotations of another kind that lie there, or nothing."""
    from simsiam.data.detection.formats import recognise as recognise_boxes

    try:
        return f" It holds {recognise_boxes(root).words}: `simsiam evaluate detection-folder` learns from those."
    except UserError:
        return ""


def _kind_first(root: Path) -> MaskExport | None:
    """images/train beside masks/train, and so on; or images/ and masks/ without splits."""
    pair = _pair(root)
    if pair is None:
        return None
    images, masks = split_folders(pair.images), split_folders(pair.masks)
    splits = {}
    for name, folder in images.items():
        partner = next((each for other, each in masks.items() if other.lower() == name.lower()), None)
        partner = partner or next((each for other, each in masks.items() if role_of(other) == role_of(name)), None)
        if partner is not None or not masks:  # masks of all splits may lie together
            stems = None if partner else frozenset(bare_name(key) for key in images_by_stem(folder, deep=True))
            splits[name] = Folders(images=folder, masks=partner or pair.masks, only=stems)
    if not splits:
        lists = split_lists(root)
        splits = {name: replace(pair, only=frozenset(names)) for name, names in lists.items()}
    return MaskExport(words="images and masks", splits=splits or {"": pair}, classes=None)


def _side_by_side(root: Path) -> MaskExport | None:
    """train/ beside train_masks/ or trainannot/, or train_images/ beside train_masks/, and so on."""
    splits: dict[str, dict[str, Path]] = {}
    for folder in (each for each in visible(root.iterdir()) if each.is_dir()):
        named = re.fullmatch(rf"({'|'.join(ROLES)})[_-]?([a-z_]*)", folder.name.lower())
        if named is not None:
            kind = "masks" if named[2] in MASK_FOLDERS else "images" if named[2] in ("", *IMAGE_FOLDERS) else named[2]
            splits.setdefault(named[1], {})[kind] = folder
    pairs = {
        name: Folders(images=each["images"], masks=each["masks"])
        for name, each in splits.items()
        if {"images", "masks"} <= each.keys()
    }
    ordered = {name: pairs[name] for name in ROLES if name in pairs}
    return MaskExport(words="images and masks", splits=ordered, classes=None) if ordered else None


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
    splits = {name: replace(whole, only=frozenset(names)) for name, names in split_lists(root).items()}
    cvat = (root / "labelmap.txt").is_file()
    words = "CVAT segmentation masks" if cvat else "masks in VOC's layout"
    return MaskExport(words=words, splits=splits or {"": whole}, classes=None)


def _beside(root: Path) -> MaskExport | None:
    """NAME_mask.png beside NAME.jpg, in train/, valid/ and test/ or all in one; Roboflow adds _classes.csv."""
    places = {name: each for name, each in split_folders(root).items() if _mask_ends(each)}
    if not places and _mask_ends(root):
        places = {"": root}
    if not places:
        return None
    splits = {name: Folders(images=each, masks=each) for name, each in places.items()}
    classes = next(iter(places.values())) / "_classes.csv"
    roboflow = classes.is_file()
    words = "Roboflow semantic masks" if roboflow else "masks beside their images"
    return MaskExport(words=words, splits=splits, classes=classes if roboflow else None)


def _mask_ends(folder: Path) -> bool:
    """Whether an image of the folder has a mask beside it, by their names."""
    stems = images_by_stem(folder)
    return any(mask_base(stem, ending) in stems for stem in stems for ending in MASK_ENDINGS if ending)


LAYOUTS: tuple[Callable[[Path], MaskExport | None], ...] = (
    _voc_like,
    _kind_first,
    _split_first,
    _side_by_side,
    _beside,
)


def _pair(root: Path) -> Folders | None:
    images, masks = folders_in(root, IMAGE_FOLDERS), folders_in(root, MASK_FOLDERS)
    masks = [folder for folder in masks if any(is_image(file.name) for file in folder.rglob("*"))]
    return Folders(images=images[0], masks=masks[0]) if images and masks else None


def _source(folders: Folders, listed: ClassList) -> MaskSource:
    found = _files(folders)
    pairs = [
        Pair(
            name=str(image.relative_to(folders.images)),
            image=image,
            mask=found.masks.get(key) or folders.masks / f"{key}.png",
        )
        for key, image in found.images.items()
    ]
    return MaskSource(
        pairs,
        name=_set_name(folders.images.resolve()),
        classes=listed.names,
        coding=listed.coding,
        unmatched=found.unmatched,
        twins=found.twins,
        left_out=beside([*found.images.values(), *found.masks.values(), *found.others], annotations=TEXTS),
    )


def _set_name(images: Path) -> str:
    """The nearest folder's name that says more than `images` or `train`."""
    general = (*IMAGE_FOLDERS, *ROLES)
    return next((each.name for each in (images, *images.parents) if each.name.lower() not in general), images.name)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What lies in the folders of a set."""

    images: dict[str, Path]  # by their path below the folder without its suffix
    masks: dict[str, Path]  # by the same path of their image
    others: tuple[Path, ...]  # all images and masks of the folders, those of other splits too
    unmatched: tuple[str, ...]  # a line for each mask alone and each image that is listed and missing
    twins: tuple[str, ...]  # a line for each two files of one name


def _files(folders: Folders) -> _Files:
    for folder in (folders.images, folders.masks):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder.")
    images, masks = images_by_stem(folders.images, deep=True), images_by_stem(folders.masks, deep=True)
    if folders.images == folders.masks:
        ends = [ending for ending in MASK_ENDINGS if ending]
        masks = {key: files for key, files in images.items() if any(mask_base(key, end) in images for end in ends)}
        images = {key: files for key, files in images.items() if key not in masks}
    lines: list[str] = []
    others = [file for files in (*images.values(), *masks.values()) for file in files]
    if folders.only is not None:
        lost = folders.only - {bare_name(key) for key in images}
        lines += [f"{name}: listed, and not in {folders.images}" for name in sorted(lost)]
        images = {key: files for key, files in images.items() if bare_name(key) in folders.only}
    for folder, found in ((folders.images, images), (folders.masks, masks)):
        if not found:
            raise UserError(f"{folder}: no image in it or below it.")
    partners = mask_partners(images, masks)
    matched = {key: masks[mask] for key, mask in partners.items()}
    twins = [files for files in (*images.values(), *matched.values()) if len(files) > 1]
    if folders.only is None:
        alone = sorted(masks.keys() - partners.values())
        lines += [f"{masks[key][0]}: a mask without an image in {folders.images}" for key in alone]
    return _Files(
        images={key: files[0] for key, files in images.items()},
        masks={key: files[0] for key, files in matched.items()},
        others=tuple(others),
        unmatched=tuple(lines),
        twins=tuple(
            f"{', '.join(map(str, files))}: {counted(len(files), 'file')} of one name; keep the one that is meant"
            for files in twins
        ),
    )
