"""`simsiam pretrain`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simsiam import results
from simsiam.commands.reading import asks_help
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import is_first_process, say
from simsiam.commands.verbs import find_verb
from simsiam.config import Machine, Pretraining, command_line
from simsiam.errors import UserError
from simsiam.pretraining.library import choose_recipe
from simsiam.recipes.pretrain import RECIPES

ACCUMULATE = (
    "--accumulate: SimSiam cannot accumulate gradients over small batches. BatchNorm takes its statistics over the "
    "images of one pass, so that two passes of 128 are another method than one of 256. Use a smaller --batch-size (the "
    "rate follows), --precision bf16, or more devices."
)
SHOWN = (  # by `--help`
    *("data", "recipe", "labels", "init", "compare", "out", "device", "workers"),
    *("epochs", "minutes", "batch_size", "base_lr", "precision", "seed", "Model.backbone", "Views.size"),
)
EXIT_CODES = {"collapsed": 3, "partial collapse": 4, "worse than its start": 4, "not learning": 4}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run needs besides recipe and machine."""

    # The images: a folder, a text list or tar shards, or the name of a set such as cifar10.
    data: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[DATA]")] = None
    recipe: str | None = None  # A recipe from `simsiam recipes`; by default chosen to suit the data and device.
    labels: Path | None = None  # Labelled images for the kNN check: class folders or a CSV of path,label.
    compare: tuple[str, ...] = ()  # Other weights to measure beside the trained ones: --compare resnet50.pth.
    init: str | None = None  # Weights to start from; without --recipe the network in them is trained.
    minutes: float | None = None  # Minutes for the run once its images are found: --epochs follows from the pace here.
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # Fail if there is no run to resume.
    on_collapse: Literal["stop", "warn"] = "stop"  # What to do when training collapses; the exit code is 3 either way.
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()  # Also log the figures to these trackers.


@dataclass(frozen=True, kw_only=True)
class Command:
    """Pre-train a backbone on images, watch it, and write a report.

    Exit code: 0 healthy or too few images to tell, 3 collapsed, 4 partly collapsed, not learning or
    worse than its start, 2 a mistake, 130 or 143 interrupted and saved. The same command resumes an interrupted run.
    """

    options: Annotated[Options, tyro.conf.arg(name="")] = Options()
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    settings: Annotated[Pretraining, tyro.conf.arg(name="")]


def run(arguments: list[str]) -> int:
    """Read the arguments over the recipe's settings and run it."""
    if any(argument.partition("=")[0] == "--accumulate" for argument in arguments):
        raise UserError(ACCUMULATE)
    if asks_help(arguments):
        names = [word.removeprefix("--recipe=") for word in arguments]
        name = next((word for word in names if word in RECIPES), None)
        data = "cifar10" if "cifar10" in arguments else None
        _read(arguments, choose_recipe(name, data, device=None, fit=False))
    if {"--epochs", "--minutes"} <= {argument.partition("=")[0] for argument in arguments}:
        raise UserError("--minutes and --epochs: both say how long to train. Give one of them.")
    asked = _read(arguments, choose_recipe("folder", None, device=None, fit=False))
    results.require_writable(asked.machine.out or Path("runs"))
    recipe = choose_recipe(
        asked.options.recipe,
        asked.options.data,
        device=asked.machine.device,
        fit=True,
        init=asked.options.init,
        cache=asked.machine.cache,
    )
    return _pretrain(_read(arguments, recipe), arguments)


def _read(arguments: list[str], recipe: Pretraining) -> Command:
    """The words over the values of a recipe."""
    return read_line(
        Command,
        arguments,
        default=Command(settings=recipe),
        prog="simsiam pretrain",
        hidden=("Pretraining.name", "Pretraining.about"),
        shown=SHOWN,
        about=f"{inspect.cleandoc(Command.__doc__ or '')}\n\nThe settings shown are those of the recipe {recipe.name}: "
        f"{recipe.about}",
    )


def _pretrain(command: Command, arguments: list[str]) -> int:
    from simsiam.backbones import check_known
    from simsiam.commands.report import print_answer
    from simsiam.engine.distributed import launcher
    from simsiam.engine.stopping import Interrupted
    from simsiam.pretraining.run import pretrain
    from simsiam.pretraining.run_folder import MeasuredOtherwise

    options, begun = command.options, results.now()
    check_known(command.settings.model.backbone, flag="--model.backbone")
    try:
        result = pretrain(
            command.settings,
            data=options.data,
            machine=command.machine,
            labels=options.labels,
            compare=options.compare,
            init=options.init,
            on_collapse=options.on_collapse,
            minutes=options.minutes,
            resume="required" if options.resume else "auto",
            track=options.track,
        )
    except Interrupted as stopped:
        say(f"simsiam: {stopped}:\n  {command_line(['pretrain', *arguments], launcher())}")
        return 128 + stopped.signal_number
    except MeasuredOtherwise as asked:
        say(f"note: {asked}")
        settings = ["--device", command.machine.device, "--workers", str(command.machine.workers)]
        settings += ["--cache", str(command.machine.cache)] if command.machine.cache is not None else []
        return find_verb(asked.command[0])([*asked.command[1:], *settings])
    if result.created < begun:
        say(f"read from the run that ended on {result.created[:10]}: nothing was trained or measured now")
    if is_first_process():
        print_answer(Path(result.weights.source))
    return EXIT_CODES.get(result.detail["verdict"]["status"], 0)
