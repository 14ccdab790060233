"""`simsiam predict` with a detector: boxes, and masks where it has them, drawn on each image and written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam.commands.image_paths import file_names, image_files
from simsiam.errors import UserError
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.data.detection.boxes import Prediction


def run(folder: Path, images: Sequence[Path], out: Path, *, threshold: float, most: int, device: str) -> int:
    """Draw what the detector of an evaluation folder finds.

    Args:
        folder: what `simsiam evaluate detection-...` wrote.
        images: files, or folders of them.
        out: gets NAME.jpg with the drawing, and predictions.json.
        threshold: of the score; weaker detections are neither drawn nor written.
        most: detections drawn on one image, the surest; all are written.

    Unreadable images are reported and passed over, and the exit code is then 1. Raises UserError where the folder
    holds no detector, or no image is named.
    """
    from rich.console import Console
    from rich.progress import track

    from simsiam.data.images import UnreadableImage, read_image
    from simsiam.engine.distributed import pick_device
    from simsiam.evaluation.detection.drawing import draw_prediction, write_picture
    from simsiam.evaluation.detection.files import load_detector
    from simsiam.evaluation.detection.pictures import find_on
    from simsiam.results import write_json

    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g}: a score is between 0 and 1.")
    if most < 1:
        raise UserError(f"--most {most}: one detection or more.")
    files = image_files(images)
    trained = load_detector(folder)
    trained.detector.to(pick_device(device))
    found: list[dict[str, Any]] = []
    failed = []
    count = crowded = 0
    pairs = list(zip(files, file_names(files), strict=True))
    for file, name in track(pairs, description="looking", transient=True, console=Console(stderr=True)):
        try:
            image = read_image(file, name=str(file))
        except UnreadableImage as error:
            failed.append(str(error))
            continue
        prediction = find_on(trained, image)
        picture = draw_prediction(image, prediction, trained.classes, threshold=threshold, most=most)
        write_picture(out / f"{name}.jpg", picture)
        objects = described(prediction, trained.classes, threshold)
        count += len(objects)
        crowded += len(objects) > most
        found.append({"image": str(file), "width": image.width, "height": image.height, "objects": objects})
    write_json(out / "predictions.json", found)
    for line in failed:
        print(f"left out: {line}")
    print(f"{counted(count, 'object')} in {counted(len(found), 'image')}: {out}")
    if crowded:
        print(
            f"more than {counted(most, 'object')} in {counted(crowded, 'image')}: there the "
            f"{'surest is' if most == 1 else f'{most:,} surest are'} drawn (--most), and all are in predictions.json. "
            "A higher --threshold leaves doubtful ones out."
        )
    return 1 if failed else 0


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
