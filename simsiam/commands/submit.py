"""`simsiam submit`: any other verb as a SLURM job, one process a GPU, requeued when it is pre-empted."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from simsiam import claims, limits
from simsiam.commands.reading import read as read_line
from simsiam.errors import UserError, install_extra
from simsiam.limits import Count, Positive

WRITTEN = ("--out", "--table", "--cache")  # flags of places that a verb writes to


@dataclass(frozen=True, kw_only=True)
class Command:
    """Submit another verb to SLURM: simsiam submit [OPTIONS] -- pretrain DATA --recipe NAME ..."""

    nodes: Count = 1  # Number of machines.
    gpus: int = 8  # GPUs on each machine; one process per GPU.
    cpus: Count = 8  # CPU cores of each process.
    hours: Positive = 24.0  # Time limit in hours; a job that reaches it is queued again and resumes.
    partition: str | None = None  # SLURM partition; by default the cluster's.
    after: tuple[str, ...] = ()  # Jobs that must succeed first, by number: --after 4711.
    logs: Path = Path("runs/slurm")  # Folder for job files and their output.
    cluster: Literal["slurm", "local"] = "slurm"  # slurm, or local: processes on this machine, to try it out.


@dataclass(frozen=True)
class Job:
    """One verb with its arguments, run by every process of the job."""

    arguments: tuple[str, ...]
    world: int

    def __call__(self) -> int:
        """Join the other processes and run the verb; returns its exit code."""
        import submitit

        from simsiam.commands.verbs import find_verb

        if self.world > 1:
            submitit.helpers.TorchDistributedEnvironment().export()
        return find_verb(self.arguments[0])(list(self.arguments[1:]))

    def checkpoint(self) -> Any:
        """What the pre-empted job is requeued as: the same command, which resumes from its last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def run(arguments: list[str]) -> int:
    """Submit, and say how to follow the job."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, verb = arguments[:at], arguments[at + 1 :]
    command = read_line(Command, own, prog="simsiam submit")
    limits.check(command, prefixes=False)
    if not verb:
        raise UserError("say what to submit after --: simsiam submit --gpus 8 -- pretrain DATA --recipe NAME")
    from simsiam.commands.verbs import find_verb

    find_verb(verb[0])
    claims.refuse_inputs([command.logs], _read_by(verb), flag="--logs")
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"simsiam submit needs: {install_extra('slurm')}") from error
    executor = submitit.AutoExecutor(folder=command.logs, cluster=command.cluster)
    tasks = max(1, command.gpus)
    executor.update_parameters(
        nodes=command.nodes,
        tasks_per_node=tasks,
        gpus_per_node=command.gpus,
        cpus_per_task=command.cpus,
        timeout_min=round(command.hours * 60),
        name=f"simsiam-{verb[0]}",
        **(_slurm_settings(command) if command.cluster == "slurm" else {}),
    )
    job = executor.submit(Job(tuple(verb), command.nodes * tasks))
    print(f"job {job.job_id}: {' '.join(verb)}\noutput: {job.paths.stdout}")
    if command.cluster == "local":
        codes = [int(code) for code in job.results()]
        print(f"exit codes: {codes}", file=sys.stderr)
        return max(codes)
    return 0


def _read_by(verb: list[str]) -> list[Path]:
    """The places that a verb's words name, but for those that it writes to and what this program made."""
    words = [part for word in verb for part in (word.split("=", 1) if word.startswith("--") else [word])]
    places = {Path(word) for before, word in itertools.pairwise(words) if before not in WRITTEN}
    return [place for place in sorted(places) if place.exists() and claims.owner(place) is None]


def _slurm_settings(command: Command) -> dict[str, Any]:
    """What only a SLURM cluster knows."""
    settings: dict[str, Any] = {"slurm_partition": command.partition} if command.partition else {}
    if command.after:
        settings["slurm_additional_parameters"] = {"dependency": f"afterok:{':'.join(command.after)}"}
    return settings
