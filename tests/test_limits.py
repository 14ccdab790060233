"""Numbers that no setting may hold are told by their flag, before anything is read or trained."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam import cli, limits
from simsiam.commands import submit
from simsiam.config import Machine, Pretraining
from simsiam.errors import UserError
from simsiam.evaluation.protocol import Protocol
from simsiam.protocols import PROTOCOLS
from simsiam.recipes import detection, pretrain, segmentation
from simsiam.recipes.scaled import Wanted


def recipes() -> Iterator[Any]:
    for module in (pretrain, detection, segmentation):
        for _, make in inspect.getmembers(module, inspect.isfunction):
            needed = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
            if make.__module__ == module.__name__ and not needed:
                made = make()
                if isinstance(made, Pretraining | Protocol):
                    yield made
    for each in PROTOCOLS.values():
        yield each.recipe(None, Wanted())


def test_every_recipe_keeps_to_the_limits() -> None:
    every = list(recipes())
    assert len(every) > 25
    for recipe in [*every, Machine(), submit.Command()]:
        limits.check(recipe, prefixes=True)


def test_rates_counts_and_shares_of_every_recipe_are_limited() -> None:
    """By what a name means everywhere: a field that is forgotten would only be kept from being negative."""
    wanted = {"lr": "above zero", "batch_size": "above zero", "epochs": "above zero", "iterations": "above zero"}
    wanted |= {"momentum": "between 0 and 1", "flip_probability": "between 0 and 1", "size": "above zero"}
    seen = set()
    for record in [part for recipe in recipes() for part in _parts(recipe)]:
        for name, limit in limits.limits_of(type(record)).items():
            if name in wanted:
                assert wanted[name] in limit.words, f"{type(record).__name__}.{name}"
                seen.add(name)
    assert seen == set(wanted)


def _parts(record: Any) -> Iterator[Any]:
    yield record
    for each in dataclasses.fields(record):
        if dataclasses.is_dataclass(held := getattr(record, each.name)):
            yield from _parts(held)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    folds: limits.Folds = 3
    flip_probability: limits.Share = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    lr_sweep: tuple[limits.Positive, ...] = (0.1, 0.2)
    workers: limits.Workers = 0
    name: str = "-1"
    clusters: limits.Count | None = None
    mean: tuple[limits.Finite, limits.Finite] = (-1.0, 0.0)
    unheard_of: float = 0.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inner": Inner(folds=1)}, "--inner.folds 1: must be 2 or more."),
        ({"inner": Inner(flip_probability=1.5)}, "--inner.flip-probability 1.5: must be between 0 and 1."),
        ({"inner": Inner(flip_probability=float("nan"))}, "--inner.flip-probability nan: must be a finite number."),
        ({"lr_sweep": (0.1, 0.0)}, "--lr-sweep 0: must be above zero."),
        ({"lr_sweep": (float("inf"),)}, "--lr-sweep inf: must be a finite number."),
        ({"workers": -2}, "--workers -2: must be -1 (as many as there are cores, less one), 0 or more."),
        ({"clusters": 0}, "--clusters 0: must be above zero."),
        ({"unheard_of": -0.1}, "--unheard-of -0.1: must not be below zero."),
    ],
)
def test_the_first_number_that_cannot_be_is_told(changes: dict[str, Any], told: str) -> None:
    limits.check(Outer(), prefixes=True)
    with pytest.raises(UserError) as raised:
        limits.check(dataclasses.replace(Outer(), **changes), prefixes=True)
    assert str(raised.value) == told
    with pytest.raises(UserError) as raised:
        limits.check(dataclasses.replace(Outer(), **changes), prefixes=False)
    assert str(raised.value) == told.replace("inner.", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["knn", "--k", "0"], "--k 0: must be above zero."),
        (["semi-supervised", "--head-multipliers", "4e38"], "--head-multipliers 4e+38: must be 3.4e+38 at most."),
        (["detection-folder", "--lr", "4e38"], "--lr 4e+38: must be 3.4e+38 at most."),
        (["knn", "--temperature=-1"], "--temperature -1: must be above zero."),
        (["few-labels", "--costs", "nan"], "--costs nan: must be a finite number."),
        (["svm-voc07", "--folds", "1"], "--folds 1: must be 2 or more."),
        (["linear-mhead", "--evaluate-every", "0"], "--evaluate-every 0: must be above zero."),
        (["linear-avgpool", "--momentum=-1"], "--momentum -1: must be between 0 and 1."),
        (["probe", "--min-scale", "2"], "--min-scale 2: must be between 0 and 1."),
        (["detection-folder", "--architecture.rpn.ratios", "0"], "--architecture.rpn.ratios 0: must be above zero."),
        (["segmentation-folder", "--dropout", "2"], "--dropout 2: must be between 0 and 1."),
        (["knn", "--workers=-2"], "--workers -2: must be -1"),
    ],
)
def test_evaluations_refuse_it(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *flags = words
    places = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", name, "random", "--backbone", "resnet10", *places, *flags])
    assert stop.value.code == 2
    assert f"simsiam: {told}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--epochs", "0"], "--epochs 0: must be above zero."),
        (["--base-lr", "nan"], "--base-lr nan: must be a finite number."),
        (["--views.min-scale", "1.5"], "--views.min-scale 1.5: must be between 0 and 1."),
        (["--views.max-scale", "0.1"], "--views.min-scale 0.2: must not be above --views.max-scale 0.1."),
        (["--views.blur-sigma-min", "9"], "--views.blur-sigma-min 9: must not be above --views.blur-sigma-max 0.5."),
        (["--views.hue", "0.6"], "--views.hue 0.6: must be between 0 and 0.5."),
        (["--model.width=-8"], "--model.width -8: must be above zero."),
        (["--checkpoint-minutes=-1"], "--checkpoint-minutes -1: must not be below zero."),
    ],
)
def test_pretraining_refuses_it(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(20):
        Image.new("RGB", (32, 32), (10 * n, 0, 99)).save(photos / f"{n}.png")
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", str(photos), "--recipe", "folder-cpu", "--out", str(tmp_path / "out"), *flags])
    assert stop.value.code == 2
    assert f"simsiam: {told}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["submit", "--gpus=-1", "--", "recipes"], "--gpus -1: must not be below zero."),
        (["submit", "--hours=-1", "--", "recipes"], "--hours -1: must be above zero."),
        (["export", "WEIGHTS", "--to", "timm", "--width=-4"], "--width -4: must be above zero."),
        (["import", "WEIGHTS", "--width", "0"], "--width 0: must be above zero."),
        (["embed", "WEIGHTS", "IMAGES", "--out", "e.npy", "--workers=-5"], "--workers -5: must be -1"),
    ],
)
def test_other_verbs_refuse_it(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert f"simsiam: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("take", [lambda: torch.empty(1 << 56), lambda: np.empty(1 << 56)], ids=["torch", "numpy"])
def test_full_memory_is_told_without_a_traceback(
    take: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "run", lambda arguments: take())
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict"])
    assert stop.value.code == 2
    assert "the memory of the device is full. Give a smaller --batch-size" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run", lambda arguments: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        cli.main(["predict"])
