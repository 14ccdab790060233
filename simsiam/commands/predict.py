"""`simsiam predict`: what a trained detector or segmentor sees in images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from simsiam import results
from simsiam.commands.reading import read as read_line
from simsiam.errors import UserError

DETECTOR = "detector.safetensors"  # what a detection evaluation leaves in its folder


@dataclass(frozen=True, kw_only=True)
class Command:
    """Draw what the model of a detection or segmentation evaluation finds in images.

    Boxes come with their classes and scores, and with masks where the model has them; a segmentor colours the classes
    over the image. Unreadable images are named at the end, and the exit code is then 1.
    """

    # The evaluation's folder, then images or folders of them.
    places: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FOLDER IMAGE ...")]
    out: Path = Path("predictions")  # folder of the pictures, and of predictions.json or the masks
    threshold: float = 0.5  # of a detection's score
    most: int = 20  # detections drawn on one image, the surest; predictions.json holds all above the threshold
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps


def run(arguments: list[str]) -> int:
    """Hand over to the kind of model that the folder holds."""
    command = read_line(Command, arguments, prog="simsiam predict")
    if len(command.places) < 2:
        raise UserError("name an evaluation's folder and at least one image: simsiam predict FOLDER IMAGE ...")
    folder, images = command.places[0], command.places[1:]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. The first word is the folder of an evaluation.")
    results.require_writable(command.out)
    if (folder / DETECTOR).exists():
        from simsiam.commands import predict_detection

        return predict_detection.run(
            folder, images, command.out, threshold=command.threshold, most=command.most, device=command.device
        )
    if '"rpn_box"' in _log(folder):
        raise UserError(unfinished(folder, "detector"))
    if (folder / "grid").is_dir() and not (folder / "checkpoints").is_dir():
        raise UserError(unfinished(folder, "model", "rates are still being compared"))
    if (folder / "checkpoints").is_dir():
        from simsiam.commands import predict_segmentation

        return predict_segmentation.run(folder, images, command.out, device=command.device)
    raise UserError(
        f"{folder}: holds no trained detector ({DETECTOR}) and no segmentor (checkpoints). Name the folder of a "
        "finished `simsiam evaluate detection-...` or `segmentation-...`."
    )


def unfinished(folder: Path, model: str, state: str | None = None) -> str:
    """What is said of a training that was stopped, and how to go on with it."""
    at = f" ({state})" if state is not None else ""
    return (
        f"{folder}: the training of this {model} is not finished{at}. Give the `simsiam evaluate` command that began "
        f"it once more: it goes on where it stopped, and ends with the {model} in the same folder."
    )


def _log(folder: Path) -> str:
    """The beginning of the training's log, which names the losses."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return ""
    with file.open(encoding="utf-8") as lines:
        return lines.readline()
