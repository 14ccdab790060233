"""`simsiam show`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import tyro

from simsiam.commands.names import find_pretraining
from simsiam.experiment import as_dict


@dataclass(frozen=True)
class Command:
    """Print one recipe whole: every setting that decides the result."""

    name: tyro.conf.Positional[str]
    format: Literal["text", "json"] = "text"


def run(arguments: list[str]) -> int:
    """Print the recipe."""
    command = tyro.cli(Command, args=arguments, prog="simsiam show")
    record = as_dict(find_pretraining(command.name, None, device=None, fit=False))
    print(json.dumps(record, indent=1) if command.format == "json" else "\n".join(_lines(record, "")))
    return 0


def _lines(record: dict[str, object], prefix: str) -> list[str]:
    lines = []
    for key, value in record.items():
        flag = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            lines += _lines(value, flag + ".")
        else:
            lines.append(f"{flag:<28} {value}")
    return lines
