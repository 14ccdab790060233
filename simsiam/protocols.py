"""The classification protocols by name: data from words, the recipe fitted to backbone and data, the result.

`evaluate` is the door from Python; `simsiam evaluate NAME` goes through the same functions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam import limits
from simsiam.config import Machine, as_dict
from simsiam.errors import UserError, did_you_mean
from simsiam.evaluation.protocol import Protocol, run_once
from simsiam.recipes.evaluation import CHOICES
from simsiam.weights.pretrained import PretrainedBackbone

if TYPE_CHECKING:
    from simsiam.data.classification.datasets import DatasetArgs
    from simsiam.results import Result

SEMI_SUPERVISED, RETRIEVAL = "semi-supervised", "retrieval"


def evaluate(
    name: str,
    weights: str | Path,
    *,
    data: str | Path | None = None,
    train: str | Path | None = None,
    test: str | Path | None = None,
    part: Path | None = None,
    recipe: str | Protocol[Any] | None = None,
    size: int | None = None,
    seed: int = 0,
    machine: Machine | None = None,
) -> Result:
    """Measure a backbone by one of the classification protocols.

    Args:
        name: knn, svm-voc07, low-shot-voc07, linear-mhead, linear-avgpool, inaturalist2018, places205,
            semi-supervised, probe, few-labels, clustering or retrieval.
        weights: a run folder, a file of any format that `load_backbone` takes, a zoo name; `random`, `random:RUN`.
        data: a set that has its own splits: cifar10, fashion-mnist, or a folder in a known layout.
        train, test: instead, class folders, lists of "path label" or CSV files.
        part: semi-supervised: the list of the labelled images of `data`.
        recipe: another than the usual one, by name, or a record of your own.
        size: pixels of the images; None: the side that the weights were trained at.
        seed: of everything random.
        machine: device, workers, cache and the folder to write to; without a folder nothing is kept.

    Returns:
        The result; the one that `machine.out` holds already, where it is the same measurement.

    Raises:
        UserError: unknown names, weights that do not load in full, data that the protocol cannot use.
    """
    from simsiam.data.classification.datasets import DatasetArgs
    from simsiam.weights.pretrained import open_subject

    if name not in CHOICES:
        raise UserError(
            f"no classification protocol {name!r}.{did_you_mean(name, CHOICES)} Known: {', '.join(CHOICES)}."
        )
    machine = machine or Machine()
    subject = open_subject(str(weights), seed=seed, size=size)
    words = DatasetArgs(data=_text(data), train=_text(train), test=_text(test), cache=machine.cache)
    opened = open_data(name, words, part=part)
    if isinstance(recipe, Protocol):
        settings = recipe
    else:
        settings = fitted(CHOICES[name].recipe(subject.size, recipe), subject, opened)
    limits.check(settings, prefixes=False)
    return run_once(settings, subject, opened, machine=machine, again=False)


def open_data(name: str, words: DatasetArgs, *, part: Path | None) -> Any:
    """The data in the form that a protocol takes; raises UserError where the words do not suit it."""
    from simsiam.data.classification import datasets
    from simsiam.data.splits import Splits

    choice = CHOICES[name]
    if part is not None and name != SEMI_SUPERVISED:
        raise UserError(f"--part: the list of labelled images belongs to {SEMI_SUPERVISED}.")
    if choice.needs == "multilabel":
        return datasets.multilabel(words)
    if choice.needs == "labelled":
        place = words.data or words.test
        if place is None:
            raise UserError("--data: name the labelled images: class folders, a CSV of path,label, or a set's name.")
        return datasets.labelled(place, cache=words.cache)
    if name == RETRIEVAL and words.test is not None and words.train is None and words.data is None:
        alone = datasets.labelled(words.test, cache=words.cache)
        return Splits(train=alone, test=alone)
    both = datasets.splits(words, layout=choice.layout if words.data is not None else None)
    if part is None:
        return both
    if words.data is None:
        raise UserError("--part: names images of an ImageNet folder; give that folder as --data.")
    from simsiam.data.classification.named_sets import imagenet_part

    return Splits(train=imagenet_part(words.data, part), test=both.test)


def fitted(
    settings: Protocol[Any], subject: PretrainedBackbone, data: Any, *, asked: frozenset[str] = frozenset()
) -> Protocol[Any]:
    """The recipe for a backbone with fewer maps, or for a training set that some k of kNN are too large for.

    Args:
        asked: settings that a person named (`stages`, `layer`, `k`, `quoted_k`) and that stay.
    """
    from simsiam.evaluation.classification.knn import Knn
    from simsiam.evaluation.classification.linear import INaturalist2018, LinearMultiHead, Places205
    from simsiam.evaluation.classification.low_shot import LowShot

    maps = len(subject.backbone.stage_channels)
    if isinstance(settings, LinearMultiHead | INaturalist2018 | Places205) and "stages" not in asked:
        return dataclasses.replace(settings, heads=dataclasses.replace(settings.heads, stages=maps))
    if isinstance(settings, LowShot) and settings.features.layers == "stages" and "layer" not in asked:
        return dataclasses.replace(settings, layer=f"feature{maps}")
    if not isinstance(settings, Knn):
        return settings
    k = settings.k
    if "k" not in asked:
        k = tuple(k for k in settings.k if k <= len(data.train)) or (min(len(data.train), min(settings.k)),)
    if settings.quoted_k in k:
        return dataclasses.replace(settings, k=k)
    if "quoted_k" in asked:
        raise UserError(f"--quoted-k {settings.quoted_k}: must be one of --k {' '.join(map(str, k))}.")
    return dataclasses.replace(settings, k=k, quoted_k=max(k))


def named(settings: Protocol[Any], recipe: Protocol[Any]) -> Protocol[Any]:
    """The settings under a name that says where they differ from the recipe: no table shall call them by its name."""
    changes = _changes(as_dict(recipe), as_dict(settings))
    if not changes or settings.name != recipe.name:
        return settings
    return dataclasses.replace(settings, name=f"{recipe.name} ({', '.join(changes)})")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changes = []
    for key, value in new.items():
        if isinstance(value, dict):
            changes += _changes(old[key], value)
        elif value != old[key]:
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            changes.append(f"{key.replace('_', '-')} {shown}")
    return changes


def _text(place: str | Path | None) -> str | None:
    return None if place is None else str(place)
