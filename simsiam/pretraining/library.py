"""Pre-training from Python: `pretrain("photos")`, with the recipe that the command would choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simsiam.config import Machine, Model, Pretraining
from simsiam.errors import UserError, did_you_mean
from simsiam.recipes import pretrain as recipes
from simsiam.results import Result

if TYPE_CHECKING:
    from simsiam.backbones import Backbone
    from simsiam.pretraining.run import OnCollapse
    from simsiam.pretraining.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What `pretrain` leaves: `verdict`, `backbone`, the run `folder`, and the whole `result`."""

    folder: Path
    result: Result

    @cached_property
    def verdict(self) -> Verdict:
        """Whether it worked, on which numbers, and what to do if it did not."""
        from simsiam.pretraining.verdict import from_json

        return from_json(self.result.detail["verdict"])

    @cached_property
    def backbone(self) -> Backbone:
        """The trained backbone, on the CPU, in evaluation mode; raises UserError if the training diverged."""
        from simsiam.weights.load import load_backbone

        return load_backbone(self.folder).backbone.eval()


def pretrain(
    data: str | Path | None = None,
    *,
    recipe: str | Pretraining | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    machine: Machine | None = None,
    labels: str | Path | None = None,
    compare: Sequence[str] = (),
    init: str | None = None,
    on_collapse: OnCollapse = "stop",
    resume: Literal["auto", "required"] = "auto",
    minutes: float | None = None,
    track: Iterable[Literal["tensorboard", "wandb"]] = (),
    **settings: Any,
) -> FinishedRun:
    """Pre-train SimSiam on images, as `simsiam pretrain` does: watched, judged, with a report in its run folder.

    Args:
        data: a folder, a list, shards, or "cifar10"; None for the recipes that bring their own data ("demo").
        recipe: by name, or a record; None: as the command chooses, for a folder fitted to its number of images.
        out: the run folder; a run that was interrupted there is resumed, a finished one is read.
        device: auto, cpu, cuda, cuda:N or mps.
        machine: workers, cache and the other settings of the machine.
        labels: a labelled folder or a CSV of path,label for the kNN check during training.
        compare: weights to measure beside the trained ones.
        init: weights to start from.
        on_collapse: stop at a collapse, or only warn.
        resume: required: raise UserError where there is nothing to resume.
        track: trackers to log the figures to as well.
        minutes: that the run may take once its images are found, in place of `epochs`.
        settings: fields of the recipe to change, such as epochs=50.

    Raises:
        UserError: a mistake in recipe, data or machine.
        Interrupted: the run was asked to stop and has saved its state.

    >>> run = pretrain("photos", epochs=1, batch_size=8)
    >>> run.verdict.status
    'too early to say'
    >>> run.folder
    PosixPath('runs/folder-cpu-photos')
    >>> run.backbone(torch.zeros(1, 3, 48, 48)).shape
    torch.Size([1, 128])
    """
    from simsiam.pretraining import run

    if not isinstance(recipe, Pretraining):
        recipe = choose_recipe(recipe, None if data is None else str(data), device=device, fit=True, init=init)
    unknown = settings.keys() - {field.name for field in dataclasses.fields(recipe)}
    if unknown:
        word = sorted(unknown)[0]
        hint = did_you_mean(word, [field.name for field in dataclasses.fields(recipe)])
        raise UserError(f"pretrain: a recipe has no field {word!r}.{hint}")
    if minutes is not None and "epochs" in settings:
        raise UserError("pretrain: minutes and epochs both say how long to train. Give one of them.")
    changes: dict[str, Any] = {"device": device}
    if out is not None:
        changes["out"] = Path(out)
    result = run.pretrain(
        dataclasses.replace(recipe, **settings),
        data=data,
        machine=dataclasses.replace(machine or Machine(), **changes),
        labels=None if labels is None else Path(labels),
        compare=compare,
        init=init,
        on_collapse=on_collapse,
        resume=resume,
        minutes=minutes,
        track=track,
    )
    return FinishedRun(folder=Path(result.weights.source), result=result)


def choose_recipe(
    name: str | None,
    data: str | None,
    *,
    device: str | None,
    fit: bool,
    init: str | None = None,
    cache: Path | None = None,
) -> Pretraining:
    """The recipe by name; without one, the one that suits the data: CIFAR-10's, or a folder's fitted to its size.

    Args:
        name: what `--recipe` says.
        data: what the first argument says.
        device: what `--device` says; a CPU gets a smaller network.
        fit: count the images and fit batch and epochs to them.
        init: what `--init` says; a folder's recipe takes the network that is in it.
        cache: what `--cache` says.

    Raises UserError on an unknown name, or if the folder cannot be read.
    """
    if name is None:
        name = "cifar10" if data == "cifar10" else "folder" if _has_accelerator(device, fit) else "folder-cpu"
    if name not in recipes.RECIPES:
        hint = did_you_mean(name, recipes.RECIPES)
        raise UserError(f"--recipe {name}: there is no such recipe.{hint} `simsiam recipes` lists them.")
    recipe = recipes.RECIPES[name]()
    if name not in ("folder", "folder-cpu") or data is None or not fit:
        return recipe
    from simsiam.data.sources import kind_of, open_source

    kind = kind_of(data)
    images = len(open_source(data, kind=kind, cache=cache))
    if init is not None:
        recipe = dataclasses.replace(recipe, model=_network_of(init, recipe.model))
    return recipes.for_images(dataclasses.replace(recipe, data_kind=kind), images)


def _network_of(init: str, model: Model) -> Model:
    """The backbone that a file of weights holds; the recipe's own where the file alone does not tell it."""
    from simsiam.backbones import ResNet
    from simsiam.weights.load import load_backbone

    try:
        found = load_backbone(init).backbone
    except UserError:  # loading it reports what is wrong, with the flags
        return model
    if isinstance(found, ResNet):
        return dataclasses.replace(model, backbone=found.name, width=found.width, stem=found.stem)
    return dataclasses.replace(model, backbone=found.name)


def _has_accelerator(device: str | None, ask: bool) -> bool:
    if device is not None and device != "auto":
        return device != "cpu"
    if not ask:
        return False
    from simsiam.engine.distributed import pick_device

    return pick_device("auto").type != "cpu"
