"""The main path: pre-train SimSiam on a set of images, watch it, judge it, and leave everything in a run folder.

Reads top to bottom: `pretrain` is the run; the method's step (paper, Algorithm 1) is `train_step` of step.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Literal

import torch
from torch import Tensor, nn

from simsiam import limits, model
from simsiam.config import Machine, Pretraining, as_dict
from simsiam.data.images import write_skipped
from simsiam.data.two_views.loader import Batch
from simsiam.engine import distributed, precision
from simsiam.engine.checkpoints import Checkpoints
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Diverged, EpochEnd, Training, fit
from simsiam.engine.logs import Display, MetricsLog, Tracker
from simsiam.engine.stopping import Interrupted, StopAsked
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.pretraining import estimate, finish, run_folder
from simsiam.pretraining.inputs import Inputs, open_inputs, open_loader, open_monitor, require_fitting, start_network
from simsiam.pretraining.monitor import Monitor
from simsiam.pretraining.pace import choose_layout
from simsiam.pretraining.step import Update, optimizer_of, plan_of, train_step
from simsiam.pretraining.targets import Targets, open_targets
from simsiam.pretraining.verdict import Check, Verdict, judge
from simsiam.results import Result

OnCollapse = Literal["stop", "warn"]


def pretrain(
    recipe: Pretraining,
    *,
    data: str | Path | None = None,
    machine: Machine | None = None,
    labels: Path | None = None,
    compare: Sequence[str] = (),
    init: str | None = None,
    on_collapse: OnCollapse = "stop",
    resume: Literal["auto", "required"] = "auto",
    minutes: float | None = None,
    track: Iterable[Tracker] = (),
) -> Result:
    """Run a recipe, or resume it where it was interrupted.

    Args:
        recipe: the experiment, from `simsiam.recipes.pretrain`.
        data: where the images are; None for sets that can be fetched by name.
        machine: device, workers, run folder.
        labels: a labelled folder or a CSV of path,label for the online kNN; the images need not be trained on.
        compare: weights to measure beside the trained ones, such as a supervised backbone.
        init: weights to start from; projector and predictor too where the file has them.
        on_collapse: stop at a collapse, or only warn.
        resume: auto resumes where the run folder holds this run, and else starts; required starts nothing new.
        minutes: that the run may take once its images are found (and the demo's fetched): the epochs are then planned
            by the measured pace; None: the recipe's.
        track: other places to send the numbers to.

    Returns:
        The result that is also in `result.json`; `detail["verdict"]["status"]` says whether it worked.

    Raises:
        UserError: a mistake in recipe, data or machine.
        Interrupted: the run was asked to stop and has saved its state.
    """
    machine = machine or Machine()
    limits.check(recipe, prefixes=True)
    limits.check(machine, prefixes=True)
    if minutes is not None and not 0 < minutes < math.inf:
        raise UserError(f"--minutes {minutes:g}: must be above zero.")
    with ExitStack() as held:
        process = held.enter_context(distributed.processes(machine.device))
        inputs = open_inputs(recipe, data=data, labels=labels, machine=machine)
        root = run_folder.place(recipe, machine, inputs)
        inputs = run_folder.as_begun(root, inputs, machine)
        require_fitting(recipe, inputs, process)
        if minutes is not None:
            recipe = run_folder.planned(root, recipe, minutes) or estimate.fitted(
                recipe, inputs, machine, process, minutes=minutes
            )
            if recipe.train_images != len(inputs.train) and recipe.data_kind == "demo":
                inputs = open_inputs(recipe, data=data, labels=labels, machine=machine)  # the demo takes fewer
        # a wrong file shows before a folder is claimed
        contenders = None if run_folder.finished(root) else finish.contenders(recipe, compare, init)
        folder = held.enter_context(
            run_folder.claim(
                recipe,
                machine,
                inputs,
                process,
                init=init,
                resume=resume,
                minutes=minutes,
                labels=labels,
                compare=compare,
                reads=(data, labels),
            )
        )
        if (finished := run_folder.finished(folder)) is not None:
            return finished
        assert contenders is not None

        start = start_network(recipe, init)
        network = start.network.to(process.device)
        monitor = open_monitor(recipe, machine, inputs, process)
        reading = Thread(target=run_folder.note_content, args=(folder, inputs), daemon=True)
        if process.is_main:
            reading.start()
        with closing(_Run(recipe, machine, network, inputs, process, folder, track, init=init)) as run:
            run.say_unless_resumed([*inputs.notes, *start.notes, *run.notes])
            verdict = _train(run, monitor, on_collapse)
        if process.is_main:
            reading.join()
            finish.conclude(
                folder, recipe, inputs, monitor, network=network, verdict=verdict, contenders=contenders, bad=run.bad
            )
        distributed.barrier()
        return Result.read(folder / "result.json")


def _train(run: _Run, monitor: Monitor, on_collapse: OnCollapse) -> Verdict:
    """The epochs, with a check of the network before them and after each that the recipe asks for."""
    recipe, process = run.recipe, run.process
    verdict = Verdict(status="too early to say", summary="")
    monitor.checks = run.resume()
    kept = run.training.extra or {}
    monitor.neighbours, monitor.start_hits = kept.get("neighbours"), kept.get("start_hits", {})
    judged = partial(judge, monitor.checks, recipe, images=run.images, start=run.start)

    def check(epoch: int, step: int) -> Verdict:
        found = monitor.check(run.network, epoch=epoch, step=step)
        verdict = judged()
        run.note(found, verdict, monitor)
        return verdict

    if not monitor.checks and process.is_main:
        run.display.say(monitor.about)
        verdict = check(0, 0)
    try:
        for end in run.epochs():
            if end.epoch % recipe.monitor_every and end.epoch != recipe.epochs:
                continue
            stop: StopAsked | None = None
            if process.is_main:
                try:
                    verdict = check(end.epoch, end.global_step)
                except StopAsked as asked:
                    stop = asked
            run.leave_if(stop, end)
            collapsed = verdict.status == "collapsed" and on_collapse == "stop"
            if distributed.any_process(collapsed, process.device):
                break
    except Diverged as error:
        verdict = judged(diverged=str(error)) if process.is_main else verdict
    return judged() if verdict.status == "too early to say" and monitor.checks else verdict


class _Run:
    """The moving parts of a run: loader, optimiser, logs, checkpoints."""

    def __init__(
        self,
        recipe: Pretraining,
        machine: Machine,
        network: SimSiam,
        inputs: Inputs,
        process: Process,
        folder: Path,
        track: Iterable[Tracker],
        *,
        init: str | None,
    ) -> None:
        self.start = "the untrained network" if init is None else f"the weights it started from ({init})"
        self.recipe, self.machine, self.network, self.process, self.folder = recipe, machine, network, process, folder
        self.images = len(inputs.train)
        self.bad = run_folder.known_bad(folder)
        scaler = precision.prepare(recipe.precision, process.device)
        steps = recipe.epochs * (self.images // recipe.batch_size)
        layout = choose_layout(recipe, machine, network, process, steps=steps)
        self.notes = [layout.why] if layout.why else []
        if layout.channels_last:
            network.to(memory_format=torch.channels_last)
        self.parallel = distributed.parallel(network, process, compiled=machine.compile == "on")
        self.loader = open_loader(recipe, machine, inputs, process, channels_last=layout.channels_last)
        optimizer = optimizer_of(recipe, network)
        self.loss = partial(model.loss, similarity=recipe.similarity, symmetric=recipe.symmetric == "on")
        self.targets = open_targets(
            recipe.targets, network, steps=self.loader.steps, images=self.images, dim=recipe.model.projector_dim
        )
        modules: dict[str, nn.Module] = {"model": network}
        if self.targets is not None:
            modules["targets"] = self.targets
        self.training = Training(modules=modules, optimizer=optimizer, recipe=as_dict(recipe), scaler=scaler, extra={})
        self.plan = plan_of(recipe, machine, steps=self.loader.steps)
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=recipe.keep_checkpoints)
        self.log = MetricsLog(folder, trackers=track, writes=process.is_main)
        self.display = Display(recipe.epochs * self.loader.steps, shows=process.is_main)

    def say_unless_resumed(self, notes: Sequence[str]) -> None:
        """What the images are and where the network's parts come from, at the start of a run."""
        if not self.checkpoints.numbered():
            for note in notes:
                self.display.say(note)

    def resume(self) -> list[Check]:
        """Take up the last checkpoint, or say what the run will take; returns the checks made so far."""
        saved = self.checkpoints.latest()
        if saved is not None:
            self.training.load(saved)
            self.log.rewind(saved["log_offset"])
            self.display.say(f"resuming {self.folder} at epoch {self.training.epoch + 1}, step {self.training.step}")
            return run_folder.checks(self.folder)
        self.log.rewind(0)
        step = partial(self.forward, targets=copy.deepcopy(self.targets))
        found = estimate.of_loader(self.network, self.loader, step, epochs=self.recipe.epochs)
        self.display.say(found.line(self.process.device))
        self.display.say(f"run folder {self.folder}; Ctrl-C saves and stops, the same command resumes")
        return []

    def epochs(self) -> Iterator[EpochEnd]:
        """The training itself."""
        return fit(
            self.training,
            step=self.step,
            batches=self.loader.epoch,
            plan=self.plan,
            checkpoints=self.checkpoints,
            log=self.log,
            display=self.display,
            process=self.process,
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The method's step on a batch; unreadable images are listed as they are met."""
        if batch.bad:
            self.bad.update({bad.path: bad for bad in batch.bad})
            if self.process.is_main:
                write_skipped(self.folder / run_folder.SKIPPED, self.bad.values())
        return self.forward(self.parallel, batch, self.training.update, targets=self.targets)

    def forward(
        self, network: nn.Module, batch: Batch, update: Update, *, targets: Targets | None
    ) -> dict[str, Tensor]:
        """`train_step` in the recipe's precision."""
        given = None if targets is None else partial(targets, batch)
        with precision.autocast(self.recipe.precision, self.process.device):
            return train_step(network, batch.x1, batch.x2, update=update, loss=self.loss, targets=given)

    def note(self, check: Check, verdict: Verdict, monitor: Monitor) -> None:
        """Write a check down, show it, and keep the weights if they are the best so far.

        The neighbours and the start's hits go into the checkpoints: what is compared with them survives a resume.
        """
        values = {key: value for key, value in vars(check).items() if value is not None}
        self.log.write("monitor", **values, status=verdict.status)
        self.display.say(f"epoch {check.epoch}: {check.in_words}: {verdict.status}")
        score = check.view_recall if check.knn is None else check.knn
        for line in verdict.evidence if verdict.status == "worse than its start" else []:
            self.display.say(f"  {line}")
        extra = self.training.extra = self.training.extra or {}
        extra.update(neighbours=monitor.neighbours, start_hits=monitor.start_hits)
        if check.step and score > extra.get("best", -1.0):
            extra.update(best=score, best_epoch=check.epoch)
            self.checkpoints.save_best(self.training.state(self.log.offset))

    def leave_if(self, stop: StopAsked | None, end: EpochEnd) -> None:
        """Raise Interrupted in every process where the check of an epoch was stopped; a resume checks once more."""
        if not distributed.any_process(stop is not None, self.process.device):
            return
        self.training.epoch, self.training.step = end.epoch - 1, self.plan.steps_per_epoch
        if self.process.is_main:
            self.checkpoints.save(self.training.state(self.log.offset), global_step=end.global_step)
        distributed.barrier()
        signal_number = stop.signal_number if stop is not None else None
        raise Interrupted(signal_number, f"{self.checkpoints.folder} at step {end.global_step:,}")

    def close(self) -> None:
        """End the logs and the loader's processes."""
        self.log.close()
        self.display.stop()
        self.loader.close()
