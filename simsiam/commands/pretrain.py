"""`simsiam pretrain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simsiam import results
from simsiam.commands.names import value_of
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say
from simsiam.config import Machine, Pretraining, command_line
from simsiam.errors import UserError
from simsiam.pretraining.library import choose_recipe

ACCUMULATE = (
    "--accumulate: SimSiam cannot accumulate gradients over small batches. BatchNorm takes its statistics over the "
    "images of one pass, so that two passes of 128 are another method than one of 256. Use a smaller --batch-size (the "
    "rate follows), --precision bf16, or more devices."
)
EXIT_CODES = {"collapsed": 3, "partial collapse": 4, "worse than its start": 4, "not learning": 4}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run needs besides recipe and machine."""

    # Folder, list or shards with the images; or a set's name: cifar10.
    data: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[DATA]")] = None
    recipe: str | None = None  # `simsiam recipes` lists them; for a folder, one is fitted to it
    labels: Path | None = None  # labelled folder or CSV of path,label for the online kNN; need not be trained on
    compare: tuple[str, ...] = ()  # weights to measure beside the trained ones, a supervised backbone say
    init: str | None = None  # weights to start from; a folder's recipe takes the network that is in them
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # insist that there is a run to go on with
    on_collapse: Literal["stop", "warn"] = "stop"  # at a collapse; either way the exit code is 3
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()  # also send the numbers there


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
    asks_help = "-h" in arguments or "--help" in arguments
    data = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if not asks_help:
        results.require_writable(Path(value_of("--out", arguments) or "runs"))
    base = choose_recipe(
        value_of("--recipe", arguments),
        data,
        device=value_of("--device", arguments),
        fit=not asks_help,
        init=value_of("--init", arguments),
    )
    command = read_line(
        Command,
        arguments,
        default=Command(settings=base),
        prog="simsiam pretrain",
        hidden=("Pretraining.name", "Pretraining.about"),
    )
    if asks_help:
        return 0
    return _pretrain(command, arguments)


def _pretrain(command: Command, arguments: list[str]) -> int:
    from simsiam.backbones import check_known
    from simsiam.commands.report import print_answer
    from simsiam.engine.distributed import launcher
    from simsiam.engine.stopping import Interrupted
    from simsiam.pretraining.run import pretrain

    options = command.options
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
            resume="required" if options.resume else "auto",
            track=options.track,
        )
    except Interrupted as stopped:
        say(f"simsiam: {stopped}:\n  {command_line(['pretrain', *arguments], launcher())}")
        return 128 + stopped.signal_number
    print_answer(Path(result.weights.source))
    return EXIT_CODES.get(result.detail["verdict"]["status"], 0)
