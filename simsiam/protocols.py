"""The one table of protocols, and `evaluate`, which measures a backbone by any of them.

The command line and the library go through the same record: what there is to say of a protocol stands in its line of
`PROTOCOLS`. To add one, write its record with `score` in `simsiam/evaluation/`, a recipe, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simsiam.config import Machine
from simsiam.errors import UserError, did_you_mean
from simsiam.evaluation import datasets as data
from simsiam.evaluation.detection.protocol import Detection
from simsiam.evaluation.protocol import Protocol, run_once
from simsiam.recipes import classification, detection, linear, scaled, segmentation
from simsiam.recipes.scaled import Make, Wanted
from simsiam.weights.pretrained import PretrainedBackbone, subject_of

if TYPE_CHECKING:
    from torch import nn

    from simsiam.results import Result

READ_BY_ALL = ("out", "device", "workers", "cache")  # fields of Machine
READ_BY_TRAININGS = (*READ_BY_ALL, "checkpoint_minutes")
READ_BY_DETECTORS = (*READ_BY_TRAININGS, "channels_last")
READ_BY_SEGMENTORS = (*READ_BY_DETECTORS, "compile")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One protocol: its data, its recipes, and what runs it."""

    about: str  # one line
    data: data.DataFlags  # the flags that name the data, at their defaults, and their reader
    recipes: dict[str, Make]  # by name; the first is the usual one
    usual: Callable[[Wanted, Any], str | None] = lambda wanted, data: None  # the usual recipe where it is not the first
    scale: Literal["size", "iterations"] = "size"  # which field of `Wanted` is a flag
    processes: Literal["one", "many"] = "one"  # one: torchrun's other processes have no part in it
    machine: tuple[str, ...] = READ_BY_ALL  # the fields of Machine that it reads

    def recipe(self, name: str | None, wanted: Wanted, data: Any = None) -> Protocol[Any]:
        """The recipe by name, or the usual one for this scale and data; raises UserError on a typo."""
        if name is None:
            name = self.usual(wanted, data) or next(iter(self.recipes))
        if name not in self.recipes:
            raise UserError(
                f"--recipe {name}: not one of this protocol.{did_you_mean(name, self.recipes)} "
                f"Known: {', '.join(self.recipes)}."
            )
        return self.recipes[name](wanted)


def evaluate(
    name: str,
    weights: str | Path | nn.Module | PretrainedBackbone,
    *,
    recipe: str | Protocol[Any] | None = None,
    size: int | None = None,
    iterations: int | None = None,
    seed: int = 0,
    backbone: str | None = None,
    machine: Machine | None = None,
    again: bool = False,
    **places: Any,
) -> Result:
    """Measure a backbone by one of the protocols.

    Args:
        name: as `simsiam evaluate --help` lists them: knn, linear-avgpool, detection-folder and so on.
        weights: a run folder, a file of any format that `load_backbone` takes, a zoo name; `random`, `random:RUN`; or a
            module: a SimSiam network or its backbone, a ResNet of torchvision, or any that gives pooled features B x C
            (for the protocols on pooled features). Modules get images normalised by ImageNet's mean; for others give
            a `PretrainedBackbone`.
        recipe: another recipe, by name, or a record of your own; None: the protocol's usual one.
        size: side of the images (of a crop, in segmentation) in pixels; None: the weights' training size, and
            224 for a module.
        iterations: length of a detection training; the rate falls at the same fractions of it.
        seed: the random seed.
        backbone: the network, if it cannot be inferred from a file; `timm:NAME` for a timm model.
        machine: device, workers, cache and the folder to write to; without a folder nothing is kept.
        again: measure again even if `machine.out` holds the result.
        places: where the data are, by the names of the protocol's flags: `data` for a set that has its own splits
            (cifar10, or a folder in a known layout), `train` and `test` for your own; `part`, `images`, `train_masks`.

    Returns:
        The result; the one that `machine.out` holds already, where it is the same measurement.

    Raises:
        UserError: unknown names, weights that do not load in full, data that the protocol cannot use.

    >>> result = evaluate("knn", "runs/demo", train="train", test="test", size=32)
    >>> 0 <= result.metrics[result.main_metric] <= 100
    True
    """
    found = find(name)
    machine = machine or Machine()
    flags = found.data.filled(name, places)
    subject = subject_of(weights, seed=seed, size=size, backbone=backbone)
    opened = flags.open(machine.cache)
    wanted = Wanted(trained=subject.size, size=size, iterations=iterations, device=kind_of(machine))
    if isinstance(recipe, Protocol):
        settings = recipe
    else:
        usual = found.recipe(recipe, wanted, opened)  # on a CPU the small one, where there is one
        settings = usual.fitted(usual, subject, opened)
    settings.check()
    return run_once(settings, subject, opened, machine=machine, again=again)


def find(name: str) -> Evaluation:
    """A protocol by name; raises UserError with the nearest names on a typo."""
    if name not in PROTOCOLS:
        hint = did_you_mean(name, PROTOCOLS)
        raise UserError(f"there is no protocol {name!r}.{hint} `simsiam evaluate --help` lists them.")
    return PROTOCOLS[name]


def kind_of(machine: Machine) -> str:
    """What a training there would run on: cpu, cuda or mps."""
    from simsiam.engine.distributed import pick_device

    return pick_device(machine.device).type


def _linear(about: str, flags: data.DataFlags, *makers: Callable[[], linear.LinearRecipe], **more: Any) -> Evaluation:
    recipes = scaled.linear_recipes(*makers)
    return Evaluation(about=about, data=flags, recipes=recipes, processes="many", machine=READ_BY_TRAININGS, **more)


def _detection(about: str, flags: data.DataFlags, *makers: Callable[[], Detection], **more: Any) -> Evaluation:
    return Evaluation(
        about=about,
        data=flags,
        recipes={make.__name__: partial(scaled.in_iterations, make) for make in makers},
        scale="iterations",
        processes="many",
        machine=READ_BY_DETECTORS,
        **more,
    )


def _segmentation(name: str, about: str, flags: data.DataFlags, **more: Any) -> Evaluation:
    return Evaluation(
        about=about,
        data=flags,
        recipes={recipe: partial(scaled.at_crop, make) for recipe, make in segmentation.RECIPES[name].items()},
        processes="many",
        machine=READ_BY_SEGMENTORS,
        **more,
    )


PROTOCOLS: dict[str, Evaluation] = {
    "knn": Evaluation(
        about="Weighted nearest neighbours on pooled features: k 10, 20, 100, 200.",
        data=data.LabelledSets(),
        recipes=scaled.by_size(knn=classification.knn, knn_monitor=classification.knn_monitor),
    ),
    "svm-voc07": Evaluation(
        about="Linear SVMs on the five feature maps: VOC07, or any set with several labels an image.",
        data=data.MultiLabelSets(),
        recipes=scaled.by_size(svm_voc07=classification.svm_voc07, svm_pooled=classification.svm_pooled),
    ),
    "low-shot-voc07": Evaluation(
        about="SVMs on 1 to 96 positive images a class, five samples each.",
        data=data.MultiLabelSets(),
        recipes=scaled.by_size(
            low_shot_voc07=classification.low_shot_voc07,
            low_shot_voc07_published=classification.low_shot_voc07_published,
        ),
    ),
    "linear-mhead": _linear(
        "Linear classifiers on Feature1 to Feature5, frozen backbone.",
        data.LabelledSets(),
        linear.resnet50_mhead_8xb32_steplr_90e,
        linear.linear_mhead_cifar10,
        usual=scaled.small_is(linear.linear_mhead_cifar10().name),
    ),
    "linear-avgpool": _linear(
        "The headline linear classifier on pooled features: LARS, or plain SGD by --recipe.",
        data.LabelledSets(),
        linear.resnet50_8xb512_coslr_90e_in1k,
        linear.lincls_lars_90e_in1k,
        linear.lincls_sgd_90e_in1k,
        linear.resnet50_8xb32_steplr_100e_in1k,
        linear.resnet50_8xb32_coslr_100e_in1k,
        linear.resnet50_8xb128_coslr_90e_in1k,
        linear.linear_cifar10,
        usual=scaled.small_is(linear.linear_cifar10().name),
    ),
    "inaturalist2018": _linear(
        "Feature1 to Feature5 on iNaturalist 2018.",
        data.LabelledSets(layout="inaturalist2018"),
        linear.resnet50_mhead_8xb32_steplr_84e_inat18,
    ),
    "places205": _linear(
        "Feature1 to Feature5 on Places205.",
        data.LabelledSets(layout="places205"),
        linear.resnet50_mhead_8xb32_steplr_28e_places205,
    ),
    "semi-supervised": _linear(
        "Fine-tuning on 1 % or 10 % of the labels, over the published grid of rates.",
        data.PartlyLabelledSets(),
        linear.semi_supervised_1_percent,
        linear.semi_supervised_10_percent,
    ),
    "probe": Evaluation(
        about="The fast linear probe: features once, a sweep of rates at once.",
        data=data.LabelledSets(),
        recipes={"linear-probe": partial(scaled.at_side, linear.linear_probe)},
    ),
    "few-labels": Evaluation(
        about="Accuracy from a few labels of your own, cross-validated, with an interval.",
        data=data.LabelledSet(),
        recipes=scaled.by_size(few_labels=classification.few_labels),
    ),
    "clustering": Evaluation(
        about="How well k-means clusters agree with the classes: NMI, ARI.",
        data=data.LabelledSet(),
        recipes=scaled.by_size(clustering=classification.clustering),
    ),
    "retrieval": Evaluation(
        about="How often an image of the same class is among the nearest: recall at 1, 5, 10.",
        data=data.GallerySets(),
        recipes=scaled.by_size(retrieval=classification.retrieval),
    ),
    "detection-voc0712": _detection(
        "Faster R-CNN C4 on VOC2007 + 2012, trained whole from the weights: AP50.",
        data.PublishedBoxes(kind="voc0712"),
        detection.faster_rcnn_r50_c4_mstrain_24k_voc0712,
        detection.transfer_c4_voc0712,
    ),
    "detection-voc07": _detection(
        "The same on VOC2007 alone, as the paper's transfer table.",
        data.PublishedBoxes(kind="voc07"),
        detection.transfer_c4_voc07,
    ),
    "detection-coco": _detection(
        "Mask R-CNN FPN on COCO, 1x schedule: AP of boxes and masks.",
        data.PublishedBoxes(kind="coco2017"),
        detection.mask_rcnn_r50_fpn_mstrain_1x_coco,
    ),
    "detection-coco-2x": _detection(
        "The same on the 2x schedule.",
        data.PublishedBoxes(kind="coco2017"),
        detection.mask_rcnn_r50_fpn_mstrain_2x_coco,
    ),
    "detection-coco-c4": _detection(
        "Mask R-CNN C4 on COCO, 1x schedule.",
        data.PublishedBoxes(kind="coco2017"),
        detection.mask_rcnn_r50_c4_mstrain_1x_coco,
        detection.transfer_c4_coco,
    ),
    "detection-coco-c4-2x": _detection(
        "The same on the 2x schedule.",
        data.PublishedBoxes(kind="coco2017"),
        detection.mask_rcnn_r50_c4_mstrain_2x_coco,
    ),
    "detection-cityscapes": _detection(
        "Mask R-CNN FPN on the things of Cityscapes: AP of boxes and masks, by COCO's rules.",
        data.PublishedBoxes(kind="cityscapes"),
        detection.mask_rcnn_r50_fpn_24k_cityscapes,
    ),
    "detection-folder": _detection(
        "A detector for boxes or masks of your own, from the export of any usual labelling tool.",
        data.OwnBoxes(),
        detection.folder_boxes,
        detection.folder_masks,
        detection.folder_boxes_cpu,
        detection.folder_masks_cpu,
        usual=scaled.for_annotations,
    ),
    "segmentation-voc12aug": _segmentation(
        "segmentation-voc12aug",
        "FCN on VOC2012 + aug, trained whole from the weights: mIoU.",
        data.PublishedMasks(kind="voc12aug"),
    ),
    "segmentation-cityscapes": _segmentation(
        "segmentation-cityscapes",
        "FCN on Cityscapes' fine masks, 19 classes, sliding test: mIoU.",
        data.PublishedMasks(kind="cityscapes"),
    ),
    "segmentation-folder": _segmentation(
        "segmentation-folder",
        "FCN on images and masks of your own, with a list of classes: mIoU.",
        data.OwnMasks(),
        usual=scaled.for_masks,
    ),
}
