"""`simsiam evaluate segmentation-...`: from words to data, recipe and results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from simsiam.commands.evaluation_line import check_sources, own_folder, parse, refuse_repeated_starts
from simsiam.commands.evaluations import plain
from simsiam.commands.names import value_of
from simsiam.commands.running import is_first_process
from simsiam.commands.tables import print_table
from simsiam.config import Machine
from simsiam.errors import UserError
from simsiam.evaluation.protocol import run_once
from simsiam.recipes import segmentation as recipes
from simsiam.wording import counted

if TYPE_CHECKING:
    from simsiam.data.segmentation.masks import MaskSplits

VOC12AUG, CITYSCAPES = "segmentation-voc12aug", "segmentation-cityscapes"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained from, on which data."""

    # Run folders, files, zoo names; random or random:RUN for untrained networks.
    weights: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WEIGHTS ...]")] = ()
    # More weights; each start gets a result of its own, and all come out in one table.
    start: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="from")] = ()
    data: Path | None = None  # the VOCdevkit, the Cityscapes folder, or a folder with images/ and masks/
    train_images: Path | None = None  # your own: a folder of images, of any depth
    train_masks: Path | None = None  # and of masks with the same names
    test_images: Path | None = None  # without them a tenth of the training images is held out
    test_masks: Path | None = None  # of the test images
    classes: Path | None = None  # a text file of NAME, ID NAME or RED GREEN BLUE NAME lines; classes.txt in --data
    recipe: str | None = None  # another than the usual one
    size: int | None = None  # pixels of a crop; images and windows are scaled with it
    seeds: tuple[int, ...] = (0,)  # a result for each
    backbone: str | None = None  # the network, where the file does not tell
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # train anew what has a result already


def run(name: str, arguments: list[str]) -> int:
    """Train and score a segmentor on every start with every seed, and print the table."""
    from simsiam.commands.evaluate_detection import spread_lists

    arguments = spread_lists(arguments)  # --lr-sweep 0.01,0.03 is taken too
    recipe = recipes.find(name, value_of("--recipe", arguments))
    if (size := value_of("--size", arguments)) is not None:
        if not size.isdecimal() or int(size) < 8:
            raise UserError(f"--size {size}: a whole number of pixels, 8 or more.")
        recipe = recipes.sized(recipe, int(size))
    options, machine, settings = parse(name, arguments, Options(), recipe, config=(tyro.conf.OmitArgPrefixes,))
    sources = [*options.weights, *options.start]
    if not sources:
        raise UserError(f"name the weights to train from: simsiam evaluate {name} RUN --data DIR (or --from random).")
    refuse_repeated_starts(sources)
    check_sources(name, sources, out=machine.out, seeds=options.seeds, again=options.again, backbone=options.backbone)
    data = _data(name, options)
    places = [
        _evaluate(name, source, seed, options, machine, settings, data, sources=len(sources))
        for source in sources
        for seed in options.seeds
    ]
    if is_first_process():
        print_table(places)
    return 0


def _evaluate(
    name: str,
    source: str,
    seed: int,
    options: Options,
    machine: Machine,
    settings: recipes.SegmentationRecipe,
    data: MaskSplits,
    *,
    sources: int,
) -> Path:
    from simsiam.weights.pretrained import open_subject

    subject = open_subject(source, seed=seed, backbone=options.backbone)
    words = [name, data.train.name if name == "segmentation-folder" else "", options.recipe or ""]
    named = "-".join(plain(word) for word in words if word)
    out = own_folder(named, source, seed, out=machine.out, sources=sources, seeds=options.seeds)
    if is_first_process():
        course = settings.segmentation.course
        print(
            f"{settings.name}: {source} ({subject.backbone.name}), {len(data.train):,} training and "
            f"{counted(len(data.test), 'test image')}, {counted(course.iterations, 'iteration')} of "
            f"{course.batch_size}, seed {seed} "
            f"-> {out}"
        )
    run_once(settings, subject, data, machine=dataclasses.replace(machine, out=out), again=options.again)
    return out


def _data(name: str, options: Options) -> MaskSplits:
    """The two sets; raises UserError where flags are missing or do not belong to the name."""
    own = {
        "--train-images": options.train_images,
        "--train-masks": options.train_masks,
        "--test-images": options.test_images,
        "--test-masks": options.test_masks,
    }
    given = [flag for flag, value in own.items() if value is not None]
    if name in (VOC12AUG, CITYSCAPES):
        if given or options.classes is not None:
            raise UserError(f"{(given or ['--classes'])[0]}: belongs to segmentation-folder.")
        if options.data is None:
            raise UserError(f"--data: name the folder of the data set: simsiam evaluate {name} RUN --data DIR.")
        if name == VOC12AUG:
            from simsiam.data.segmentation.voc12aug import open_voc12aug

            return open_voc12aug(options.data)
        from simsiam.data.segmentation.cityscapes import open_cityscapes

        return open_cityscapes(options.data)
    return _own_data(options, own, given)


def _own_data(options: Options, own: dict[str, Path | None], given: list[str]) -> MaskSplits:
    from simsiam.data.segmentation.folders import Folders, open_mask_folders, open_mask_tree

    seed = 0  # of the held-out part: the same for every seed of the training
    if options.data is not None:
        if given:
            raise UserError(f"--data and {given[0]}: name the data set one way.")
        return open_mask_tree(options.data, options.classes, seed=seed)
    train_images, train_masks, test_images, test_masks = own.values()
    if train_images is None or train_masks is None or (test_images is None) != (test_masks is None):
        raise UserError(
            "name your images and masks: --data DIR (with images/, masks/ and classes.txt), or --train-images and "
            "--train-masks, with --test-images and --test-masks or without both."
        )
    if options.classes is None:
        raise UserError("--classes: name the list of classes, a text file with a line for each.")
    test = Folders(images=test_images, masks=test_masks) if test_images and test_masks else None
    return open_mask_folders(Folders(images=train_images, masks=train_masks), test, options.classes, seed=seed)
