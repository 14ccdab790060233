"""What a trained model says of images, and the files in which other programs take it: COCO, YOLO, CSV, masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simsiam.results import write_atomic, write_json

if TYPE_CHECKING:  # `--help` loads no torch
    import numpy as np

    from simsiam.data.detection.boxes import Prediction
    from simsiam.data.detection.instance_masks import Rle

Form = Literal["pictures", "json", "coco", "yolo", "csv", "masks"]
_ONCE: dict[Form, tuple[str, ...]] = {  # written once, for all images
    "json": ("predictions.json",),
    "coco": ("coco.json",),
    "yolo": ("labels/classes.txt",),
    "csv": ("predictions.csv",),
    "masks": ("classes.txt",),
}
FEWEST_POINTS = 3  # of an outline


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object, the pixels of a class, or the class of a whole image."""

    label: int  # place in the model's classes, from 0
    score: float | None = None  # 0 to 1; None for pixels
    box: tuple[float, float, float, float] | None = None  # x1 y1 x2 y2, pixels
    mask: Rle | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model says of one image, the surest first."""

    file: Path
    name: str  # of the image's results, without a suffix
    width: int  # pixels
    height: int
    things: tuple[Thing, ...]


def objects_of(prediction: Prediction, threshold: float) -> tuple[Thing, ...]:
    """Detections of a score of `threshold` or more."""
    found = []
    for row, score in enumerate(prediction.scores.tolist()):
        if score < threshold:
            continue
        x1, y1, x2, y2 = (round(value, 2) for value in prediction.boxes[row].tolist())
        mask = None if prediction.masks is None else prediction.masks[row]
        label = int(prediction.labels[row]) - 1
        found.append(Thing(label=label, score=round(score, 4), box=(x1, y1, x2, y2), mask=mask))
    return tuple(found)


def regions_of(mask: np.ndarray, left_out: Sequence[int]) -> tuple[Thing, ...]:
    """The classes of H x W ids but for some, each as one mask with the box around it."""
    import numpy as np

    from simsiam.data.detection.instance_masks import encode

    found = []
    for label in sorted({*np.unique(mask).tolist()} - {*left_out}):
        (pixels,) = encode((mask == label)[None])
        found.append(Thing(label=label, box=pixels.extent, mask=pixels))
    return tuple(found)


def files_of(forms: Sequence[Form], names: Sequence[str], suffix: str) -> list[str]:
    """All that is written, relative to the output folder; `suffix` is that of the pictures."""
    each = {"pictures": f"{{}}{suffix}", "yolo": "labels/{}.txt", "masks": "masks/{}.png"}
    once = [file for form in forms for file in _ONCE.get(form, ())]
    return once + [each[form].format(name) for form in forms if form in each for name in names]


def write(form: Form, seen: Sequence[Seen], classes: Sequence[str], out: Path) -> None:
    """Write one of the forms that hold all images' results; pictures and masks are written image by image."""
    if form == "json":
        write_json(out / "predictions.json", [_as_json(each, classes) for each in seen])
    elif form == "coco":
        write_json(out / "coco.json", as_coco(seen, classes))
    elif form == "csv":
        write_atomic(out / "predictions.csv", as_csv(seen, classes).encode("utf-8", "surrogateescape"))
    elif form == "yolo":
        write_atomic(out / "labels" / "classes.txt", "".join(f"{name}\n" for name in classes))
        for each in seen:
            write_atomic(out / "labels" / f"{each.name}.txt", as_yolo(each))


def _as_json(seen: Seen, classes: Sequence[str]) -> dict[str, Any]:
    """An image's results; a mask as COCO's compressed run lengths."""
    objects = []
    for thing in seen.things:
        facts: dict[str, Any] = {"class": classes[thing.label]}
        facts |= {} if thing.score is None else {"score": thing.score}
        facts |= {} if thing.box is None else {"box": list(thing.box)}
        objects.append(facts | ({} if thing.mask is None else {"mask": _runs(thing.mask)}))
    return {"image": str(seen.file), "width": seen.width, "height": seen.height, "objects": objects}


def as_coco(seen: Sequence[Seen], classes: Sequence[str]) -> dict[str, Any]:
    """A COCO data set with scores; ids count from 1. A labelling tool takes it as a first draft."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(seen, 1):
        for thing in image.things:
            x1, y1, x2, y2 = thing.box or (0.0, 0.0, 0.0, 0.0)
            entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": thing.label + 1}
            entry |= {
                "iscrowd": 0,
                "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                "area": round((x2 - x1) * (y2 - y1), 2),
            }
            entry |= {} if thing.score is None else {"score": thing.score}
            if thing.mask is not None:
                entry |= {"segmentation": _runs(thing.mask), "area": int(thing.mask.decode().sum())}
            annotations.append(entry)
    sizes = [{"id": n, "file_name": s.file.name, "width": s.width, "height": s.height} for n, s in enumerate(seen, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return {"info": {}, "images": sizes, "annotations": annotations, "categories": categories}


def as_yolo(seen: Seen) -> str:
    """A line for each object: class from 0, then centre and size, or where there is a mask its outlines."""
    lines = []
    for thing in seen.things:
        if thing.mask is not None:
            for outline in outlines(thing.mask):
                numbers = (outline / [seen.width, seen.height]).reshape(-1).tolist()
                lines.append([thing.label, *numbers])
        elif thing.box is not None:
            x1, y1, x2, y2 = thing.box
            centre = [(x1 + x2) / 2 / seen.width, (y1 + y2) / 2 / seen.height]
            lines.append([thing.label, *centre, (x2 - x1) / seen.width, (y2 - y1) / seen.height])
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in numbers)}\n" for label, *numbers in lines)


def outlines(mask: Rle) -> list[np.ndarray]:
    """The outer edges of a mask's connected parts, each K x 2 (x, y) in pixels; holes are filled."""
    import cv2
    import numpy as np

    found, _ = cv2.findContours(mask.decode().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [part.reshape(-1, 2) + 0.5 for part in found if len(part) >= FEWEST_POINTS]


def as_csv(seen: Sequence[Seen], classes: Sequence[str]) -> str:
    """A row for each object or class; an image in which nothing was found has a row without one."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "class", "score", "x1", "y1", "x2", "y2", "pixels"])
    for each in seen:
        for thing in each.things:
            pixels = "" if thing.mask is None else int(thing.mask.decode().sum())
            score = "" if thing.score is None else thing.score
            rows.writerow([each.file, classes[thing.label], score, *(thing.box or [""] * 4), pixels])
        if not each.things:
            rows.writerow([each.file, *[""] * 7])
    return text.getvalue()


def painted(seen: Seen) -> np.ndarray:
    """The objects' masks as ids, H x W uint8: 0 is none, label k is k + 1; the surest lie on top."""
    import numpy as np

    ids = np.zeros((seen.height, seen.width), np.uint8)
    for thing in reversed(seen.things):
        if thing.mask is not None:
            ids[thing.mask.decode()] = thing.label + 1
    return ids


def _runs(mask: Rle) -> dict[str, Any]:
    return {"size": [mask.height, mask.width], "counts": mask.counts.decode("ascii")}
