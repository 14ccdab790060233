"""Pascal VOC's XML: beside the images, in Annotations/, in the folders of splits, or by the lists of ImageSets/Main."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_text, read_xml
from simsiam.data.detection.formats.export import Export, Given, in_splits, tool_of
from simsiam.data.detection.voc import XML, open_voc_folder
from simsiam.data.find_images import ROLES, folders_in, role_of, visible
from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.errors import UserError


def find(given: Given) -> Export | None:
    """Any folder with VOC-XML."""
    root = given.place
    if not root.is_dir():
        return None
    read = partial(open_voc_folder, first_pixel=given.first_pixel, images=given.images)
    lists = _lists(root) if _holds(root) else {}
    if lists:
        parts = {name: partial(read, root, only=names) for name, names in lists.items()}
        return Export(words=f"{tool_of(root)}Pascal VOC XML with its own lists", parts=parts)
    places = in_splits(root, _holds)
    if set(places) <= {""}:  # or Annotations/train beside images/train
        places = next(
            (
                found
                for each in folders_in(root, ("annotations", "xml"))
                if "" not in (found := in_splits(each, _holds)) and found
            ),
            places,
        )
    if not places:
        return None
    return Export(
        words=f"{tool_of(root)}Pascal VOC XML", parts={name: partial(read, place) for name, place in places.items()}
    )


def _holds(folder: Path) -> bool:
    places = [*folders_in(folder, ("annotations",)), folder]
    first = next((file for place in places for file in visible(place.glob(XML))), None)
    if first is None:
        return False
    try:
        root = read_xml(first)
    except (UnreadableAnnotation, OSError):
        return True  # which its reader reports
    return root.tag == "annotation" or root.find("object") is not None


def _lists(root: Path) -> dict[str, list[str]]:
    """The names that each list of a split holds: of VOC's ImageSets/Main, or beside the folders of the set."""
    for place in (root / "ImageSets" / "Main", root / "ImageSets", root):
        if found := _lists_in(place):
            return found
    return {}


def _lists_in(place: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in visible(place.glob("*.txt")):
        if file.stem.lower() in ROLES:
            try:
                lines = [line.split() for line in read_text(file).splitlines() if line.strip()]
            except (UnreadableAnnotation, OSError) as error:
                raise UserError(f"{file}: no list of images: {error}.") from error
            if lines:
                found[file.stem] = [_name(words[0]) for words in lines]
    roles = {role_of(name) for name in found}
    if "train" in found and {"val", "test"} & roles:
        found.pop("trainval", None)
    elif "trainval" in found and "test" in found:
        found = {name: found[name] for name in ("trainval", "test")}
    return found if "train" in roles else {}


def _name(written: str) -> str:
    """Of an image, as a list writes it: `0001`, `0001.jpg`, or `JPEGImages/0001.jpg`."""
    last = written.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = last.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else last
