"""`simsiam predict`: what a trained detector or segmentor sees in images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from simsiam.errors import UserError

DETECTOR = "detector.safetensors"  # what a detection evaluation leaves in its folder


@dataclass(frozen=True, kw_only=True)
class Command:
    """Draw what the model of a detection or segmentation evaluation finds in images.

    Boxes come with their classes and scores, and with masks where the model has them; a segmentor colours the classes
    over the image. Unreadable images are named at the end, and the exit code is then 1.
    """

    places: tyro.conf.Positional[tuple[Path, ...]]  # the evaluation's folder, then images or folders of them
    out: Path = Path("predictions")  # folder of the pictures, and of predictions.json or the masks
    threshold: float = 0.5  # of a detection's score
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps


def run(arguments: list[str]) -> int:
    """Hand over to the kind of model that the folder holds."""
    command = tyro.cli(Command, args=arguments, prog="simsiam predict")
    if len(command.places) < 2:
        raise UserError("name an evaluation's folder and at least one image: simsiam predict FOLDER IMAGE ...")
    folder, images = command.places[0], command.places[1:]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. The first word is the folder of an evaluation.")
    if (folder / DETECTOR).exists():
        from simsiam.commands import predict_detection

        return predict_detection.run(folder, images, command.out, threshold=command.threshold, device=command.device)
    if '"rpn_box"' in _log(folder):
        raise UserError(
            f"{folder}: the training of this detector is not finished. The `simsiam evaluate` command that began it "
            "goes on with it."
        )
    if (folder / "checkpoints").is_dir():
        from simsiam.commands import predict_segmentation

        return predict_segmentation.run(folder, images, command.out, device=command.device)
    raise UserError(
        f"{folder}: holds no trained detector ({DETECTOR}) and no segmentor (checkpoints). Name the folder of a "
        "finished `simsiam evaluate detection-...` or `segmentation-...`."
    )


def _log(folder: Path) -> str:
    """The beginning of the training's log, which names the losses."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return ""
    with file.open(encoding="utf-8") as lines:
        return lines.readline()
