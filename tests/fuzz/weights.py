"""Checkpoints of every form, damaged as files and as pickles inside whole archives, and hostile pickles."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import pickle
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from simsiam.backbones import build_backbone
from simsiam.errors import UserError
from simsiam.weights.load import load_backbone
from tests.fuzz.harness import Outcome, Target, file, mutate, refused_memory

_JARGON = ("Traceback", "miniz", "PytorchStreamReader", "UnpicklingError", "HeaderTooLarge", "<class", "NoneType")


def give(content: bytes, folder: Path, name: str = "weights.pth") -> Outcome:
    """What every command does with a file of weights."""
    with file(folder, name, content) as path:
        try:
            load_backbone(path)
        except UserError as error:
            refusal = error
        else:
            return "read"
    assert not refused_memory(refusal), "memory ran out"
    assert str(path) in str(refusal), refusal
    assert not any(word in str(refusal) for word in _JARGON), refusal
    return "refused"


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_backbone("resnet8", width=4).state_dict()


def saved(content: Any, **options: Any) -> bytes:
    """torch.save into memory."""
    made = io.BytesIO()
    torch.save(content, made, **options)
    return made.getvalue()


class Files(Target):
    """Damage anywhere in a file."""

    @functools.cached_property
    def samples(self) -> Sequence[bytes]:
        """torch.save's two forms, safetensors and pickles of arrays."""
        state = _state()
        beside = {
            "args": argparse.Namespace(lr=0.1),
            "scheduler": collections.Counter([1, 2]),
            "half": torch.float16,
            "teacher": {"backbone." + name: tensor for name, tensor in state.items()},
        }
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        return [
            saved({"state_dict": state}),
            saved({"model": state, **beside}),
            saved({"state_dict": state, **beside}, _use_new_zipfile_serialization=False),
            save_safetensors(state),
            *(pickle.dumps({"model": arrays}, protocol=protocol) for protocol in (2, 4, 5)),
            pickle.dumps(state, protocol=4),
        ]

    def check(self, content: bytes, folder: Path) -> Outcome:
        """As `load_backbone` does."""
        return give(content, folder)


class Pickles(Files):
    """Damage in the pickle alone, inside an archive that is whole."""

    def make(self, seed: int) -> bytes:
        """One of the zip samples with another pickle."""
        rng = random.Random(seed)
        sample = rng.choice(self.samples[:2])
        with zipfile.ZipFile(io.BytesIO(sample)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        main = next(name for name in parts if name.endswith("data.pkl"))
        parts[main] = mutate(parts[main], rng, [parts[main], self.samples[4]])
        return zipped(parts)


def zipped(parts: dict[str, bytes]) -> bytes:
    """An archive of parts that are not compressed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()
