"""What every recipe holds, whole, as the files of tests/golden/recipes; `python -m tests.golden.renew` writes them.

Run it after a deliberate change of a recipe and read the diff; `test_recipes.py` fails until then.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import simsiam.recipes
from simsiam.config import as_dict
from simsiam.embedding.vectors import embedding
from simsiam.protocols import PROTOCOLS
from simsiam.recipes import linear, pretrain, segmentation
from simsiam.recipes.scaled import Wanted

FOLDER = Path(__file__).parent / "recipes"
SIZES = (32, 64, 96, 224)  # pixels at which settings that depend on the size of the images are kept
VALUES: dict[str, tuple[Any, ...]] = {"size": SIZES, "folder": (Path("samples"),)}  # tried for the arguments of makers


def snapshots() -> dict[str, dict[str, dict[str, Any]]]:
    """By file name: recipe -> its settings, nested ones by dotted keys."""
    modules = [
        importlib.import_module(f"simsiam.recipes.{m.name}") for m in pkgutil.iter_modules(simsiam.recipes.__path__)
    ]
    found = {module.__name__.rpartition(".")[2]: dict(_recipes(module)) for module in modules}
    found["embedding"] = {f"embedding({size})": _flat(embedding(size)) for size in SIZES}
    found["protocols"] = dict(_protocols())
    found["sized"] = dict(_sized())
    return {name: recipes for name, recipes in found.items() if recipes}


def text(recipes: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each setting, for a diff that shows what changed."""
    parts = []
    for name, settings in recipes.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in settings.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _recipes(module: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that the public functions of a module make."""
    for name, make in sorted(inspect.getmembers(module, inspect.isfunction)):
        if name.startswith("_") or make.__module__ != module.__name__:
            continue
        calls = [partial(make)]
        for argument, parameter in inspect.signature(make).parameters.items():
            if argument not in VALUES:
                calls = [] if parameter.default is parameter.empty else calls
            else:
                calls = [partial(call, **{argument: value}) for call in calls for value in VALUES[argument]]
        for call in calls:
            if dataclasses.is_dataclass(record := call()):
                yield f"{name}({', '.join(map(str, call.keywords.values()))})", _flat(record)


def _protocols() -> Iterator[tuple[str, dict[str, Any]]]:
    """By name of `simsiam evaluate`: the usual recipe for images of each size, and the others that it knows."""
    for name, protocol in PROTOCOLS.items():
        usual = {f"usual at {size} pixels": protocol.recipe(None, Wanted(trained=size)).name for size in SIZES}
        known = {"recipes": [protocol.recipe(recipe, Wanted()).name for recipe in protocol.recipes]}
        yield name, known if name.startswith(("detection", "segmentation")) else {**usual, **known}


def _sized() -> Iterator[tuple[str, dict[str, Any]]]:
    """What recipes change for images of another size, or for fewer or more of them."""
    for name, make in linear.RECIPES.items():
        for size in SIZES:
            yield f"{name} at {size} pixels", _changes(make(), linear.adapted(make(), size=size))
    for known in segmentation.RECIPES.values():
        for name, make_segmentation in known.items():
            for size in (64, 224):
                changed = segmentation.sized(make_segmentation(), size)
                yield f"{name} at {size} pixels", _changes(make_segmentation(), changed)
    for name in ("folder", "folder-cpu"):
        recipe = pretrain.RECIPES[name]()
        for images in (50, 500, 5_000, 500_000):
            yield f"{name} for {images} images", _changes(recipe, pretrain.for_images(recipe, images))


def _changes(old: Any, new: Any) -> dict[str, Any]:
    before = _flat(old)
    return {key: value for key, value in _flat(new).items() if value != before[key]}


def _flat(record: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(f"{prefix}{key}.", inner)
        else:
            flat[prefix.removesuffix(".")] = value

    add("", as_dict(record))
    return flat


if __name__ == "__main__":
    for file_name, recipes in snapshots().items():
        (FOLDER / f"{file_name}.json").write_text(text(recipes))
