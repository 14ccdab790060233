"""What `simsiam evaluate NAME SOURCE` can run: the module of each name, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simsiam.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One protocol on the command line."""

    module: str  # has run(name, arguments) -> exit code; imports nothing heavy before it is run
    about: str
    processes: Literal["one", "many"] = "many"  # one: torchrun's other processes have no part in it


_PROTOCOL = "simsiam.commands.evaluate_protocol"  # the classification protocols of simsiam.recipes.evaluation
_SEGMENTATION = "simsiam.commands.evaluate_segmentation"
_DETECTION = "simsiam.commands.evaluate_detection"

EVALUATIONS: dict[str, Evaluation] = {
    "knn": Evaluation(
        module=_PROTOCOL, about="Weighted nearest neighbours on pooled features: k 10, 20, 100, 200.", processes="one"
    ),
    "svm-voc07": Evaluation(
        module=_PROTOCOL,
        about="Linear SVMs on the five feature maps: VOC07, or any set with several labels an image.",
        processes="one",
    ),
    "low-shot-voc07": Evaluation(
        module=_PROTOCOL, about="SVMs on 1 to 96 positive images a class, five samples each.", processes="one"
    ),
    "linear-mhead": Evaluation(module=_PROTOCOL, about="Linear classifiers on Feature1 to Feature5, frozen backbone."),
    "linear-avgpool": Evaluation(
        module=_PROTOCOL, about="The headline linear classifier on pooled features: LARS, or plain SGD by --recipe."
    ),
    "inaturalist2018": Evaluation(module=_PROTOCOL, about="Feature1 to Feature5 on iNaturalist 2018."),
    "places205": Evaluation(module=_PROTOCOL, about="Feature1 to Feature5 on Places205."),
    "semi-supervised": Evaluation(
        module=_PROTOCOL, about="Fine-tuning on 1 % or 10 % of the labels, over the published grid of rates."
    ),
    "probe": Evaluation(
        module=_PROTOCOL, about="The fast linear probe: features once, a sweep of rates at once.", processes="one"
    ),
    "few-labels": Evaluation(
        module=_PROTOCOL,
        about="Accuracy from a few labels of your own, cross-validated, with an interval.",
        processes="one",
    ),
    "clustering": Evaluation(
        module=_PROTOCOL, about="How well k-means clusters agree with the classes: NMI, ARI.", processes="one"
    ),
    "retrieval": Evaluation(
        module=_PROTOCOL,
        about="How often an image of the same class is among the nearest: recall at 1, 5, 10.",
        processes="one",
    ),
    "detection-voc0712": Evaluation(
        module=_DETECTION, about="Faster R-CNN C4 on VOC2007 + 2012, trained whole from the weights: AP50."
    ),
    "detection-voc07": Evaluation(module=_DETECTION, about="The same on VOC2007 alone, as the paper's transfer table."),
    "detection-coco": Evaluation(
        module=_DETECTION, about="Mask R-CNN FPN on COCO, 1x schedule: AP of boxes and masks."
    ),
    "detection-coco-2x": Evaluation(module=_DETECTION, about="The same on the 2x schedule."),
    "detection-coco-c4": Evaluation(module=_DETECTION, about="Mask R-CNN C4 on COCO, 1x schedule."),
    "detection-coco-c4-2x": Evaluation(module=_DETECTION, about="The same on the 2x schedule."),
    "detection-cityscapes": Evaluation(
        module=_DETECTION, about="Mask R-CNN FPN on the things of Cityscapes: AP of boxes and masks, by COCO's rules."
    ),
    "detection-folder": Evaluation(
        module=_DETECTION, about="A detector for boxes or masks of your own: a VOC-XML folder, or a COCO json."
    ),
    "segmentation-voc12aug": Evaluation(
        module=_SEGMENTATION, about="FCN on VOC2012 + aug, trained whole from the weights: mIoU."
    ),
    "segmentation-cityscapes": Evaluation(
        module=_SEGMENTATION, about="FCN on Cityscapes' fine masks, 19 classes, sliding test: mIoU."
    ),
    "segmentation-folder": Evaluation(
        module=_SEGMENTATION, about="FCN on images and masks of your own, with a list of classes: mIoU."
    ),
}


def find_evaluation(name: str) -> Evaluation:
    """An evaluation by name; raises UserError with the nearest names on a typo."""
    if name not in EVALUATIONS:
        hint = did_you_mean(name, EVALUATIONS)
        raise UserError(f"there is no evaluation {name!r}.{hint} `simsiam evaluate --help` lists them.")
    return EVALUATIONS[name]


def result_folder(source: str, name: str, out: Path | None) -> Path:
    """Where an evaluation writes: `--out`, else within the run folder, else runs/NAME-WEIGHTS."""
    if out is not None:
        return out
    if Path(source).is_dir():
        return Path(source) / "evaluations" / name
    return Path("runs") / f"{name}-{plain(source)}"


def plain(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text).strip("-.")
