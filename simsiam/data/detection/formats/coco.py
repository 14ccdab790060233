"""COCO's json: one file for each split, in the set's folder, in annotations/, or beside the images as Roboflow does."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from simsiam.data.annotations import UnreadableAnnotation, read_text
from simsiam.data.detection.coco import open_coco
from simsiam.data.detection.formats.export import Export, Given, tool_of
from simsiam.data.find_images import ANNOTATION_FOLDERS, folders_in, role_of, split_folders, visible
from simsiam.errors import UserError

_KEYS = re.compile(r'"(\w+)"\s*:')
HEAD = 4000  # letters


def find(given: Given) -> Export | None:
    """Every json of COCO's form, by the split that its name or its folder has."""
    root = given.place
    if root.is_file():
        if root.suffix.lower() != ".json" or not _is_coco(root, whole=True):
            return None
        return Export(words="COCO json", parts={"": partial(open_coco, root, given.images)})
    places = [root, *folders_in(root, ANNOTATION_FOLDERS), *split_folders(root).values()]
    files = [file for place in places for file in visible(place.glob("*.[jJ][sS][oO][nN]")) if _is_coco(file)]
    instances = [file for file in files if "instance" in file.name.lower()]
    files = instances or files
    if not files:
        return None
    named: dict[str, Path] = {}
    for file in files:
        own = file.parent.name if role_of(file.parent.name) and file.parent != root else file.stem
        name = own if role_of(own) else "" if len(files) == 1 else own
        if name in named or (len(files) > 1 and role_of(own) is None):
            listed = ", ".join(str(each.relative_to(root)) for each in files)
            raise UserError(f"{root}: which of {listed} is to be read? Name one as --data, and another as --test.")
        named[name] = file
    return Export(
        words=_words(root, files), parts={name: partial(open_coco, file, given.images) for name, file in named.items()}
    )


def _words(root: Path, files: list[Path]) -> str:
    names = {file.name.lower() for file in files}
    if names == {"_annotations.coco.json"} or tool_of(root) == "Roboflow ":
        return "Roboflow COCO export"
    if "instances_default.json" in names:
        return "CVAT COCO export"
    return "Label Studio COCO export" if names == {"result.json"} else "COCO annotations"


def _is_coco(file: Path, *, whole: bool = False) -> bool:
    """Whether a json is of COCO's form, by the keys that it begins with; one that a person named may lack them."""
    if file.name.lower() == "notes.json":  # Label Studio's list of classes beside YOLO's labels
        return False
    try:
        head = read_text(file)[:HEAD]
    except (UnreadableAnnotation, OSError):
        return whole
    if head.lstrip().startswith("["):  # a list of tasks or of detections
        return False
    keys = set(_KEYS.findall(head))
    if {"shapes", "regions"} & keys or "_via_" in head:
        return False
    return whole or bool({"images", "annotations"} & keys) or len({"categories", "info", "licenses"} & keys) > 1
