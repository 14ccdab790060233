"""Where the images of annotations lie: beside them, in images/ or JPEGImages/, a folder above, in any capitals."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.errors import UserError
from simsiam.wording import some

Role = Literal["train", "val", "test"]
_Found = TypeVar("_Found")

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "leftimg8bit", "img_dir", "data")
ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "label", "ann", "anns", "xml", "xmls", "json", "default")
MASK_FOLDERS = (
    *("masks", "mask", "segmentationclasspng", "segmentationclass", "labels", "annotations", "gt", "ann", "ann_dir"),
    *("label", "annot", "seg", "segmentation"),
)
MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_labelIds", "_L", ".mask")
MASK_BEGINNINGS = ("mask_", "masks_", "label_", "gt_")
MOST = 50  # folders that are looked into
ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of a file
_SPLIT = re.compile(rf"({'|'.join(ROLES)})[_-]?\d*")  # train, Val, train2017


def role_of(name: str) -> Role | None:
    """What a folder or file of a split is for, by its name: `valid`, `Val`, `instances_train2017`; None: no split."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((ROLES[word] for word in words if word in ROLES), None)


def visible(files: Iterable[Path]) -> list[Path]:
    """Sorted, without hidden files such as macOS's `._NAME`."""
    return sorted(file for file in files if not file.name.startswith("."))


def folders_in(folder: Path, names: Iterable[str] = IMAGE_FOLDERS) -> list[Path]:
    """The sub-folders with one of these names in any capitals, in the order of the names."""
    order = {name: place for place, name in enumerate(names)}
    found = [each for each in visible(folder.iterdir()) if each.name.lower() in order and each.is_dir()]
    return sorted(found, key=lambda each: order[each.name.lower()])


def split_folders(folder: Path) -> dict[str, Path]:
    """The sub-folders that are named as a split, by their names; the training set first, then what is scored."""
    with os.scandir(folder) as entries:  # which knows folders from files without a call for each of a million photos
        found = [(_SPLIT.fullmatch(each.name.lower()), folder / each.name) for each in entries if each.is_dir()]
    order = list(ROLES)
    named = [(order.index(match[1]), each) for match, each in found if match is not None]
    return {each.name: each for _, each in sorted(named)}


def images_by_stem(folder: Path, *, deep: bool = False) -> dict[str, list[Path]]:
    """Image files by their path below the folder without its suffix, sorted; several where suffixes alone differ."""
    found: dict[str, list[Path]] = {}
    for file in visible(folder.rglob("*") if deep else folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return found


def mask_partners(images: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """For each image the mask of its name: with an ending or a beginning of masks, and in other capitals if need be."""
    alike: dict[str, list[str]] = {}
    for key in images:
        alike.setdefault(key.casefold(), []).append(key)
    ranked: dict[str, tuple[int, str]] = {}
    for mask in masks:
        folder, slash, last = mask.rpartition("/")
        forms = [base for ending in MASK_ENDINGS if (base := mask_base(last, ending))]
        forms += [last.removeprefix(begin) for begin in MASK_BEGINNINGS if last.startswith(begin)]
        forms = list(dict.fromkeys(name for form in forms for name in (form, bare_name(form))))
        for rank, form in enumerate(forms):
            whole = folder + slash + form
            found = alike.get(whole.casefold(), [])
            if whole in found or len(found) == 1:
                key = whole if whole in found else found[0]
                ranked[key] = min(ranked.get(key, (rank, mask)), (rank, mask))
                break
    return {key: mask for key, (_, mask) in ranked.items()}


def mask_base(key: str, ending: str) -> str | None:
    """What is left of a mask's name without an ending; None where it has another."""
    return key.removesuffix(ending) if key.endswith(ending) else None


def split_lists(root: Path) -> dict[str, list[str]]:
    """The images in each list of a split, by the list's name: of VOC's ImageSets, or beside the set's folders.

    Names come without folders and suffixes. Empty without a list for training; raises UserError for what is no text.
    """
    sets = root / "ImageSets"
    for place in (sets / "Main", sets / "Segmentation", sets, root):
        files = [file for file in visible(place.glob("*.txt")) if file.stem.lower() in ROLES]
        found = {file.stem: names for file in files if (names := _listed(file))}
        roles = {role_of(name) for name in found}
        if "train" in found and roles & {"val", "test"}:
            found.pop("trainval", None)
        elif "trainval" in found and "test" in found:
            found = {name: found[name] for name in ("trainval", "test")}
        if "train" in roles:
            return found
    return {}


def _listed(file: Path) -> list[str]:
    try:
        lines = [line.split() for line in read_text(file).splitlines() if line.strip()]
    except (UnreadableAnnotation, OSError) as error:
        raise UserError(f"{file}: no list of images: {error}.") from error
    return [bare_name(words[0]) for words in lines]


def bare_name(written: str) -> str:
    """Of an image, as a list writes it: `0001`, `0001.jpg`, or `JPEGImages/0001.jpg`."""
    last = written.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = last.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else last


@dataclass(frozen=True, kw_only=True)
class Near(Generic[_Found]):
    """What was found in a place or next to it."""

    place: Path
    found: _Found
    below: str = ""  # the sub-folder that it lies in, for a message
    split: str = ""  # what was named is the folder of this split alone


def near(place: Path, look: Callable[[Path], _Found | None]) -> Near[_Found] | None:
    """What `look` finds in a place; or in its only folder with any; or above, where images/ or masks/ was named.

    Raises UserError where several folders of the place could be meant.
    """
    if (here := look(place)) is not None:
        return Near(place=place, found=here)
    if not place.is_dir():
        return None
    folders = [each for each in visible(place.iterdir())[:MOST] if each.is_dir()]
    known = [(each, found) for each in folders if (found := look(each)) is not None]
    if len(known) > 1:
        names = some([each.name for each, _ in known])
        raise UserError(f"{place}: annotations lie in several of its folders: {names}. Name one as --data.")
    if known:
        return Near(place=known[0][0], found=known[0][1], below=known[0][0].name)
    whole, kinds = place.resolve(), (*IMAGE_FOLDERS, *ANNOTATION_FOLDERS, *MASK_FOLDERS)
    split = whole.name.lower() if whole.name.lower() in ROLES and whole.parent.name.lower() in kinds else ""
    base = whole.parent if split else whole
    above = look(base.parent) if base.name.lower() in kinds else None
    return None if above is None else Near(place=base.parent, found=above, split=split)


class ImageFinder:
    """Finds the images that annotations name.

    Args:
        folders: looked through in this order, to any depth.
        around: a folder of annotations, whose usual places for images are looked through after those; of `role`, if
            the annotations are of one split, no folder of another split.
    """

    def __init__(self, folders: Sequence[Path] = (), *, around: Path | None = None, role: Role | None = None) -> None:
        self.folders = [*folders, *(_usual_places(around, role) if around is not None else ())]
        self._shallow = set(_levels(around)) - set(folders) if around is not None else set()

    @property
    def tried(self) -> str:
        """The folders, for a message."""
        return ", ".join(map(str, self.folders))

    def find(self, *names: str) -> Path | None:
        """The image of the first of these names that is there; None without one.

        A path counts as it is written, below any of the folders; else its last part does, in any capitals and with
        another image suffix, where only one file has that name. Web addresses, escapes such as %20 and the prefixes
        of Label Studio's uploads are understood.
        """
        written = list(dict.fromkeys(form for name in names if name and "\0" not in name for form in _forms(name)))
        for name in written:
            for folder in self.folders:
                if _is_file(folder / name) and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                    return Path(folder, name)
        for name in written:
            for index in self._indices:
                found: list[Path] = index.get(_key(name)) or index.get(_key(_stem(name))) or []
                if len(found) == 1:
                    return found[0]
        return None

    @cached_property
    def _indices(self) -> list[dict[str, list[Path]]]:
        """For each folder, its images by name and by stem; a name under which two lie finds none."""
        return [_index(folder, deep=folder not in self._shallow) for folder in self.folders]


def _usual_places(around: Path, role: Role | None) -> list[Path]:
    found: list[Path] = []
    for folder in _levels(around):
        found.append(folder)
        splits = [each for name, each in split_folders(folder).items() if role in (None, role_of(name))]
        named = folders_in(folder) + splits
        for each in named:
            of_role = [below for name, below in split_folders(each).items() if role_of(name) == role]
            found += [*of_role, each] if role is not None else [each]
    return list(dict.fromkeys(found))


def _levels(around: Path) -> list[Path]:
    """A folder of annotations and those above it up to the set's own: `set/annotations/train` is two below it."""
    levels = [around.resolve()]
    while levels[-1].name.lower() in (*ANNOTATION_FOLDERS, *ROLES) and len(levels) < 4:
        levels.append(levels[-1].parent)
    return [around, *levels[1:]]


def _index(folder: Path, *, deep: bool) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if deep and not each.startswith("."))
        for name in sorted(files):
            file = Path(base, name)
            if not name.startswith(".") and file.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(_key(name), []).append(file)
                found.setdefault(_key(file.stem), []).append(file)
    return found


def _forms(name: str) -> list[str]:
    """The file that a name may mean: as written, unescaped, and without what an upload puts before it."""
    plain = name.replace("\\", "/")
    bare = plain.split("?d=")[-1] if "?d=" in plain else urlsplit(plain).path if "://" in plain else plain
    bare = unquote(bare)
    folder, slash, last = bare.rpartition("/")
    return [plain, bare, folder + slash + _UPLOADED.sub("", last)]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if "." in name else name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.rsplit("/", 1)[-1]).casefold()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # names that no file can have
        return False
