"""Annotation files as labelling tools write them: text in any encoding, XML and json, read without harm."""

from __future__ import annotations

import codecs
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from simsiam.sniff import sniff

_MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}
_HIGH = re.compile(rb"[\x80-\xff]+")
_BARE = re.compile(r"&(?!(?:#\d+|#x[0-9a-fA-F]+|\w+);)")  # an ampersand that begins no entity
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "", "none")


class UnreadableAnnotation(ValueError):
    """A file that is no annotation of its kind; the message says why, without the file's name."""


def read_text(file: Path) -> str:
    """A text file by its byte-order mark, the encoding that its XML declares, UTF-8, or else GB 18030 or Latin-1.

    Of the last two it is the Chinese one where bytes above 127 stand mostly side by side: accents stand alone.

    Raises UnreadableAnnotation for what is no text, and OSError.
    """
    content = file.read_bytes()
    kind = sniff(content)
    if kind is not None and kind.family == "impostor":
        raise UnreadableAnnotation(f"it is {kind}")
    marked = [encoding for mark, encoding in _MARKS if content.startswith(mark)]
    declared = _DECLARED.match(content[:200])
    named = [_WIDER.get(name := declared[1].decode("ascii", "replace").lower(), name)] if declared else []
    runs = [len(run) for run in _HIGH.findall(content)]
    chinese = ["gb18030"] if 2 * sum(run for run in runs if run > 1) > sum(runs) else []
    for encoding in marked or [*named, "utf-8", *chinese]:
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):  # tools declare encodings that no one knows, or that they did not use
            continue
    if marked or b"\0" in content:
        raise UnreadableAnnotation(f"it is {kind}" if kind is not None and kind.family != "text" else "it is no text")
    return content.decode("latin-1")


def read_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file, its tags without namespaces; ampersands that no one escaped are read as they are.

    Raises UnreadableAnnotation, for a file that declares entities too, and OSError.
    """
    text = read_text(file).strip()
    if "<!ENTITY" in text:
        raise UnreadableAnnotation("it declares entities, which no annotation needs and which can fill the memory")
    try:
        root = ElementTree.fromstring(_BARE.sub("&amp;", text))
        for each in root.iter():
            each.tag = str(each.tag).rsplit("}", 1)[-1]
        return root
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UnreadableAnnotation(f"no readable XML ({error})") from error


def read_json(file: Path) -> Any:
    """The content of a json file; raises UnreadableAnnotation and OSError."""
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnnotation(f"not valid JSON ({error})") from error


def flag(value: object) -> bool:
    """A yes or no as tools write it: 1, "0", true, "true", "yes"; raises ValueError for anything else."""
    if isinstance(value, str | bool | int | float) or value is None:
        word = str(value).strip().lower().removesuffix(".0")
        if word in _YES or word in _NO:
            return word in _YES
    raise ValueError(f"{value!r} is neither yes nor no")
