"""A backbone from anywhere: a run folder, a checkpoint, or a file that another program wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from simsiam.backbones import TIMM, Backbone, check_known
from simsiam.config import IMAGENET_MEAN as IMAGENET_MEAN
from simsiam.config import IMAGENET_STD as IMAGENET_STD
from simsiam.config import Pretraining, Stem, command_to_go_on, from_dict, with_later_fields
from simsiam.errors import UserError
from simsiam.results import WeightsId, read_json
from simsiam.weights import cards
from simsiam.weights.architecture import Choice, check_forward, fill, infer, recognised
from simsiam.weights.convert import Converted, convert, convert_timm
from simsiam.weights.reading import ONNX, Content, read

BACKBONE_FORMAT = "simsiam-backbone-1"
CHECKPOINT_FORMAT = "simsiam-checkpoint-1"
IMPORT_FILE = "import.json"  # in the folder of an import: where it came from
Channels = Literal["rgb", "widen"]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How images must come in: RGB in [0, 1], normalised per channel."""

    size: int  # pixels of the square crop
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: Literal["recipe", "assumed"]  # assumed: the file does not say; ImageNet's, at 224 or 32 pixels

    def __post_init__(self) -> None:
        """Lists, as JSON has them, become tuples."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A backbone with what is known of it. Heads have the names of `simsiam.model.SimSiam`'s two sequences."""

    backbone: Backbone  # on the CPU, in evaluation mode
    recipe: Pretraining | None  # of our own runs
    weights: WeightsId
    projector: dict[str, Tensor] | None
    predictor: dict[str, Tensor] | None
    source_format: str  # for people: "run folder", "official pre-train", ...
    preprocess: Preprocess
    notes: tuple[str, ...] = ()  # what was folded, left out or assumed


@dataclass(kw_only=True)
class _Found:
    """What a source holds before the network is built."""

    converted: Converted
    declared: Choice = field(default_factory=Choice)
    recipe: Pretraining | None = None
    preprocess: Preprocess | None = None  # where the file says it


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted names with the shape, dtype and bytes of each tensor."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_backbone(
    source: str | Path,
    *,
    backbone: str | None = None,
    width: int | None = None,
    stem: Stem | None = None,
    channel_order: Literal["auto", "rgb", "bgr"] = "auto",
    branch: str | None = None,
    channels: Channels = "rgb",
    backbone_flag: str = "--backbone",
) -> Loaded:
    """Load a backbone, whole or not at all.

    Args:
        source: a run folder, one of our checkpoints, a file in any format that docs/guides/weights.md lists, or the
            name of a zoo card whose file was fetched, or of an own run that was added to the zoo.
        backbone: the network, if it cannot be inferred from the tensors; `timm:NAME` for any timm model.
        width: channels of the stem, if they cannot be inferred.
        stem: kind of stem; the stride of a 3x3 stem cannot be inferred, and `small` (stride 1) is assumed.
        channel_order: of the images that the weights were trained on; auto: BGR for the zoo's files that were, by
            file name, else RGB. BGR weights are converted to take RGB: first convolution and normalisation.
        branch: part of the name of the network to read from a file with several (`student`); None: the
            one that its authors evaluate.
        channels: widen: repeat a one-channel first layer for RGB; rgb: refuse such a file.
        backbone_flag: what messages call `backbone`.

    Raises:
        UserError: the source cannot be read safely, is of no known format or of another network than `backbone`, or
            does not fit the network tensor by tensor (the message lists both sides).

    >>> loaded = load_backbone("runs/demo")
    >>> loaded.backbone.name, loaded.backbone.features
    ('resnet10', 64)
    """
    if backbone is not None:
        check_known(backbone, flag=backbone_flag)
    path = locate(source)
    wanted = Choice(backbone=backbone, width=width, stem=stem)
    found = _find(path, wanted, branch=branch, widen=channels == "widen")
    _refuse_another_network(source, found, backbone, backbone_flag)
    architecture = infer(found.converted.backbone, wanted.over(found.declared), path)
    preprocess = found.preprocess or _preprocess(found.recipe, architecture.stem)
    if channel_order == "bgr" or (channel_order == "auto" and cards.channel_order(path.name) == "BGR"):
        preprocess = _turn_to_rgb(found.converted, preprocess)
    network = fill(architecture, found.converted.backbone, path, found.converted.format)
    if found.recipe is None:  # not of this program's own training
        found.converted.notes += check_forward(network, path)
    return Loaded(
        backbone=network,
        recipe=found.recipe,
        weights=WeightsId(source=str(source), sha256=fingerprint(network.state_dict())),
        projector=found.converted.projector,
        predictor=found.converted.predictor,
        source_format=found.converted.format,
        preprocess=preprocess,
        notes=(*found.converted.notes, *cards.notes_for_file(path.name)),
    )


def _refuse_another_network(source: str | Path, found: _Found, asked: str | None, flag: str) -> None:
    """A name that contradicts the file is reported in one line; a list of misfitting tensors would add nothing."""
    it_is = found.declared.backbone or recognised(found.converted.backbone)
    if asked is None or it_is is None or asked == it_is:
        return
    raise UserError(
        f"{source}: the network in it is {it_is}, but {flag} says {asked}, for all weights. Leave {flag} out or say "
        f"{it_is}.\nUntrained networks: `random:{asked}`, or `random:{source}` for an untrained twin of this one."
    )


def locate(source: str | Path) -> Path:
    """The file or folder that a source names; a zoo name stands for its fetched file."""
    path = Path(source).expanduser()
    if path.exists() or not isinstance(source, str):
        return path
    if (own := cards.own_folder(source)).is_dir():
        return own
    card = cards.find(source)
    return cards.fetched_file(card) if card else path


def unfinished(source: str | Path) -> str | None:
    """What to say of a run whose pre-training is not finished, with the command that resumes it; None otherwise."""
    folder = Path(source).expanduser()  # the zoo has no unfinished ones
    if not (folder / "recipe.json").exists() or _is_finished(folder):
        return None
    return (
        f"{folder}: the pre-training is not finished; its last checkpoint is used. To resume it:\n"
        f"  {command_to_go_on(read_json(folder / 'recipe.json'), folder)}"
    )


def _find(path: Path, wanted: Choice, *, branch: str | None = None, widen: bool = False) -> _Found:
    if path.is_dir():
        return _find_in_folder(path, wanted)
    content = read(path)
    if content.metadata.get("format") == BACKBONE_FORMAT:
        return _own_backbone(content)
    if isinstance(content.raw, Mapping) and content.raw.get("format") == CHECKPOINT_FORMAT:
        return _own_checkpoint(content)
    if wanted.backbone and wanted.backbone.startswith(TIMM):
        return _Found(converted=convert_timm(content.raw, wanted.backbone, path, branch=branch))
    found = _Found(converted=convert(content.raw, path, branch=branch, widen=widen))
    if content.metadata.get("format") == ONNX:
        found.converted.format = ONNX
        found.declared = Choice(stem=cast("Stem | None", content.metadata.get("stem")))
    conv1 = found.converted.backbone["conv1.weight"]
    if found.converted.format == "solo-learn" and conv1.shape[-1] == 3:
        found.declared = Choice(stem_padding=2)  # solo-learn pads its CIFAR stem by two
        found.converted.notes.append("solo-learn: its 3x3 stem pads by 2, kept so")
    return found


def _find_in_folder(folder: Path, wanted: Choice) -> _Found:
    """A finished run's exported backbone with the last checkpoint's heads; else the last checkpoint."""
    exported, steps, finished = folder / "backbone.safetensors", _steps(folder), _is_finished(folder)
    if not finished and not steps:
        if (folder / "recipe.json").exists():
            raise UserError(
                f"{folder}: no checkpoint in this run folder yet. Name another folder, or resume the run:\n"
                f"  {command_to_go_on(read_json(folder / 'recipe.json'), folder)}"
            )
        raise UserError(f"{folder}: no run folder: neither backbone.safetensors nor checkpoints/step-*.pt is in it.")
    found = _find(exported if finished else steps[-1], wanted)
    if not finished:
        found.converted.notes.append(f"{steps[-1].name} of a pre-training that was not finished")
    if finished and steps:
        last = _find(steps[-1], wanted).converted
        ours = found.converted.backbone
        if last.backbone.keys() == ours.keys() and all(torch.equal(ours[name], t) for name, t in last.backbone.items()):
            found.converted.projector, found.converted.predictor = last.projector, last.predictor
    elif (heads := folder / "heads.safetensors").exists():
        parts = read(heads).raw
        found.converted.projector, found.converted.predictor = _under(parts, "projector."), _under(parts, "predictor.")
    if found.recipe is None and (folder / "recipe.json").exists():
        found.recipe = _recipe(read_json(folder / "recipe.json").get("recipe"), folder / "recipe.json")
    found.converted.format = "run folder"
    if (folder / IMPORT_FILE).exists():
        origin = read_json(folder / IMPORT_FILE)
        found.converted.format = f"import of {origin['format']}"
        found.converted.notes += origin["notes"]
    return found


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints/step-*.pt"))


def _is_finished(folder: Path) -> bool:
    return (folder / "backbone.safetensors").exists() and ((folder / "result.json").exists() or not _steps(folder))


def _own_backbone(content: Content) -> _Found:
    text = content.metadata
    recipe = _recipe(json.loads(text["recipe"]), content.path) if text.get("recipe") else None
    declared = Choice(
        backbone=text.get("backbone"),
        width=int(text["width"]) if text.get("width") else None,
        stem=cast("Stem | None", text.get("stem") or None),
        stem_padding=int(text["stem_padding"]) if text.get("stem_padding") else None,
    )
    return _Found(
        converted=Converted(format="simsiam backbone", backbone=content.raw),
        declared=declared,
        recipe=recipe,
        preprocess=Preprocess(**json.loads(text["preprocess"])) if text.get("preprocess") else None,
    )


def _own_checkpoint(content: Content) -> _Found:
    recipe = _recipe(content.raw.get("recipe"), content.path)
    state = content.raw.get("modules", {}).get("model", {})
    if recipe is None or not state:
        raise UserError(f"{content.path}: a checkpoint of this program without a recipe or model; it is damaged.")
    converted = Converted(
        format="simsiam checkpoint",
        backbone=_under(state, "backbone.") or {},
        projector=_under(state, "projector."),
        predictor=_under(state, "predictor."),
    )
    model = recipe.model
    declared = Choice(backbone=model.backbone, width=model.width, stem=model.stem)
    return _Found(converted=converted, declared=declared, recipe=recipe)


def _recipe(raw: Any, path: Path) -> Pretraining | None:
    if not raw:
        return None
    try:
        return from_dict(Pretraining, with_later_fields(raw))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: its recipe does not fit this version ({error}). Export the backbone with its own."
        ) from error


def _preprocess(recipe: Pretraining | None, stem: Stem) -> Preprocess:
    if recipe is not None:
        return Preprocess(size=recipe.views.size, mean=recipe.views.mean, std=recipe.views.std, origin="recipe")
    assumed = Preprocess(size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, origin="assumed")
    return assumed if stem == "imagenet" else replace(assumed, size=32)


def _turn_to_rgb(converted: Converted, preprocess: Preprocess) -> Preprocess:
    """Weights trained on BGR under RGB's mean and std: the same function of an RGB image."""
    if "conv1.weight" in converted.backbone:
        converted.backbone["conv1.weight"] = converted.backbone["conv1.weight"].flip(1)
    converted.notes.append("trained on BGR images: first convolution, mean and std were converted to RGB")
    (r, g, b), (sr, sg, sb) = preprocess.mean, preprocess.std
    return replace(preprocess, mean=(b, g, r), std=(sb, sg, sr))


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return part or None
