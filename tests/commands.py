"""Whether a command line is one that the program takes: it is read whole, and stopped before it does anything."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import tyro

from simsiam import cli
from simsiam.pretraining import library
from simsiam.protocols import find


class Read(Exception):
    """The command line was read to its end, and every word of it has a place."""


def refuse(command: str) -> str | None:
    """Why a command line that contains `simsiam VERB ...` is not taken; None: it is."""
    words = shlex.split(command, comments=True)
    start = next((n for n, word in enumerate(words) if word.rsplit("/", 1)[-1] == "simsiam"), None)
    if start is None or start + 1 == len(words):
        return "no `simsiam VERB` in it"
    rest = words[start + 1 :]
    if rest[0] == "submit" and "--" in rest:
        at = rest.index("--")
        return _refuse(rest[:at]) or _refuse(rest[at + 1 :])
    return _refuse(rest)


def _refuse(words: list[str]) -> str | None:
    if words[0] == "evaluate" and words[1:2] != ["all"]:
        find(words[1])
    with _stopped():
        try:
            code = cli.run(words)
        except Read:
            return None
        except SystemExit as end:
            return None if not end.code and {"-h", "--help", "--help-all"} & {*words} else f"exit code {end.code}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None if not code and {"-h", "--help", "--help-all"} & {*words} else f"nothing was read, exit code {code}"


@contextlib.contextmanager
def _stopped() -> Iterator[None]:
    """The program reads its arguments, without the files that they name, and goes no further."""
    real = tyro.cli

    def read(*arguments: Any, **options: Any) -> Any:
        real(*arguments, **options)
        raise Read

    def subject(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(size=224, backbone=SimpleNamespace(stage_channels=(64, 256, 512, 1024, 2048)))

    def recipe(name: str | None, data: str | None, *, device: str | None, fit: bool, **others: Any) -> Any:
        del fit, others  # neither the images nor the weights are opened
        return library.choose_recipe(name, data, device=device, fit=False)

    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(tyro, "cli", read),
        mock.patch("simsiam.weights.pretrained.open_subject", subject),
        mock.patch("simsiam.results.require_writable"),  # documents name places of other machines
        mock.patch("simsiam.embedding.files.check"),  # and files without an ending
        mock.patch("simsiam.commands.pretrain.choose_recipe", recipe),
    ):
        yield
