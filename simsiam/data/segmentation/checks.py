"""What is wrong with images and masks, all of it at once and before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simsiam.data.images import UnreadableImage, header
from simsiam.data.inventory import LeftOut
from simsiam.data.segmentation.masks import IGNORE, UNKNOWN, Colour, MaskSource, MaskSplits, palette_of, read_raw
from simsiam.errors import UserError
from simsiam.results import write_atomic
from simsiam.wording import counted

SHOWN = 20  # lines of a message


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What an image and its mask show."""

    problems: tuple[str, ...]
    at: tuple[int, int] = (0, 0)  # of which set, and which of its images
    skippable: str = ""  # the first problem of this very image
    lasting: tuple[str, ...] = ()  # problems that leaving this image out would not mend
    classes: frozenset[int] = frozenset()  # ids in the mask, IGNORE among them
    palette: tuple[tuple[int, Colour], ...] = ()  # of a mask that stores indices of one: index and colour
    mask: Path | None = None
    turned: tuple[str, str] = ("", "")  # `Header.turned` of the image, and its name


def mask_problems(*sources: MaskSource, threads: int, rank: int = 0, world: int = 1) -> Iterator[Looked]:
    """For each image of all sources in turn, what is wrong with it; the first item also has what lies there alone.

    Looked for: missing and unreadable images and masks, sizes that differ, values or colours that no class has,
    palettes that number the colours in another order than the first. Of `world` processes each looks at every so
    many-th image.
    """
    twins = tuple(problem for source in sources for problem in source.twins)
    first = (*(problem for source in sources for problem in source.unmatched), *twins)
    work = [(number, index) for number, source in enumerate(sources) for index in range(len(source))][rank::world]
    numbers: dict[Colour, tuple[int, Path | None]] = {}
    # Pillow's warnings are silenced by each reader, but threads that do so at once may leave them silenced.
    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, threads)) as pool:
        for at, found in zip(work, pool.map(lambda item: _look(sources[item[0]], item[1]), work), strict=True):
            colours = [colour for _, colour in found.palette]
            other = [
                f"{found.mask}: its palette has {colour} at {index}, and that of {numbers[colour][1]} at "
                f"{numbers[colour][0]}: their numbers mean different things. List the classes as RED GREEN BLUE NAME"
                for index, colour in found.palette
                if colours.count(colour) == 1 and numbers.setdefault(colour, (index, found.mask))[0] != index
            ]
            whole = (*first, *found.problems, *other[:1])
            own = next(iter(found.problems), "")
            yield replace(found, problems=whole, at=at, skippable=own, lasting=(*twins, *other[:1]))
            first = twins = ()


Bad = tuple[int, int, str]  # the set (0: training, 1: test), its image (-1: a file beside them), and what is wrong


def bad_of(data: MaskSplits, looked: Iterable[Looked]) -> list[Bad]:
    """What is to be left out, of the images that were looked at."""
    return [(*each.at, each.skippable) for each in looked if each.skippable]


def without(data: MaskSplits, bad: Sequence[Bad]) -> MaskSplits:
    """The sets without what is wrong, their accounts with count and reason; raises UserError if none is left."""
    alone = [(number, -1, line) for number, each in enumerate((data.train, data.test)) for line in each.unmatched]
    found = [*bad, *alone]
    if not found:
        return data
    one = data.train.inventory is data.test.inventory  # a part was held out
    sets = []
    for number, source in enumerate((data.train, data.test)):
        mine = [each for each in found if one or each[0] == number]
        account = source.inventory
        images, files = ({line for _, row, line in mine if (row < 0) == beside} for beside in (False, True))
        left = tuple(
            LeftOut(what=what, count=len(lines), reason=f"{why}; the first: {min(lines)}")
            for what, why, lines in (
                ("image", "damaged, without a mask, or with one that does not fit", images),
                ("file", "a mask without an image, or a listed image that is missing", files),
            )
            if lines
        )
        account = replace(account, used=account.used - len(images), left_out=(*account.left_out, *left))
        sets.append(source.without({row for part, row, _ in bad if part == number}, account))
        if not len(sets[-1]):
            raise UserError(f"{source.name}: no image with a usable mask is left. {min(images)}")
    return replace(data, train=sets[0], test=sets[1])


def absent_classes(source: MaskSource, seen: Iterable[int]) -> list[str]:
    """A word on the classes that no mask shows, given all ids that the masks of a set show."""
    seen = set(seen)
    absent = [name for number, name in enumerate(source.classes) if number not in seen]
    if not absent:
        return []
    note = f"{source.name}: no mask shows {', '.join(absent)}; the mean is over the classes that test masks show."
    ignored = [value for value, meaning in source.coding.ids.items() if meaning == IGNORE]
    if IGNORE in seen and ignored == [255]:
        note += f" Masks hold 255, which is not scored: if it stands for a class, list that as `255 {absent[-1]}`."
    return [note]


def complain(problems: Sequence[str], what: str, *, listing: Path | None, skippable: bool = False) -> None:
    """Raise UserError with every problem, or return where there is none.

    Of more than 20 the first are shown, and all are written to `listing`.
    """
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    if more and listing is not None:
        write_atomic(listing, ("\n".join(problems) + "\n").encode("utf-8", "surrogateescape"))
        more += f" (all in {listing})"
    raise UserError(
        f"{what}: {counted(len(problems), 'problem')} in the data; nothing was trained.\n"
        f"{shown}{more}\nFix or remove these files (and their names in the lists), then run the same command again"
        f"{', or leave them out by --skip-bad' if skippable else ''}."
    )


def single_class(source: MaskSource) -> str | None:
    """What to do about a set whose masks show no two classes, from which nothing can be learnt; None for others.

    Masks are read until a second class turns up, which is soon. Raises UnreadableImage as they are read.
    """
    seen: set[int] = set()
    for index in range(len(source)):
        seen |= {int(each) for each in np.unique(source.mask(index)) if each != IGNORE}
        if len(seen) > 1:
            return None
    shown = ", ".join(source.classes[each] for each in seen) or "no class"
    ignored = ", ".join(str(value) for value, meaning in source.coding.ids.items() if meaning == IGNORE)
    return (
        f"{source.pairs[0].mask.parent}: {shown} in all {counted(len(source), 'mask')} and nothing else, "
        f"apart from values that "
        f"are not scored ({ignored}). Where such a value is a class, give it a line of its own in the list of "
        f"classes, for example: 255 {source.classes[-1]}"
    )


def _look(source: MaskSource, index: int) -> Looked:
    pair, found = source.pairs[index], []
    size, stored = None, None
    try:
        size = source.read(index).size
    except UnreadableImage as error:
        found.append(f"{pair.image}: {error.reason}")
    try:
        stored = read_raw(pair.mask, source.coding.colours)
    except UnreadableImage as error:
        found.append(f"{pair.mask}: {error.reason}" + (" (the mask)" if error.reason == "no such file" else ""))
    if stored is None:
        return Looked(problems=tuple(found))
    height, width = stored.shape[:2]
    if size is not None and size != (width, height):
        found.append(
            f"{pair.mask}: {width} x {height} pixels, but its image {pair.name} has {size[0]} x {size[1]} "
            "(upright, where its EXIF data turns it)"
        )
    turned = header(pair.image).turned((width, height)) if size is not None else ""
    ids = source.coding.decode(stored)
    if (ids == UNKNOWN).any():
        found.append(f"{pair.mask}: {_unknown(source, stored, ids)}")
    palette = palette_of(pair.mask, stored) if stored.ndim == 2 and pair.mask.suffix.lower() == ".png" else {}
    return Looked(
        problems=tuple(found),
        classes=frozenset(np.flatnonzero(np.bincount(ids.ravel() - UNKNOWN)) + UNKNOWN),
        palette=tuple(palette.items()),
        mask=pair.mask,
        turned=(turned, pair.name),
    )


def _unknown(source: MaskSource, stored: np.ndarray, ids: np.ndarray) -> str:
    values, counts = np.unique(stored[ids == UNKNOWN], axis=0, return_counts=True)
    order = np.argsort(-counts)[:5]
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    if stored.ndim == 3:
        shown = ", ".join(str(tuple(int(level) for level in values[n])) for n in order)
        if not source.coding.colours:
            return f"a colour image ({shown}{more}), but the classes have no colours; list them as RED GREEN BLUE NAME"
        return f"colours that no class has: {shown}{more}"
    shown = ", ".join(str(int(values[n])) for n in order)
    top = len(source.classes) - 1
    plain = source.coding.ids.keys() <= {*range(top + 1), 255}
    return f"ids outside the class list: {shown}{more}" + (f" (the classes are 0 to {top})" if plain else "")
