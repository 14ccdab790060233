"""`simsiam evaluate`."""

from __future__ import annotations

from importlib import import_module

from simsiam.commands.evaluations import EVALUATIONS, find_evaluation
from simsiam.commands.running import interruptible, is_first_process, say, several_processes

ALL = "all"


def run(arguments: list[str]) -> int:
    """Hand over to the protocol that the first argument names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name == ALL:
        from simsiam.commands import evaluate_all

        return interruptible(lambda: evaluate_all.run(rest))
    evaluation = find_evaluation(name)
    if evaluation.processes == "one" and several_processes():
        say(f"{name} is measured by one process; the others end here.")
        if not is_first_process():
            return 0
    module = import_module(evaluation.module)
    return interruptible(lambda: int(module.run(name, rest)))


def usage() -> str:
    """What `simsiam evaluate --help` prints."""
    names = {
        **{name: each.about for name, each in EVALUATIONS.items()},
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
