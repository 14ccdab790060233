"""`simsiam evaluate`: from words to data, recipe, results and their table, for every protocol alike."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from simsiam import claims, limits, protocols, results
from simsiam.commands import reading
from simsiam.commands.running import is_first_process, say, say_unfinished, several_processes
from simsiam.commands.tables import Outcome, print_outcomes
from simsiam.config import Machine
from simsiam.errors import UserError
from simsiam.evaluation.datasets import NO_FLAGS, DataFlags
from simsiam.evaluation.protocol import RESULT_FILE, Protocol, changed, named, run_once
from simsiam.limits import Count
from simsiam.protocols import PROTOCOLS, Evaluation
from simsiam.recipes.scaled import Wanted
from simsiam.wording import plain

ALL = "all"
SHOWN = ("out", "device", "workers", "weights", "start", "recipe", "size", "iterations", "seeds", "again")
Value = TypeVar("Value", int, str)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    # Run folders, weights files or zoo names; random or random:RUN for an untrained network.
    weights: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WEIGHTS ...]")] = ()
    # More weights for the same table, each with its own result: --from random --from resnet50.pth.
    start: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="from")] = ()
    recipe: str | None = None  # Another recipe of this protocol; `simsiam recipes` lists them.
    size: Count | None = None  # Side of the images in pixels; by default the size the weights were trained at.
    iterations: Count | None = None  # Length of training; the rate still falls at the same fractions of it.
    seeds: tuple[int, ...] = (0,)  # Random seeds, one result for each: --seeds 0 1 2.
    backbone: str | None = None  # The network, if it cannot be inferred from the weights: resnet18, or timm:NAME.
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # Measure again even if there is a result.


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command line of one protocol, read."""

    options: Options
    data: DataFlags
    machine: Machine
    over: Callable[[Protocol[Any]], Protocol[Any]] = lambda recipe: recipe  # a recipe as the flags change it

    @property
    def sources(self) -> tuple[str, ...]:
        """All weights."""
        return (*self.options.weights, *self.options.start)


def run(arguments: list[str]) -> int:
    """Measure by the protocol that the first argument names."""
    if not arguments or arguments[0] in reading.HELP:
        print(usage())
        return 0 if arguments else 2
    name, words = arguments[0], arguments[1:]
    evaluation = protocols.find(name)
    if evaluation.processes == "one" and several_processes():
        say(f"{name} is measured by one process; the others end here.")
        if not is_first_process():
            return 0
    return _run(name, evaluation, words)


def _run(name: str, evaluation: Evaluation, words: list[str]) -> int:
    """Read the words, measure everything they ask for, and print the table."""
    named = next((word for word in (w.removeprefix("--recipe=") for w in words) if word in evaluation.recipes), None)
    found = _parse(name, evaluation, words, evaluation.recipe(named if reading.asks_help(words) else None, Wanted()))
    line = Line(
        options=found.options,
        data=found.data,
        machine=found.machine,
        over=lambda recipe: _parse(name, evaluation, words, recipe).settings,  # flags win over this very recipe
    )
    if not line.sources:
        raise UserError(f"name the weights to measure: simsiam evaluate {name} RUN ...; --help shows the flags.")
    outcomes = measure(name, evaluation, line)
    if is_first_process():
        print_outcomes(outcomes)
    return 0


def measure(name: str, evaluation: Evaluation, line: Line) -> list[Outcome]:
    """Measure every weights with every seed.

    Args:
        name: of the protocol.
        evaluation: its line of the table.
        line: what is asked for.

    Raises UserError, before data are read or networks are trained where that can be known.
    """
    from simsiam.data import inventory

    options = line.options
    if twice := _repeated(line.sources):
        raise UserError(f"{', '.join(twice)}: named twice; each start is measured once.")
    if line.machine.out is not None:
        claims.refuse_inputs([line.machine.out], _places(line.data))
    check_places(name, line.sources, out=line.machine.out, seeds=options.seeds, again=options.again)
    for source in line.sources:
        say_unfinished(source)
    _check_weights(line.sources, backbone=options.backbone)
    data = line.data.open(line.machine.cache)
    if line.machine.out is not None:
        images = inventory.folders(inventory.sets_of(data).values(), _places(line.data))
        claims.refuse_inputs([line.machine.out], images)
    for part, account in inventory.of(data).items():
        for sentence in account.lines():
            say(f"{part} set: {sentence}")
    return [_measure(name, evaluation, line, source, seed, data) for source in line.sources for seed in options.seeds]


def _measure(name: str, evaluation: Evaluation, line: Line, source: str, seed: int, data: Any) -> Outcome:
    from simsiam.weights.pretrained import open_subject

    options = line.options
    subject = open_subject(source, seed=seed, backbone=options.backbone)
    kind = protocols.kind_of(line.machine)
    wanted = Wanted(trained=subject.size, size=options.size, iterations=options.iterations, device=kind)
    recipe = evaluation.recipe(options.recipe, wanted, data)
    large = evaluation.recipe(options.recipe, dataclasses.replace(wanted, device="cuda"), data)
    if recipe.name != large.name:
        say(f"no GPU is used, so {recipe.name}, made for a CPU, is taken, not {large.name} (--recipe names another)")
    asked = line.over(recipe)
    settings = named(asked, recipe).fitted(recipe, subject, data)
    settings.check()
    if changes := changed(dataclasses.replace(asked, name=settings.name), settings):
        say(f"to suit data and weights: {', '.join(f'{key} {shown}' for key, shown in changes.items())}")
    set_name = "" if line.data.one_set else settings.data_id(data).name.removesuffix("-test")
    folder = "-".join(plain(word) for word in (name, set_name, options.recipe or "") if word)
    out = own_folder(folder, source, seed, out=line.machine.out, sources=len(line.sources), seeds=options.seeds)
    say(f"{settings.name}: {source} ({subject.backbone.name}), {described(data)}, seed {seed} -> {out}")
    for remark in settings.remarks(subject, data):
        say(f"note: {remark}")
    machine = dataclasses.replace(line.machine, out=out)
    before = _written(out / RESULT_FILE)
    result = run_once(settings, subject, data, machine=machine, again=options.again)
    return Outcome(place=out, result=result, read=before is not None and before == _written(out / RESULT_FILE))


def _written(file: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return file.stat().st_mtime_ns if file.exists() else None


def _places(data: DataFlags) -> list[Path]:
    """The files and folders of data that were named, where they are no set's names."""
    named = [value for value in vars(data).values() if isinstance(value, str | Path)]
    return [Path(each) for each in named if each and Path(each).exists()]


def described(data: Any) -> str:
    """How many images there are, as the first line says it."""
    from simsiam.wording import counted

    if not hasattr(data, "train"):
        return f"{counted(len(data), 'image')} of {data.name}"
    train, test = (getattr(part, "source", part) for part in (data.train, data.test))
    return f"{counted(len(train), 'training image')} and {counted(len(test), 'test image')} of {train.name}"


def _parse(name: str, evaluation: Evaluation, words: list[str], recipe: Protocol[Any]) -> Any:
    """The words over a recipe: options, data, machine and settings; UserError for numbers that no setting can hold."""
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("options", Annotated[Options, tyro.conf.arg(name="")], field(default=Options())),
            ("data", Annotated[type(evaluation.data), tyro.conf.arg(name="")], field(default=evaluation.data)),
            ("machine", Annotated[Machine, tyro.conf.arg(name="")], field(default_factory=Machine)),
            ("settings", Annotated[type(recipe), tyro.conf.arg(name="")], field(default=recipe)),
        ],
        frozen=True,
        kw_only=True,
    )
    unread = {each.name for each in dataclasses.fields(Machine)} - {*evaluation.machine}
    other = "iterations" if evaluation.scale == "size" else "size"
    sizes = [f"{kind}.size" for kind in _records(type(recipe), recipe)]
    found = cast(
        "Any",
        reading.read(
            command,
            words,
            config=(tyro.conf.AvoidSubcommands,) + (() if recipe.nested_flags else (tyro.conf.OmitArgPrefixes,)),
            prog=f"simsiam evaluate {name}",
            hidden=[
                "Protocol.name",
                "DetectionSettings.benchmark",
                *NO_FLAGS,
                *sizes,
                f"Options.{other}",
                *(f"Machine.{each}" for each in unread),
            ],
            shown=[*SHOWN, *recipe.everyday, *(each.name for each in dataclasses.fields(evaluation.data))],
            about=f"{evaluation.about}\n\nThe settings shown are those of the recipe {recipe.name}.",
        ),
    )
    refuse_repeated_seeds(found.options.seeds)
    limits.check(found.options, prefixes=False)
    limits.check(found.machine, prefixes=False)
    limits.check(found.settings, prefixes=recipe.nested_flags)
    return found


def refuse_repeated_seeds(seeds: Sequence[int]) -> None:
    """Raise UserError where a seed comes twice: it would give the same result, counted as another."""
    if twice := _repeated(seeds):
        named = ", ".join(map(str, twice))
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: {named} is named twice; each seed gives one result.")


def _records(kind: type, record: Any) -> list[str]:
    """The names of a record's class and of those within it."""
    inner = (getattr(record, each.name) for each in dataclasses.fields(record))
    return [
        kind.__name__,
        *(name for each in inner if dataclasses.is_dataclass(each) for name in _records(type(each), each)),
    ]


def _repeated(values: Sequence[Value]) -> list[Value]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def check_places(
    named: str, sources: Sequence[str], *, out: Path | None, seeds: tuple[int, ...] = (0,), again: bool = False
) -> None:
    """Raise UserError where a result could not be written, before data are read or a network is built.

    Where results lie already and none is replaced (`again`), one of them may be all that is asked for, and it needs to
    be read only. Which one is known once the data are; `run_once` then looks again.
    """
    for source in sources:
        for seed in seeds:
            folder = own_folder(named, source, seed, out=out, sources=len(sources), seeds=seeds)
            try:
                results.require_writable(folder)
            except UserError:
                place = result_folder(source, named, None).parent if out is None else out
                if again or not any(place.rglob(RESULT_FILE)):
                    raise


def _check_weights(sources: Sequence[str], *, backbone: str | None) -> None:
    """Open every source once, before the first is trained for hours; raises UserError with all that do not open."""
    from simsiam.weights.pretrained import open_subject

    wrong = []
    for source in sources:
        try:
            open_subject(source, seed=0, backbone=backbone)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))


def own_folder(named: str, source: str, seed: int, *, out: Path | None, sources: int, seeds: tuple[int, ...]) -> Path:
    """A folder of its own for each start and seed, where there are several; `named` says the rest."""
    folder = result_folder(source, named, out)
    if out is not None and sources > 1:
        folder /= plain(source)
    return folder / f"seed{seed}" if len(seeds) > 1 else folder


def result_folder(source: str, name: str, out: Path | None) -> Path:
    """Where an evaluation writes: `--out`, else within the run folder, else runs/NAME-WEIGHTS."""
    if out is not None:
        return out
    if Path(source).is_dir():
        return Path(source) / "evaluations" / name
    return Path("runs") / f"{name}-{plain(source)}"


def usage() -> str:
    """What `simsiam evaluate --help` prints."""
    names = {
        **{name: each.about for name, each in PROTOCOLS.items()},
        ALL: "Everything that the data at hand allows.",
    }
    width = max(map(len, names))
    lines = "\n".join(f"  {name:<{width}}  {about}" for name, about in names.items())
    return (
        "usage: simsiam evaluate NAME WEIGHTS [WEIGHTS ...] [data] [settings]\n\n"
        "Measure backbones by one protocol and print the table. WEIGHTS is a run folder, a checkpoint, a file of any\n"
        "format that is read here, the name of a zoo model, or `random` for an untrained network.\n\n"
        f"names:\n{lines}\n\n`simsiam evaluate NAME --help` explains each."
    )
