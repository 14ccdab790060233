"""From the words of a command line to a record. tyro alone parses; here is how our records look to it.

A field is a flag, and the comment beside it the flag's help. `--help` shows what people use, `--help-all` everything.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import linecache
import re
import sys
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

Record = TypeVar("Record")
HELP, HELP_ALL = ("-h", "--help"), "--help-all"
_WORDS = {str: "STR", Path: "PATH", int: "INT", float: "FLOAT"}


def asks_help(arguments: Collection[str]) -> bool:
    """Whether the words ask for help, short or whole."""
    return any(word in arguments for word in (*HELP, HELP_ALL))


def read(
    record: type[Record],
    arguments: list[str],
    *,
    prog: str,
    default: Record | None = None,
    config: tuple[Any, ...] = (),
    hidden: Collection[str] = (),
    shown: Collection[str] | None = None,
    about: str | None = None,
) -> Record:
    """The arguments as a record; a mistake in them, or `--help`, ends the program as tyro does.

    Args:
        record: a dataclass whose fields are the flags, and the comments beside them the help.
        arguments: the words after the verb.
        prog: what usage lines call the command.
        default: where the fields have no defaults of their own.
        config: tyro's markers for the whole line.
        hidden: the fields that are no flags of this command, by name or as `Record.field`.
        shown: the fields that `--help` shows, by name or as `Record.field`; None: all. `--help-all` shows the rest.
        about: what the help begins with; None: the record's docstring.
    """
    short = shown is not None and HELP_ALL not in arguments and asks_help(arguments)
    look = _Look(hidden=hidden, shown=shown if short else None)
    options: dict[str, Any] = {} if default is None else {"default": default}
    if asks_help(arguments):
        arguments = ["--help"]
    if about is None:
        about = inspect.cleandoc(record.__doc__ or "")
    if short:
        about += f"\n\nThese are the flags that most people need; `{prog} {HELP_ALL}` lists all."
    found: Record = tyro.cli(
        record, args=arguments, config=config, prog=prog, description=about, registry=look.registry(), **options
    )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Look:
    """How the fields of our records become flags."""

    hidden: Collection[str]
    shown: Collection[str] | None
    busy: set[type] = dataclasses.field(default_factory=set)  # records that tyro's own rule is reading

    def registry(self) -> ConstructorRegistry:
        registry = ConstructorRegistry()
        registry.struct_rule(self.fields)
        registry.primitive_rule(numbers)
        return registry

    def fields(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        """tyro's own reading of a record, with each field's type as the help shall show it."""
        if not dataclasses.is_dataclass(info.type) or info.type in self.busy:
            return None
        self.busy.add(info.type)
        spec = ConstructorRegistry.get_struct_spec(info)
        self.busy.remove(info.type)
        if not isinstance(spec, StructConstructorSpec):
            return None
        return dataclasses.replace(spec, fields=tuple(self._field(info.type, each) for each in spec.fields))

    def _field(self, record: type, spec: StructFieldSpec) -> StructFieldSpec:
        hint: Any = spec.type
        inner, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        names = {spec.name, *(f"{kind.__name__}.{spec.name}" for kind in record.__mro__)}
        if not names.isdisjoint(self.hidden):
            return dataclasses.replace(spec, type=typing.cast("Any", Annotated[(inner, tyro.conf.Suppress, *extras)]))
        spec = dataclasses.replace(spec, helptext=_comment(record, spec.name))
        if _holds_record(inner) or tyro.conf.UseAppendAction in extras:
            return spec
        if self.shown is not None and names.isdisjoint(self.shown):
            extras.append(tyro.conf.Suppress)
        said = tyro.conf.arg(help_behavior_hint=_default, metavar=_may_be_left_out(inner))
        return dataclasses.replace(spec, type=typing.cast("Any", Annotated[(inner, said, *extras)]))


def _comment(record: type, name: str) -> str | None:
    """What stands beside or above a field, in its record or the one that it comes from."""
    known = (_comments(kind) for kind in record.__mro__ if dataclasses.is_dataclass(kind))
    return next((found[name] for found in known if name in found), None)


@functools.cache
def _comments(record: type) -> dict[str, str]:
    """The comment of each field. tyro finds the same, but parses a file anew for each record, a third of a second."""
    lines = linecache.getlines(getattr(sys.modules[record.__module__], "__file__", ""))
    heads = (at for at, line in enumerate(lines, 1) if re.match(rf"class {record.__name__}\b", line))
    found, above = dict[str, str](), list[str]()
    for line in lines[next(heads, len(lines)) :]:
        if line.strip() and not line.startswith(" "):
            break
        if (comment := re.match(r" {4}# (.*)", line)) is not None:
            above.append(comment[1])
            continue
        if (field := re.match(r" {4}(\w+): .*?(?:  # (?!type: )(.*))?$", line)) is not None:
            found[field[1]] = field[2] or " ".join(above)
        above = []
    return {name: said for name, said in found.items() if said}


def numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A list of numbers, parted by blanks or by commas: `--lr-sweep 0.01 0.03` or `--lr-sweep 0.01,0.03`."""
    kinds = typing.get_args(info.type)
    if typing.get_origin(info.type) is not tuple or len(kinds) != 2 or kinds[1] is not Ellipsis:
        return None
    kind = typing.get_args(kinds[0])[0] if typing.get_origin(kinds[0]) is Annotated else kinds[0]
    if kind not in (int, float) or tyro.conf.UseAppendAction in info.markers:
        return None

    def read_numbers(words: list[str]) -> tuple[Any, ...]:
        return tuple(kind(part) for word in words for part in word.split(",") if part)

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{_WORDS[kind]} ...",
        instance_from_str=read_numbers,
        is_instance=lambda found: isinstance(found, tuple) and all(isinstance(each, int | float) for each in found),
        str_from_instance=lambda found: [str(each) for each in found],
    )


def _holds_record(kind: Any) -> bool:
    return any(dataclasses.is_dataclass(each) for each in (kind, *typing.get_args(kind)))


def _may_be_left_out(kind: Any) -> str | None:
    """What stands for the value of a field that may be None; None: tyro's own word does."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else ()
    if type(None) not in kinds:
        return None
    for each in kinds:
        plain = typing.get_args(each)[0] if typing.get_origin(each) is Annotated else each
        if plain in _WORDS:
            return _WORDS[plain]
        if typing.get_origin(plain) is typing.Literal:
            return f"{{{','.join(map(str, typing.get_args(plain)))}}}"
    return None


def _default(value: str) -> str:
    return f"(default: {value})" if value not in ("", "None", "False") else ""
