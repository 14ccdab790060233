"""`simsiam predict`: what a trained detector or segmentor sees in images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say
from simsiam.errors import UserError
from simsiam.results import require_writable
from simsiam.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from simsiam.data.detection.boxes import Prediction
    from simsiam.evaluation.detection.inference import TrainedDetector
    from simsiam.evaluation.segmentation.inference import TrainedSegmentor


@dataclass(frozen=True, kw_only=True)
class Command:
    """Draw what the model of a detection or segmentation evaluation finds in images.

    Boxes come with their classes and scores, and with masks where the model has them; a segmentor colours the classes
    over the image. Unreadable images are named at the end, and the exit code is then 1.
    """

    # The folder of a detection or segmentation evaluation, then images or folders of them.
    places: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FOLDER IMAGE ...")]
    out: Path = Path("predictions")  # Folder for the pictures and for predictions.json or the masks.
    threshold: float = 0.5  # Lowest score, 0 to 1, of detections to draw and write.
    most: int = 20  # Draw at most this many detections on an image; predictions.json has all.
    device: str = "auto"  # Where to compute: auto, cpu, cuda, cuda:N or mps.


def run(arguments: list[str]) -> int:
    """Draw every image, and say what was found and what could not be read."""
    command = read_line(Command, arguments, prog="simsiam predict")
    if len(command.places) < 2:
        raise UserError("name an evaluation's folder and at least one image: simsiam predict FOLDER IMAGE ...")
    if not 0 <= command.threshold <= 1:
        raise UserError(f"--threshold {command.threshold:g}: a score is between 0 and 1.")
    if command.most < 1:
        raise UserError(f"--most {command.most}: one detection or more.")
    folder, places = command.places[0], command.places[1:]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. The first word is the folder of an evaluation.")
    require_writable(command.out)
    model = _open(folder, command)
    files = image_files(places)
    names = file_names(files)
    makes = [*model.files, *(made for name in names for made in model.pictures(name))]
    _refuse_beside(command.out, makes, places)
    with claims.claim(command.out, command="predict", makes=makes, inputs=places):
        failed = _draw(model, files, names, command.out)
        model.write(command.out)
    for line in failed:
        print(f"left out: {line}")
    print(f"{model.summary(len(files) - len(failed))}: {command.out}")
    if note := model.note():
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


def _draw(model: _Model, files: Sequence[Path], names: Sequence[str], out: Path) -> list[str]:
    """Draw each image; what is wrong with those that cannot be read."""
    from rich.console import Console
    from rich.progress import track

    from simsiam.data.images import UnreadableImage, read_image

    failed = []
    pairs = list(zip(files, names, strict=True))
    for file, name in track(pairs, description="predicting", transient=True, console=Console(stderr=True)):
        try:
            model.draw(read_image(file, name=str(file)), file, name, out)
        except UnreadableImage as error:
            failed.append(str(error))
    return failed


def _open(folder: Path, command: Command) -> _Model:
    """The kind of model that the folder holds."""
    from simsiam.engine.distributed import pick_device
    from simsiam.evaluation.detection.inference import FILE, load_detector
    from simsiam.evaluation.place import unfinished
    from simsiam.evaluation.segmentation.inference import load_segmentor

    if (folder / FILE).exists():
        detector = load_detector(folder)
        detector.detector.to(pick_device(command.device))
        return _Detections(detector=detector, threshold=command.threshold, most=command.most)
    log = folder / "metrics.jsonl"  # names the losses
    if log.is_file() and '"rpn_box"' in log.read_text(encoding="utf-8")[:10_000]:
        raise UserError(unfinished(folder, "detector"))
    if (folder / "checkpoints").is_dir():
        return _Masks(segmentor=load_segmentor(folder, pick_device(command.device)))
    if (folder / "grid").is_dir():
        raise UserError(unfinished(folder, "model", "rates are still being compared"))
    raise UserError(
        f"{folder}: holds no trained detector ({FILE}) and no segmentor (checkpoints). Name the folder of a finished "
        "`simsiam evaluate detection-...` or `segmentation-...`."
    )


class _Model(ABC):
    """A trained model as this command uses it."""

    files: tuple[str, ...]  # written once, beside the pictures

    def note(self) -> str:
        """A last line, where there is more to know."""
        return ""

    @abstractmethod
    def pictures(self, name: str) -> list[str]:
        """What is written for an image, relative to the output folder."""

    @abstractmethod
    def draw(self, image: Image, file: Path, name: str, out: Path) -> None:
        """Write an image's pictures."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write `files`."""

    @abstractmethod
    def summary(self, images: int) -> str:
        """What was found, in a line."""


@dataclass(kw_only=True)
class _Detections(_Model):
    """NAME.jpg with boxes, and masks where the model has them; predictions.json with all of it."""

    detector: TrainedDetector
    threshold: float
    most: int
    files = ("predictions.json",)
    _found: list[dict[str, Any]] = field(default_factory=list)

    def pictures(self, name: str) -> list[str]:
        return [f"{name}.jpg"]

    def draw(self, image: Image, file: Path, name: str, out: Path) -> None:
        from simsiam.evaluation.detection.drawing import draw_prediction
        from simsiam.evaluation.detection.inference import find_on
        from simsiam.evaluation.palette import write_picture

        prediction, classes = find_on(self.detector, image), self.detector.classes
        picture = draw_prediction(image, prediction, classes, threshold=self.threshold, most=self.most)
        write_picture(out / f"{name}.jpg", picture)
        objects = described(prediction, classes, self.threshold)
        self._found.append({"image": str(file), "width": image.width, "height": image.height, "objects": objects})

    def write(self, out: Path) -> None:
        from simsiam.results import write_json

        write_json(out / "predictions.json", self._found)

    def summary(self, images: int) -> str:
        return f"{counted(sum(len(each['objects']) for each in self._found), 'object')} in {counted(images, 'image')}"

    def note(self) -> str:
        crowded = sum(len(each["objects"]) > self.most for each in self._found)
        if not crowded:
            return ""
        drawn = "surest is drawn" if self.most == 1 else f"{self.most:,} surest are drawn"
        return (
            f"more than {counted(self.most, 'object')} in {counted(crowded, 'image')}: there the {drawn} "
            "(--most), and all are in predictions.json. A higher --threshold leaves doubtful ones out."
        )


@dataclass(kw_only=True)
class _Masks(_Model):
    """NAME.png with the classes over the image, masks/NAME.png with their ids and a palette, classes.txt."""

    segmentor: TrainedSegmentor
    files = ("classes.txt",)

    def pictures(self, name: str) -> list[str]:
        return [f"{name}.png", f"masks/{name}.png"]

    def draw(self, image: Image, file: Path, name: str, out: Path) -> None:
        from simsiam.evaluation.palette import write_picture
        from simsiam.evaluation.segmentation.pictures import overlay, palette_image

        mask, classes = self.segmentor.mask_of(image), self.segmentor.classes
        write_picture(out / f"{name}.png", overlay(image, mask, classes))
        write_picture(out / f"masks/{name}.png", palette_image(mask, classes))

    def write(self, out: Path) -> None:
        from simsiam.results import write_atomic

        write_atomic(out / "classes.txt", "".join(f"{name}\n" for name in self.segmentor.classes).encode())

    def summary(self, images: int) -> str:
        return counted(images, "image with its mask", "images with their masks")


def described(prediction: Prediction, classes: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    """Detections as JSON, best first: class, score, box (x1, y1, x2, y2) and mask (COCO's compressed run lengths)."""
    objects = []
    for row, score in enumerate(prediction.scores.tolist()):
        if score < threshold:
            continue
        box = [round(value, 2) for value in prediction.boxes[row].tolist()]
        thing: dict[str, Any] = {
            "class": classes[int(prediction.labels[row]) - 1],
            "score": round(score, 4),
            "box": box,
        }
        if prediction.masks is not None:
            mask = prediction.masks[row]
            thing["mask"] = {"size": [mask.height, mask.width], "counts": mask.counts.decode("ascii")}
        objects.append(thing)
    return objects


def image_files(places: Sequence[Path]) -> list[Path]:
    """The files themselves, and those in folders and below, without the pictures that this command made there before.

    Raises UserError that lists the places without an image.
    """
    from simsiam.data.images import is_image
    from simsiam.data.inventory import Inventory, other_files

    files: list[Path] = []
    wrong = []
    for place in places:
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
