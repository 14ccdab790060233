"""`simsiam predict`: what a trained classifier, detector or segmentor sees in images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say
from simsiam.errors import UserError
from simsiam.evaluation.predicted import Form, Seen, files_of
from simsiam.results import require_writable

if TYPE_CHECKING:
    from simsiam.evaluation.models import Model


@dataclass(frozen=True, kw_only=True)
class Command:
    """Say what the model of a finished evaluation sees in images, as pictures and in files for other programs.

    A detector gives boxes with classes and scores, and masks where it has them; a segmentor the classes of all pixels;
    a classifier the classes of the whole image. Unreadable images are named at the end, and the exit code is then 1.

    Forms: pictures, one for each image; json, all of it; coco, a data set with scores; yolo, labels/NAME.txt; csv, a
    table; masks, masks/NAME.png of ids.
    """

    # The folder of an evaluation, then images, folders of them, or patterns such as 'photos/*.jpg'.
    places: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FOLDER IMAGE ...")]
    out: Path = Path("predictions")  # Folder for all that is written.
    # Forms to write: pictures json coco yolo csv masks. By default pictures, with json for boxes, masks for pixels and
    # csv for whole images.
    write: tuple[Form, ...] = ()
    # Lowest score, 0 to 1, of detections to draw and write; by default the one that the detector did best with on its
    # held-out images.
    threshold: float | None = None
    most: int = 20  # Draw at most this many detections on an image; the files have all.
    device: str = "auto"  # Where to compute: auto, cpu, cuda, cuda:N or mps.


def run(arguments: list[str]) -> int:
    """Look at every image, and say what was found and what could not be read."""
    command = read_line(Command, arguments, prog="simsiam predict")
    if len(command.places) < 2:
        raise UserError("name an evaluation's folder and at least one image: simsiam predict FOLDER IMAGE ...")
    if command.threshold is not None and not 0 <= command.threshold <= 1:
        raise UserError(f"--threshold {command.threshold:g}: a score is between 0 and 1.")
    if command.most < 1:
        raise UserError(f"--most {command.most}: one detection or more.")
    folder, places = command.places[0], command.places[1:]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. The first word is the folder of an evaluation.")
    require_writable(command.out)
    from simsiam.evaluation.models import open_model

    model = open_model(folder, device=command.device, threshold=command.threshold, most=command.most)
    if unfit := [form for form in command.write if form not in model.forms]:
        raise UserError(f"--write {' '.join(unfit)}: {model.kind} gives {', '.join(model.forms)}.")
    forms = tuple(dict.fromkeys(command.write or model.usual))
    files = image_files(places)
    names = file_names(files)
    makes = files_of(forms, names, model.suffix)
    _refuse_beside(command.out, makes, places)
    if line := model.beginning():
        print(line)
    with claims.claim(command.out, command="predict", makes=makes, inputs=places):
        seen, failed = _look(model, files, names, forms, command.out)
        model.finish(seen, forms, command.out)
    for line in failed:
        print(f"left out: {line}")
    print(f"{model.summary(seen)}: {command.out}")
    if note := model.note(seen):
        print(note)
    return 1 if failed else 0


def _refuse_beside(out: Path, makes: Sequence[str], places: Sequence[Path]) -> None:
    """Raise UserError where a picture would lie in the folder of one that was named, a photo among photos."""
    folders = {place.parent.resolve(): place for place in places if place.is_file()}
    for name in makes:
        if (place := folders.get((out / name).parent.resolve())) is not None:
            raise UserError(
                f"--out: {out / name} would lie beside {place}, which is read: it would count as a photo the next "
                "time. Name another folder with --out."
            )


def _look(
    model: Model, files: Sequence[Path], names: Sequence[str], forms: Sequence[Form], out: Path
) -> tuple[list[Seen], list[str]]:
    """What is seen in each image, its picture and mask written; and what is wrong with those that cannot be read."""
    from rich.console import Console
    from rich.progress import track

    from simsiam.data.images import UnreadableImage, read_image
    from simsiam.evaluation.palette import write_picture

    seen, failed = [], []
    pairs = list(zip(files, names, strict=True))
    for file, name in track(pairs, description="predicting", transient=True, console=Console(stderr=True)):
        try:
            image = read_image(file, name=str(file))
        except UnreadableImage as error:
            failed.append(str(error))
            continue
        found = model.look(image)
        one = Seen(file=file, name=name, width=image.width, height=image.height, things=found.things)
        seen.append(one)
        if "pictures" in forms:
            write_picture(out / f"{name}{model.suffix}", found.picture())
        if "masks" in forms:
            write_picture(out / "masks" / f"{name}.png", found.mask(one))
    return seen, failed


def image_files(places: Sequence[Path]) -> list[Path]:
    """The files themselves, and those in folders and below, without the pictures that this command made there before.

    Raises UserError that lists the places without an image.
    """
    from simsiam.data.images import is_image
    from simsiam.data.inventory import Inventory, other_files

    files: list[Path] = []
    wrong = []
    for place in _unfolded(places):
        if place.is_file():
            files.append(place)
            continue
        made = claims.made_below(place, "predict") if place.is_dir() else set()
        inside = sorted(file for file in place.rglob("*") if not file.name.startswith(".") and file.is_file())
        files += (photos := [file for file in inside if is_image(file.name) and file not in made])
        others = Counter(file.suffix.lower() for file in inside if not is_image(file.name) and file not in made)
        for line in Inventory(found=len(photos), used=len(photos), left_out=other_files(others)).lines():
            say(f"{place}: {line}")
        if not photos:
            wrong.append(f"{place}: {'no image in it or below it' if place.is_dir() else 'no such image or folder'}")
    if wrong:
        raise UserError("\n".join(wrong))
    return files


def file_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's results: its own, numbered where several files share it."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 1
        while name.casefold() in taken:  # as file systems of macOS and Windows compare
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _unfolded(places: Sequence[Path]) -> list[Path]:
    """The places, a pattern that no shell has unfolded (it was quoted, or there is none) as the files that it fits."""
    found: list[Path] = []
    for place in places:
        fitting = sorted(glob(str(place), recursive=True)) if has_magic(str(place)) and not place.exists() else []
        found += map(Path, fitting) if fitting else [place]
    return found
