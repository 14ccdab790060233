"""`simsiam export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simsiam import limits
from simsiam.commands.reading import read as read_line
from simsiam.commands.running import say_unfinished
from simsiam.config import Stem
from simsiam.errors import UserError
from simsiam.limits import Count
from simsiam.report.collect import RESULT_FILE
from simsiam.weights.modelcard import Target
from simsiam.wording import plain


@dataclass(frozen=True, kw_only=True)
class Command:
    """Write a backbone, or a trained model, for another program, load it again there and compare on real photographs.

    torchvision, timm, mmpretrain, mmdet: state dicts under each one's names; detectron2: a pickle of arrays; onnx and
    pt2 (torch.export): the whole network; safetensors: weights and recipe in one file; huggingface: the folder that a
    hub shows. A model card comes with each. A file whose features differ by more than the tolerance is removed.

    The folder of a finished evaluation with a detector, segmentor or classifier is written whole, as onnx or pt2.
    """

    # Run folder, checkpoint, weights file of any format, or zoo name; or an evaluation's folder.
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    to: tuple[Target, ...]  # Programs to write for, one or more: --to timm onnx.
    out: Path | None = None  # Folder; without it, SOURCE/export or exports/SOURCE, with a sub-folder for each target.
    licence: str | None = None  # Licence of the weights, for the card; without it, what the zoo or an import says.
    # The network, if it cannot be inferred from the tensors: resnet18, or timm:NAME for a timm model.
    backbone: str | None = None
    width: Count | None = None  # Channels of the stem, if they cannot be inferred; 64 in published ResNets.
    stem: Stem | None = None  # Kind of stem; the stride of a 3x3 stem cannot be inferred from the tensors.
    # Channel order of the training images; auto: RGB, except for zoo files known to be BGR.
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"


def run(arguments: list[str]) -> int:
    """Export to each target in turn; one that cannot hold this backbone does not stop the others."""
    command = read_line(Command, arguments, prog="simsiam export")
    limits.check(command, prefixes=False)
    if (Path(command.source) / RESULT_FILE).is_file() and not (Path(command.source) / "recipe.json").exists():
        return _export_model(command)
    from simsiam.weights import zoo
    from simsiam.weights.export import export
    from simsiam.weights.load import load_backbone

    say_unfinished(command.source)
    loaded = load_backbone(
        command.source,
        backbone=command.backbone,
        width=command.width,
        stem=command.stem,
        channel_order=command.channel_order,
    )
    licence = command.licence or zoo.licence_of(command.source)
    refused = []
    for target in command.to:
        try:
            done = export(loaded, to=target, out=_folder(command, target), licence=licence)
        except UserError as error:
            refused.append(str(error))
            continue
        print(done)
        print(f"{done.card}: model card")
    if refused:
        raise UserError("\n".join(refused))
    return 0


def _export_model(command: Command) -> int:
    """The trained model of an evaluation's folder."""
    from simsiam.evaluation.programs import export_model

    for target in command.to:
        if target not in ("onnx", "pt2"):
            raise UserError(f"--to {target}: the model of an evaluation is written as onnx or pt2, a program whole.")
        for line in export_model(Path(command.source), to=target, out=_folder(command, target)):
            print(line)
    return 0


def _folder(command: Command, target: Target) -> Path:
    if command.out is not None:
        return command.out / target if len(command.to) > 1 else command.out
    source = Path(command.source)
    return (source / "export" if source.is_dir() else Path("exports") / plain(source.name)) / target
