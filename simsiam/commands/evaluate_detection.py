"""`simsiam evaluate detection-...`: from words to data, recipe and results of the detection protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from simsiam.commands.evaluation_line import check_sources, own_folder, parse, refuse_repeated_starts
from simsiam.commands.evaluations import plain
from simsiam.commands.names import value_of
from simsiam.commands.running import is_first_process, say
from simsiam.config import Machine
from simsiam.errors import UserError, did_you_mean
from simsiam.evaluation.detection.protocol import Detection
from simsiam.evaluation.protocol import run_once
from simsiam.recipes import detection as recipes
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.evaluation.detection.data import BoxSets, DatasetArgs

CONFIG = (tyro.conf.AvoidSubcommands,)
FOLDER, CITYSCAPES = "detection-folder", "detection-cityscapes"
RECIPES: dict[str, tuple[Callable[[], Detection], ...]] = {  # by name of `simsiam evaluate`; the first is the usual one
    "detection-voc0712": (recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712, recipes.transfer_c4_voc0712),
    "detection-voc07": (recipes.transfer_c4_voc07,),
    "detection-coco": (recipes.mask_rcnn_r50_fpn_mstrain_1x_coco,),
    "detection-coco-2x": (recipes.mask_rcnn_r50_fpn_mstrain_2x_coco,),
    "detection-coco-c4": (recipes.mask_rcnn_r50_c4_mstrain_1x_coco, recipes.transfer_c4_coco),
    "detection-coco-c4-2x": (recipes.mask_rcnn_r50_c4_mstrain_2x_coco,),
    CITYSCAPES: (recipes.mask_rcnn_r50_fpn_24k_cityscapes,),
    FOLDER: (recipes.folder_boxes, recipes.folder_masks),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, on which data."""

    # Run folders, files, zoo names; random or random:RUN for untrained networks.
    weights: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WEIGHTS ...]")] = ()
    starts: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="from")] = ()  # more weights
    data: Path | None = None  # the VOCdevkit, COCO or Cityscapes folder; a VOC-XML folder or COCO json of your own
    images: Path | None = None  # folder of the images that your COCO json names
    test: Path | None = None  # your own test set, as --data; without it a fifth of --data is held out
    test_images: Path | None = None  # folder of the images that the test set's json names
    recipe: str | None = None  # another than the usual one
    iterations: int | None = None  # shorter or longer; the rate falls at the same fractions
    seeds: tuple[int, ...] = (0,)  # a result for each
    backbone: str | None = None  # the network, where the file does not tell
    skip_bad: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # leave out what is wrong in the data, and say so
    first_pixel: Literal[0, 1] = 0  # how your VOC-XML counts pixels: from 0, or from 1 as VOC itself
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # measure anew what has a result already


def run(name: str, arguments: list[str]) -> int:
    """Measure every subject with every seed, and print the table."""
    arguments = spread_lists(arguments)
    asks_help = "-h" in arguments or "--help" in arguments
    # A folder's own recipe is known once its annotations are; the one with masks has the flags of both.
    options, machine, settings = parse(
        name, arguments, Options(), _recipe(name, arguments, masks=name == FOLDER), config=CONFIG
    )
    if asks_help:
        return 0
    sources = (*options.weights, *options.starts)
    if not sources:
        raise UserError(f"name the weights to measure: simsiam evaluate {name} RUN --data DIR.")
    refuse_repeated_starts(sources)
    if options.data is None:
        raise UserError(f"--data: {_wanted(name)}")
    check_sources(name, sources, out=machine.out, seeds=options.seeds, again=options.again, backbone=options.backbone)
    data = _open(name, options)
    if name == FOLDER:
        masks = data.train.has_masks and data.test.has_masks
        options, machine, settings = parse(
            name, arguments, Options(), _recipe(name, arguments, masks=masks), config=CONFIG
        )
    settings.check()
    places = [
        _evaluate(name, source, seed, data, options, machine, settings, sources=len(sources))
        for source in sources
        for seed in options.seeds
    ]
    if is_first_process():
        from simsiam.commands.tables import print_table

        print_table(places)
    return 0


def _evaluate(
    name: str,
    source: str,
    seed: int,
    data: BoxSets,
    options: Options,
    machine: Machine,
    settings: Detection,
    *,
    sources: int,
) -> Path:
    from simsiam.data.classification.voc import some
    from simsiam.evaluation.detection.finish import anchor_remark
    from simsiam.weights.pretrained import open_subject

    subject = open_subject(source, seed=seed, backbone=options.backbone)
    named = name if name != FOLDER else f"{name}-{plain(data.train.name)}"
    named = f"{named}-{options.recipe}" if options.recipe else named
    out = own_folder(named, source, seed, out=machine.out, sources=sources, seeds=options.seeds)
    say(
        f"{settings.name}: {source} ({subject.backbone.name}), {counted(len(data.train), 'image')} to learn from "
        f"and {len(data.test):,} to be scored on, {counted(len(data.train.classes), 'class', 'classes')} "
        f"({some(data.train.classes)}), "
        f"seed {seed} -> {out}"
    )
    if (remark := anchor_remark(settings, subject, data)) is not None:
        say(f"note: {remark}")
    run_once(settings, subject, data, machine=dataclasses.replace(machine, out=out), again=options.again)
    return out


def _open(name: str, options: Options) -> BoxSets:
    from simsiam.evaluation.detection.data import DatasetArgs, open_sets

    kinds = {"detection-voc0712": "voc0712", "detection-voc07": "voc07", CITYSCAPES: "cityscapes", FOLDER: "folder"}
    kind = kinds.get(name, "coco2017")
    assert options.data is not None
    words: DatasetArgs = DatasetArgs(
        data=options.data,
        images=options.images,
        test=options.test,
        test_images=options.test_images,
        first_pixel=options.first_pixel,
    )
    return open_sets(cast("Any", kind), words, bad="drop" if options.skip_bad else "stop")


def _recipe(name: str, arguments: list[str], *, masks: bool) -> Detection:
    """The recipe by name, or the usual one; for a folder, the one that the annotations allow."""
    known = {make.__name__: make for make in RECIPES[name]}
    wanted = value_of("--recipe", arguments)
    if wanted is None:
        wanted = "folder_masks" if masks else next(iter(known))
    if wanted not in known:
        raise UserError(
            f"--recipe {wanted}: not one of {name}.{did_you_mean(wanted, known)} Known: {', '.join(known)}."
        )
    recipe = known[wanted]()
    iterations = value_of("--iterations", arguments)
    if iterations is None:
        return recipe
    if not iterations.isdecimal() or int(iterations) == 0:
        raise UserError(f"--iterations {iterations}: a whole number above zero.")
    return recipe.for_iterations(int(iterations))


def _wanted(name: str) -> str:
    return {
        "detection-voc0712": "name the VOCdevkit that holds VOC2007 and VOC2012.",
        "detection-voc07": "name the VOCdevkit that holds VOC2007.",
        CITYSCAPES: "name the folder that holds leftImg8bit and gtFine.",
        FOLDER: "name a folder with VOC-XML annotations, or a COCO json with --images for its images.",
    }.get(name, "name the COCO folder that holds annotations, train2017 and val2017.")


def spread_lists(arguments: list[str]) -> list[str]:
    """`--lr-sweep 0.01,0.02` as the separate words that the parser takes."""
    spread: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--lr-sweep" and equals:
            spread += [flag, *value.split(",")]
        elif spread and spread[-1] == "--lr-sweep":
            spread += argument.split(",")
        else:
            spread.append(argument)
    return spread
