"""Cityscapes with its eight classes of countable things: boxes and masks out of gtFine's instanceIds.

Source: Cordts et al. 2016; pixels of a thing hold label id x 1000 + its number, those of a group the bare label id.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam.data.detection.boxes import BoxImage
from simsiam.data.detection.files import BoxFiles, Objects, Problem, Shapes
from simsiam.data.detection.instance_masks import Rle, from_runs
from simsiam.data.detection.voc import BoxSplits
from simsiam.data.images import UnreadableImage, read_image, watched
from simsiam.data.segmentation.cityscapes import IMAGE_END, LABEL_IDS
from simsiam.errors import UserError

THINGS = {label: name for label, name in LABEL_IDS.items() if label >= 24}  # person to bicycle
MASK_END = "_gtFine_instanceIds.png"
_READERS = 8  # threads that decode masks


def open_cityscapes_instances(root: Path | str) -> BoxSplits:
    """The train and val sets of leftImg8bit and gtFine below a folder; groups of things become crowds.

    Every mask is read once here, at about 0.15 s of one core for a full-size mask with twenty things. Raises UserError
    where a folder is missing or holds no image.
    """
    return BoxSplits(train=_split(Path(root), "train"), test=_split(Path(root), "val"))


@dataclass(frozen=True, kw_only=True)
class _Thing:
    box: tuple[int, int, int, int]
    label: int  # 1..8
    group: bool
    pixels: int
    mask: Rle


@dataclass(frozen=True, kw_only=True)
class _Scene:
    image: BoxImage
    things: tuple[_Thing, ...]


def _split(root: Path, split: str) -> BoxFiles:
    folder = root / "leftImg8bit" / split
    files = sorted(folder.glob(f"*/*{IMAGE_END}")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder}: no CITY/*{IMAGE_END} in it. Give the folder that holds leftImg8bit and gtFine.")
    with ThreadPoolExecutor(_READERS) as pool:
        looked = pool.map(lambda file: _scene(root, file), files)
        found = list(watched(looked, len(files), f"reading the masks of {split}"))
    scenes = [one for one in found if isinstance(one, _Scene)]
    things = [thing for scene in scenes for thing in scene.things]
    return BoxFiles(
        name=f"cityscapes-instances-{split}",
        place=str(folder),
        classes=tuple(THINGS.values()),
        images=[scene.image for scene in scenes],
        counts=np.array([len(scene.things) for scene in scenes], np.int64),
        objects=Objects(
            boxes=np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
            labels=np.array([thing.label for thing in things], np.int64),
            difficult=np.zeros(len(things), bool),
            crowd=np.array([thing.group for thing in things], bool),
            area=np.array([thing.pixels for thing in things], np.float32),
            names=None,
        ),
        shapes=Shapes.of([thing.mask for thing in things]),
        problems=[one for one in found if isinstance(one, Problem)],
    )


def _scene(root: Path, file: Path) -> _Scene | Problem:
    city, split = file.parent.name, file.parent.parent.name
    mask = root / "gtFine" / split / city / (file.name.removesuffix(IMAGE_END) + MASK_END)
    if not mask.is_file():
        return Problem(kind="image without annotation", where=str(file), what=f"no {mask}")
    try:
        ids = _ids(mask)
    except UnreadableImage as error:
        return Problem(kind="unreadable annotation", where=str(mask), what=error.reason)
    height, width = ids.shape
    path = file.relative_to(root).as_posix()
    image = BoxImage(id=file.name.removesuffix(IMAGE_END), path=path, file=file, width=width, height=height)
    return _Scene(image=image, things=tuple(_things(ids)))


def _ids(mask: Path) -> np.ndarray:
    """H x W whole numbers; raises UnreadableImage for anything but a whole picture of one channel."""
    read_error = UnreadableImage(str(mask), "not a picture of one channel")
    try:
        with Image.open(mask) as opened:
            ids = np.asarray(opened)
    except Exception:  # decoders raise many kinds on damaged input; `read_image` says which in plain words
        read_image(mask, name=str(mask))
        raise read_error from None
    if ids.ndim != 2:
        raise read_error
    return ids


def _things(ids: np.ndarray) -> list[_Thing]:
    """Every thing and group, by rising id."""
    height, width = ids.shape
    columns = np.ascontiguousarray(ids.T).reshape(-1)  # column by column, as run lengths go
    numbers = np.flatnonzero(np.bincount(columns))
    label_ids = list(THINGS)
    found = []
    for number in numbers.tolist():
        label_id = number // 1000 if number >= 1000 else number
        if label_id not in THINGS:
            continue
        places = np.flatnonzero(columns == number)
        x, y = places // height, places % height
        found.append(
            _Thing(
                box=(int(x[0]), int(y.min()), int(x[-1]) + 1, int(y.max()) + 1),
                label=label_ids.index(label_id) + 1,
                group=number < 1000,
                pixels=len(places),
                mask=_rle(places, height, width),
            )
        )
    return found


def _rle(places: np.ndarray, height: int, width: int) -> Rle:
    """Run lengths of the pixels at rising `places`, counted column by column."""
    last = np.flatnonzero(np.diff(places) > 1)  # of each run but the final one
    starts = places[np.concatenate([[0], last + 1])]
    stops = places[np.concatenate([last, [len(places) - 1]])] + 1
    edges = np.concatenate([[0], np.stack([starts, stops], 1).reshape(-1), [height * width]])
    return from_runs(np.diff(edges).tolist(), height=height, width=width)
