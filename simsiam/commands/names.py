"""From what a person typed to a recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from simsiam.config import Model, Pretraining
from simsiam.errors import UserError, did_you_mean
from simsiam.recipes import pretrain as recipes

Kind = Literal["folder", "list", "shards"]


def find_pretraining(
    name: str | None, data: str | None, *, device: str | None, fit: bool, init: str | None = None
) -> Pretraining:
    """The recipe by name; without one, the one that suits the data: CIFAR-10's, or a folder's fitted to its size.

    Args:
        name: what `--recipe` says.
        data: what the first argument says.
        device: what `--device` says; a CPU gets a smaller network.
        fit: count the images and fit batch and epochs to them.
        init: what `--init` says; a folder's recipe takes the network that is in it.

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
    from simsiam.data.sources import open_source

    kind = kind_of(data)
    images = len(open_source(data, kind=kind))
    if init is not None:
        recipe = dataclasses.replace(recipe, model=_network_of(init, recipe.model))
    return recipes.for_images(dataclasses.replace(recipe, data_kind=kind), images)


def _network_of(init: str, model: Model) -> Model:
    """The backbone that a file of weights holds; the recipe's own where the file alone does not tell it."""
    from simsiam.backbones import ResNet
    from simsiam.weights.load import load_backbone

    try:
        found = load_backbone(init).backbone
    except UserError:  # what is wrong with it is told when it is loaded, flags and all
        return model
    if isinstance(found, ResNet):
        return dataclasses.replace(model, backbone=found.name, width=found.width, stem=found.stem)
    return dataclasses.replace(model, backbone=found.name)


def kind_of(data: str) -> Kind:
    """Folder, list or shards, by what lies there."""
    path = Path(data)
    if path.suffix == ".tar" or "{" in data or "*" in data:
        return "shards"
    if path.is_file():
        return "list"
    if path.is_dir() and any(path.glob("*.tar")):
        return "shards"
    return "folder"


def _has_accelerator(device: str | None, ask: bool) -> bool:
    if device is not None and device != "auto":
        return device != "cpu"
    if not ask:
        return False
    from simsiam.engine.distributed import pick_device

    return pick_device("auto").type != "cpu"


def value_of(flag: str, arguments: list[str]) -> str | None:
    """The value of one flag before the whole line is read: it decides the defaults of the others."""
    found = None
    for n, argument in enumerate(arguments):
        if argument == flag and n + 1 < len(arguments):
            found = arguments[n + 1]
        elif argument.startswith(flag + "="):
            found = argument.partition("=")[2]
    return found  # of several the last counts, as with every flag


def plain(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text).strip("-.")
