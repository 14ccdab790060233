"""`simsiam reproduce`: the paper's findings as runs, each checked against what the paper found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from simsiam import claims
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import is_first_process, say
from simsiam.config import Machine, command_line
from simsiam.errors import UserError, did_you_mean
from simsiam.limits import Count
from simsiam.recipes.reproduce import BASES, FINDINGS, Finding
from simsiam.wording import counted, duration

if TYPE_CHECKING:
    from simsiam.pretraining.findings import Row, Run

OUT = Path("runs/reproduce")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Run the paper's findings and check each against its outcome there: works, worse, fails, collapses, unstable.

    The same command resumes an interrupted one, and trains nothing twice. Exit code: 0 where every outcome is the
    paper's, 1 where one is not, 2 a mistake, 130 or 143 interrupted and saved.
    """

    # Findings to run, such as stop-gradient; without any, all. --dry-run lists them.
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]")] = ()
    scale: Literal["small", "paper"] = "small"  # small: CIFAR-10 on a CPU; paper: ImageNet, weeks of GPUs.
    data: str | None = None  # A local copy of CIFAR-10; for --scale paper, ImageNet's folder.
    seeds: Count = 3  # Number of seeds, i.e. runs of each case.
    epochs: Count | None = None  # Epochs of each run; by default the scale's.
    train_images: int | None = None  # Training images of each run, 0 for all; by default the scale's.
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # List the runs, and train nothing.
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=lambda: Machine(out=OUT))


def run(arguments: list[str]) -> int:
    """Train what is not trained yet, judge, and write the report."""
    command = read_line(Command, arguments, prog="simsiam reproduce")
    for name in command.names:
        if name not in FINDINGS:
            raise UserError(f"{name}: no such finding.{did_you_mean(name, FINDINGS)} Known: {', '.join(FINDINGS)}.")
    findings = [finding for name, finding in FINDINGS.items() if not command.names or name in command.names]
    if command.scale == "paper" and command.data is None and not command.dry_run:
        raise UserError("--scale paper needs ImageNet's folder: simsiam reproduce --scale paper --data DIR")
    from simsiam.engine.distributed import launcher
    from simsiam.engine.stopping import Interrupted
    from simsiam.pretraining import findings as judged

    out = (command.machine.out or OUT) / command.scale
    base = BASES[command.scale]()
    wanted: dict[str, Any] = {"epochs": command.epochs, "train_images": command.train_images}
    base = dataclasses.replace(base, **{name: value for name, value in wanted.items() if value is not None})
    runs = judged.runs_of(findings, base, seeds=command.seeds, out=out)
    left = [run for run in runs if not run.finished]
    say(f"{counted(len(runs), 'run')} of {counted(len(findings), 'finding')} in {out}, {len(left)} to do")
    if command.dry_run:
        _list(findings, runs)
        return 0
    read = [Path(command.data)] if command.data and Path(command.data).exists() else []
    claim = claims.claim(out, command="reproduce", makes=judged.FILES, inputs=read)
    with claim if is_first_process() else nullcontext():  # held from before the first hour of training
        try:
            _train(left, command)
            if command.scale == "paper":
                _evaluate(runs, command)
        except Interrupted as stopped:
            say(f"simsiam: {stopped}:\n  {command_line(['reproduce', *arguments], launcher())}")
            return 128 + stopped.signal_number
        if not is_first_process():
            return 0
        about = f"{base.about}; {counted(base.epochs, 'epoch')}, {counted(command.seeds, 'seed')}."
        tables = judged.write_report(findings, runs, out=out, about=about[0].upper() + about[1:])
    _print(findings, tables)
    print(f"\nreport: {out / 'report.html'}")
    return 0 if all(row.passed for rows in tables.values() for row in rows) else 1


def _train(left: Sequence[Run], command: Command) -> None:
    from simsiam.pretraining.findings import seconds_of
    from simsiam.pretraining.run import pretrain

    if left:
        seconds = seconds_of(left, data=command.data, machine=command.machine)
        say(f"about {duration(seconds)} for {counted(len(left), 'run')}, checks and evaluations not counted")
    for number, each in enumerate(left, 1):
        say(f"\n[{number}/{len(left)}] {each.folder.name}")
        machine = dataclasses.replace(command.machine, out=each.folder)
        pretrain(each.recipe, data=command.data, machine=machine, on_collapse="warn")


def _evaluate(runs: Sequence[Run], command: Command) -> None:
    """The paper's own measure: a linear layer on frozen features."""
    from simsiam.pretraining.findings import LINEAR
    from simsiam.protocols import evaluate

    for each in runs:
        machine = dataclasses.replace(command.machine, out=each.folder / LINEAR)
        if (each.folder / "backbone.safetensors").exists():  # not where the training diverged
            evaluate("linear-avgpool", each.folder, machine=machine, data=command.data)


def _list(findings: Sequence[Finding], runs: Sequence[Run]) -> None:
    from simsiam.pretraining.findings import paper_figure

    for finding in findings:
        print(f"\n{finding.name}: {finding.about}")
        for case in finding.cases:
            mine = [run for run in runs if run.case.name == case.name]
            changed = {**case.changes, **{name: f"x {by:g}" for name, by in case.times.items()}}
            settings = ", ".join(f"{name} {value}" for name, value in changed.items()) or "the base"
            done = f"done {sum(run.finished for run in mine)} of {len(mine)}"
            print(f"  {case.title}: {settings}; paper {paper_figure(case, finding)}, {case.expected}; {done}")


def _print(findings: Sequence[Finding], tables: dict[str, list[Row]]) -> None:
    for finding in findings:
        print(f"\n{finding.title}: {finding.about}")
        for row in tables[finding.name]:
            deviation = "" if row.deviation is None else f" ± {row.deviation:.1f}"
            knn = "kNN –" if row.knn is None else f"kNN {row.knn:.1f}{deviation} %"
            linear = "" if row.linear is None else f", linear {row.linear:.1f} %"
            print(
                f"  {'PASS' if row.passed else 'FAIL'}  {row.title}: {row.found}, expected {row.expected}; "
                f"{knn}{linear}, spread {row.spread:.2f}, loss {row.loss:.3f} (paper: {row.paper})"
            )
