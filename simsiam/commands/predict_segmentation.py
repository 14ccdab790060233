"""`simsiam predict` with a segmentor: the classes of each image as colours laid over it, and as a mask of ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam.commands.image_paths import file_names, image_files
from simsiam.commands.predict import unfinished
from simsiam.errors import UserError
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.evaluation.segmentation.inference import Tester


def run(folder: Path, images: Sequence[Path], out: Path, *, device: str = "auto") -> int:
    """Colour images by the segmentor of an evaluation folder.

    Args:
        folder: what `simsiam evaluate segmentation-...` wrote.
        images: files, or folders of them.
        out: gets NAME.png (the classes over the image), masks/NAME.png (class ids with a palette) and classes.txt.

    Unreadable images are reported and passed over, and the exit code is then 1. Raises UserError where the folder
    holds no trained segmentor, or no image is named.
    """
    from rich.progress import track

    from simsiam.data.images import UnreadableImage, read_image
    from simsiam.evaluation.segmentation.pictures import overlay, palette_image

    files = image_files(images)
    tester, classes = open_segmentor(folder, device=device)
    (out / "masks").mkdir(parents=True, exist_ok=True)
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    failed = []
    for file, name in track(list(zip(files, file_names(files), strict=True)), description="predicting", transient=True):
        try:
            image = read_image(file, name=str(file))
        except UnreadableImage as error:
            failed.append(str(error))
            continue
        mask = classes_of_image(tester, image)
        overlay(image, mask, classes).save(out / f"{name}.png")
        palette_image(mask, classes).save(out / "masks" / f"{name}.png")
    done = len(files) - len(failed)
    for line in failed:
        print(f"left out: {line}")
    print(f"{counted(done, 'image with its mask', 'images with their masks')}: {out}")
    return 1 if failed else 0


def open_segmentor(folder: Path, *, device: str) -> tuple[Tester, list[str]]:
    """The trained network of an evaluation folder, and its classes.

    Raises UserError where there is none, or one whose training was stopped.
    """
    from simsiam.backbones import ResNet, build_backbone
    from simsiam.data.segmentation.loader import Normalisation
    from simsiam.engine.checkpoints import Checkpoints
    from simsiam.engine.distributed import pick_device
    from simsiam.evaluation.protocol import RESULT_FILE
    from simsiam.evaluation.segmentation.inference import Tester
    from simsiam.evaluation.segmentation.segmentor import Segmentor

    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    stored = checkpoints.latest()
    known = (stored or {}).get("recipe", {}).get("segmentor")
    if stored is None or known is None:
        raise UserError(
            f"{folder}: no trained segmentor in it. Name a folder that `simsiam evaluate segmentation-...` wrote, with "
            "its checkpoints."
        )
    if not (folder / RESULT_FILE).exists():
        done = int(checkpoints.numbered()[-1].stem.removeprefix("step-"))
        course = stored["recipe"]["protocol"]["segmentation"]["course"]
        raise UserError(unfinished(folder, "segmentor", f"iteration {done:,} of {course['iterations']:,}"))
    settings = settings_of(stored["recipe"]["protocol"]["segmentation"])
    backbone = build_backbone(known["backbone"], width=known["width"], stem=known["stem"])
    assert isinstance(backbone, ResNet)
    padding = int(known["stem_padding"])
    backbone.conv1.padding = (padding, padding)
    network = Segmentor(backbone, len(known["classes"]), settings.design)
    network.load_state_dict(stored["modules"]["network"], strict=True)
    picked = pick_device(device)
    tester = Tester(
        network=network.to(picked).eval(),
        settings=settings,
        normalisation=Normalisation(mean=tuple(known["mean"]), std=tuple(known["std"])),
        device=picked,
        workers=0,
    )
    return tester, list(known["classes"])


def settings_of(raw: dict[str, Any]) -> Any:
    """The settings record that a checkpoint or result carries as plain values."""
    from simsiam.data.segmentation.transforms import MaskAugmentation
    from simsiam.evaluation.segmentation.settings import (
        RateSearch,
        Segmentation,
        SegmentationSchedule,
        SegmentorConfig,
        Testing,
    )

    search = {**raw["search"], "lr_sweep": tuple(raw["search"]["lr_sweep"])}
    return Segmentation(
        augmentation=MaskAugmentation(**raw["augmentation"]),
        design=SegmentorConfig(**raw["design"]),
        course=SegmentationSchedule(**raw["course"]),
        testing=Testing(**raw["testing"]),
        search=RateSearch(**search),
        expected_classes=raw["expected_classes"],
        published_iterations=raw["published_iterations"],
    )


def classes_of_image(tester: Tester, image: Any) -> Any:
    """The class ids of a PIL image, H x W uint8 at its own size."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    from simsiam.data.segmentation.transforms import fitted

    testing = tester.settings.testing
    size = fitted(image.size, long=testing.test_long, short=testing.test_short)
    pixels = torch.from_numpy(np.array(image.resize(size, Resampling.BILINEAR)))[None].to(tester.device)
    found = tester.classes_of(tester.normalisation(pixels), image.height, image.width)
    return found.cpu().numpy().astype(np.uint8)
