"""Pascal VOC's XML: beside the images, in Annotations/, in the folders of splits, or by the lists of ImageSets/Main."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_xml
from simsiam.data.detection.formats.export import Export, Given, in_splits, tool_of
from simsiam.data.detection.voc import XML, open_voc_folder
from simsiam.data.find_images import folders_in, split_lists, visible


def find(given: Given) -> Export | None:
    """Any folder with VOC-XML."""
    root = given.place
    if not root.is_dir():
        return None
    read = partial(open_voc_folder, first_pixel=given.first_pixel, images=given.images)
    lists = split_lists(root) if _holds(root) else {}
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
