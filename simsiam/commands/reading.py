"""Reading a command line into a record, with a help that does not talk Python."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

Record = TypeVar("Record")
_WORDS = {str: "STR", Path: "PATH", int: "INT", float: "FLOAT"}
_seen: set[type] = set()


def read(
    record: type[Record],
    arguments: list[str],
    *,
    prog: str,
    default: Record | None = None,
    config: tuple[Any, ...] = (),
) -> Record:
    """The arguments as a record; a mistake in them, or `--help`, ends the program as tyro does.

    Args:
        record: a dataclass whose fields are the flags, and the comments beside them the help.
        arguments: the words after the verb.
        prog: what usage lines call the command.
        default: where the fields have no defaults of their own.
        config: tyro's markers for the whole line.
    """
    _speak_plainly(record)
    if default is None:
        return tyro.cli(record, args=arguments, config=config, prog=prog)
    return tyro.cli(record, args=arguments, default=default, config=config, prog=prog)


def _speak_plainly(record: type) -> None:
    """Let the help of every field, here and in the records within, say neither None nor an empty default.

    A flag that may be left out is shown as PATH instead of {None}|PATH; what happens without it, its comment says.
    """
    if record in _seen:
        return
    _seen.add(record)
    hints = typing.get_type_hints(record, include_extras=True)
    changed = {}
    for each in dataclasses.fields(record):
        for kind in _inside(hints[each.name]):
            if dataclasses.is_dataclass(kind):
                _speak_plainly(kind)
        changed[each.name] = _plain(hints[each.name])
    record.__annotations__ = {**inspect.get_annotations(record), **changed}


def _plain(hint: Any) -> Any:
    inner, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    if tyro.conf.UseAppendAction in extras or dataclasses.is_dataclass(inner):
        return hint
    said = tyro.conf.arg(help_behavior_hint=_default, metavar=_may_be_left_out(inner))
    return Annotated[(inner, said, *extras)]  # the field's own words come last, and win


def _may_be_left_out(kind: Any) -> str | None:
    """What stands for the value of a field that may be None; None: tyro's own word does."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else ()
    if type(None) not in kinds:
        return None
    for each in kinds:
        if each in _WORDS:
            return _WORDS[each]
        if typing.get_origin(each) is typing.Literal:
            return f"{{{','.join(map(str, typing.get_args(each)))}}}"
    return None


def _default(value: str) -> str:
    return f"(default: {value})" if value not in ("", "None") else ""


def _inside(hint: Any) -> list[type]:
    """The classes that a type is made of."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        parts = parts[:1]
    return [hint] if isinstance(hint, type) else [kind for part in parts for kind in _inside(part)]
