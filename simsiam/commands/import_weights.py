"""`simsiam import`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from simsiam import claims, limits
from simsiam.commands.reading import read as read_line
from simsiam.config import Stem
from simsiam.limits import Count
from simsiam.wording import counted, plain

if TYPE_CHECKING:
    from torch import Tensor

    from simsiam.weights.load import Loaded


@dataclass(frozen=True, kw_only=True)
class Command:
    """Read weights of any program, say what they are, and write a folder that every command takes.

    The format is recognised from the tensors: official code, OpenMMLab, torchvision, timm, solo-learn, lightly, DINO,
    MoCo, BYOL, VISSL, SwAV, detectron2 and others, or a plain state dict. No code in the file is run. Weights load
    whole or not at all. Projector and predictor are kept where they are in the file, so that training can start from
    them.
    """

    # A weights file, or the name of a zoo model.
    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    out: Path | None = None  # Folder to write; without it, runs/import-FILE.
    # The network, if it cannot be inferred from the tensors: resnet18, or timm:NAME for a timm model.
    backbone: str | None = None
    width: Count | None = None  # Channels of the stem, if they cannot be inferred; 64 in published ResNets.
    stem: Stem | None = None  # Kind of stem; the stride of a 3x3 stem cannot be inferred from the tensors.
    # Channel order of the training images; auto: RGB, except for zoo files known to be BGR.
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    branch: str | None = None  # If the file holds several networks, part of the name of the one to read: student.
    channels: Literal["rgb", "widen"] = "rgb"  # widen: a first layer of one channel (grey images) is repeated for RGB.
    # Licence of the weights, kept for later exports; without it, that of the zoo's card if there is one.
    licence: str | None = None


def run(arguments: list[str]) -> int:
    """Import, and say what can be done next."""
    command = read_line(Command, arguments, prog="simsiam import")
    limits.check(command, prefixes=False)
    from simsiam.weights import zoo
    from simsiam.weights.load import load_backbone
    from simsiam.weights.save import IMPORT_FILES, write_import

    folder = command.out or Path("runs") / f"import-{plain(Path(command.file).name)}"
    claims.refuse_owned(folder, "import")
    loaded = load_backbone(
        command.file,
        backbone=command.backbone,
        width=command.width,
        stem=command.stem,
        channel_order=command.channel_order,
        branch=command.branch,
        channels=command.channels,
    )
    licence = command.licence or zoo.licence_of(command.file)
    with claims.claim(folder, command="import", makes=IMPORT_FILES, inputs=[Path(command.file)], whole=True):
        write_import(loaded, folder, licence=licence)
    _print_facts(command.file, loaded, licence)
    print(f"\nwritten: {folder}\nnext, for instance:")
    print(f"  simsiam evaluate knn {shlex.quote(str(folder))} --data SET")
    print(f"  simsiam export {shlex.quote(str(folder))} --to timm")
    print(f"  simsiam pretrain IMAGES {' '.join(training_flags(loaded))} --init {shlex.quote(str(folder))}")
    return 0


def _print_facts(source: str, loaded: Loaded, licence: str | None) -> None:
    backbone = loaded.backbone
    parameters = sum(p.numel() for p in backbone.parameters())
    details = ", ".join(f"{key} {value}" for key in ("width", "stem") if (value := getattr(backbone, key, None)))
    facts = loaded.preprocess
    print(f"{source}: recognised as {loaded.source_format}")
    tensors = counted(len(backbone.state_dict()), "tensor")
    print(f"  backbone   {backbone.name}{f' ({details})' if details else ''}: {tensors}, all loaded;")
    print(f"             {parameters:,} parameters, {backbone.features} features")
    for head, state in (("projector", loaded.projector), ("predictor", loaded.predictor)):
        print(f"  {head:<9}  {_head(state)}")
    print(f"  images     RGB, {facts.size} px, mean {_three(facts.mean)}, std {_three(facts.std)} ({facts.origin})")
    print(f"  licence    {licence or 'not stated'}")
    print(f"  SHA-256    {loaded.weights.sha256} (of the backbone's tensors)")
    for note in loaded.notes:
        print(f"  note: {note}")


def _head(state: dict[str, Tensor] | None) -> str:
    if state is None:
        return "none in it"
    sizes = [state[f"{3 * layer}.weight"] for layer in range(len(state)) if f"{3 * layer}.weight" in state]
    widths = [int(sizes[0].shape[1]), *(int(weight.shape[0]) for weight in sizes)]
    return f"{counted(len(state), 'tensor')}, {' -> '.join(map(str, widths))}"


def training_flags(loaded: Loaded) -> list[str]:
    """The flags of `simsiam pretrain` under which a network takes over this backbone and these heads."""
    from simsiam.config import PUBLISHED_MODEL

    backbone, published = loaded.backbone, PUBLISHED_MODEL
    found: dict[str, object] = {"backbone": backbone.name}
    found |= {key: value for key in ("width", "stem") if (value := getattr(backbone, key, None)) is not None}
    if (projector := loaded.projector) is not None:
        layers = sum(f"{3 * layer}.weight" in projector for layer in range(len(projector)))
        dim = projector[f"{3 * layers - 3}.weight"].shape[0]
        found |= {"projector_layers": layers, "projector_hidden": projector["0.weight"].shape[0], "projector_dim": dim}
    if (predictor := loaded.predictor) is not None:
        found |= {"predictor_dim": predictor["0.weight"].shape[0]}
    if all(value == getattr(published, key) for key, value in found.items()):
        return ["--recipe", "resnet50_8xb32-coslr-100e"]
    return [word for key, value in found.items() for word in (f"--model.{key.replace('_', '-')}", str(value))]


def _three(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)
