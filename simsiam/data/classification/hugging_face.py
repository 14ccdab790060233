"""What Hugging Face's `datasets` reads and writes: folders with metadata.csv or .jsonl, and Parquet files of images."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from simsiam.data.class_names import in_order
from simsiam.data.classification.csv_table import LABEL_HEADINGS, read_table
from simsiam.data.classification.layouts import Found, Rows, listed
from simsiam.data.find_images import MOST, ROLES, role_of, split_folders, visible
from simsiam.data.inventory import beside
from simsiam.data.shards import ShardSource
from simsiam.data.unpack import Room, once
from simsiam.errors import UserError, install_extra
from simsiam.sniff import sniff
from simsiam.wording import counted, some

_METADATA = ("metadata.csv", "metadata.jsonl")
_SHARD = re.compile(r"-?\d+(-of-\d+)?$")
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "bmp": ".bmp", "tiff": ".tif"}
_AT_ONCE = 64  # rows in memory


def image_folder(place: Path, cache: Path) -> Found | None:
    """metadata.csv or metadata.jsonl with file_name and label, in the folder or in each split's."""
    if not place.is_dir():
        return None
    folders = {"": place, **split_folders(place)}
    files = {part: file for part, each in folders.items() for name in _METADATA if _is_metadata(file := each / name)}
    if not files:
        return None
    rows: dict[str, Rows] = {}
    notes: list[str] = []
    for part, file in files.items():
        table = read_table(file)
        header = [cell.lower() for cell in table.header or ()]
        column = next((header.index(each) for each in LABEL_HEADINGS if each in header), None)
        classes = [row[column] or None if column is not None and column < len(row) else None for row in table.cells]
        for path, word in zip(table.paths, classes, strict=True):
            name = (file.parent.relative_to(place) / path).as_posix()
            top = name.split("/")[0]
            rows.setdefault(part or (top if "/" in name and role_of(top) else ""), []).append((name, word))
        notes += table.inventory.notes
        if column is None:
            notes.append(f"{file.relative_to(place)} has no column named label: its columns are {some(header)}")
    left = beside([place / name for part in rows.values() for name, _ in part], annotations=(".csv", ".jsonl"))
    words = "Hugging Face image folder with " + " and ".join(sorted({file.name for file in files.values()}))
    return listed(place.resolve().name, words, place, rows, notes=notes, left_out=left, published=False)


def _is_metadata(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return b"file_name" in opened.read(1000)


def parquet(place: Path, cache: Path) -> Found | None:
    """Files such as train-00000-of-00002.parquet with a column of images: laid out as tar shards in the cache, once."""
    files = _parquet_files(place)
    if not files:
        return None
    known = place.is_file() or any(files)
    try:
        import pyarrow.parquet

        reader: Any = pyarrow.parquet  # untyped
    except ImportError as error:
        if not known:
            return None
        raise UserError(f"{place}: Parquet files need pyarrow: {install_extra('parquet')}.") from error
    first = next(iter(files.values()))[0]
    try:
        columns = _columns(reader.read_schema(first))
        if columns is None:
            if place.is_file():
                names = some(reader.read_schema(first).names)
                raise UserError(f"{place}: a Parquet table without a column of images; its columns are {names}.")
            return None
        counts = {part: sum(reader.read_metadata(each).num_rows for each in files[part]) for part in files}
        values = {part: _labels(reader, files[part], columns.label) for part in files}
    except (ValueError, OSError, KeyError) as error:  # pyarrow's own errors are of these kinds
        raise UserError(f"{first}: a damaged Parquet file, or cut short ({error}). Fetch it again.") from error
    bare = [part for part, found in values.items() if role_of(part) == "test" and not any(map(_known, found))]
    for part in bare:  # the published test set of a challenge
        files["unlabelled"], counts["unlabelled"] = files.pop(part), counts.pop(part)
    used = {value for found in values.values() for value in found if _known(value)}
    classes = columns.names or in_order(map(str, used))

    def read(parts: Sequence[str]) -> ShardSource:
        every = [file for part in files.values() for file in part]
        folder = once(
            _name(place), every, cache=cache, fill=lambda into, room: _lay_out(files, columns, classes, into, room)
        )
        shards = [folder / f"{_tar(part)}-{n:05d}.tar" for part in parts for n in range(len(files[part]))]
        source = ShardSource(place, shards=shards, cache=cache)
        source.name = "-".join(filter(None, [_name(place), *parts])) if len(parts) == 1 else _name(place)
        if source.classes is not None:
            source.classes = tuple(classes[int(number)] for number in source.classes)
        source.note(f"the images of {counted(len(shards), 'Parquet file')} are kept in {folder}")
        return source

    return Found(
        name=_name(place),
        words="Parquet files of Hugging Face's datasets",
        parts=counts,
        open=read,
        classes=len(classes),
        notes=columns.notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Columns:
    image: str
    label: str | None
    names: tuple[str, ...]  # of the classes, where the schema has them
    notes: tuple[str, ...] = ()


def _columns(schema: Any) -> _Columns | None:
    """The columns of images and labels: by the description that `datasets` leaves in the schema, else by their kind."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {field.name: str(field.type) for field in schema}
    images = [name for name, kind in kinds.items() if kind.startswith("struct<") and "bytes: binary" in kind]
    images += [name for name, kind in kinds.items() if kind in ("binary", "large_binary")]
    if not images:
        return None
    classes = [name for name in kinds if (described.get(name) or {}).get("_type") == "ClassLabel"]
    usual = [name for name in kinds if name.lower() in LABEL_HEADINGS and kinds[name].endswith(("int64", "string"))]
    both = sorted(classes, key=lambda name: name.lower() not in LABEL_HEADINGS) + usual
    label = both[0] if both else None
    others = [name for name in classes if name != label]
    names = (described.get(label) or {}).get("names") or ()
    names = [names[key] for key in sorted(names, key=int)] if isinstance(names, Mapping) else names
    notes = (f"the labels are those of the column {label}, not of {some(others)}",) if others else ()
    return _Columns(image=images[0], label=label, names=tuple(map(str, names)), notes=notes)


def _labels(reader: Any, files: Sequence[Path], label: str | None) -> list[Any]:
    if label is None:
        return []
    return [value for file in files for value in reader.read_table(file, columns=[label])[label].to_pylist()]


def _known(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, int) and value < 0)


def _lay_out(
    files: Mapping[str, Sequence[Path]], columns: _Columns, classes: Sequence[str], folder: Path, room: Room
) -> None:
    """A tar of each file: ROW.jpg as it is stored, and ROW.cls, the number of its class."""
    import pyarrow.parquet as reader

    words = {} if columns.names else {word: number for number, word in enumerate(classes)}
    for part, each in files.items():
        for number, file in enumerate(each):
            with tarfile.open(folder / f"{_tar(part)}-{number:05d}.tar", "w") as tar:
                for row, (content, label) in enumerate(_rows(reader, file, columns)):
                    kind = sniff(content)
                    suffix = _SUFFIXES.get(kind.name, ".jpg") if kind is not None else ".jpg"
                    members = {f"{row:07d}{suffix}": content}
                    if _known(label):
                        members[f"{row:07d}.cls"] = str(words.get(str(label), label)).encode()
                    for name, data in members.items():
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        room.take(len(data) + 2 * tarfile.BLOCKSIZE)
                        tar.addfile(member, BytesIO(data))


def _rows(reader: Any, file: Path, columns: _Columns) -> Iterator[tuple[bytes, Any]]:
    wanted = [columns.image, *([columns.label] if columns.label is not None else ())]
    try:
        for batch in reader.ParquetFile(file).iter_batches(_AT_ONCE, columns=wanted):
            for row in batch.to_pylist():
                image = row[columns.image]
                content = image.get("bytes") if isinstance(image, dict) else image
                if not content and isinstance(image, dict) and image.get("path"):  # beside the table
                    path = file.parent / image["path"]
                    content = path.read_bytes() if path.is_file() else b""
                yield content or b"", row[columns.label] if columns.label is not None else None
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: a damaged Parquet file, or cut short ({error}). Fetch it again.") from error


def _parquet_files(place: Path) -> dict[str, list[Path]]:
    """The Parquet files of a place by the part that their names or folders say; "" where they say none."""
    if place.is_file():
        kind = sniff(place)
        return {"": [place]} if kind is not None and kind.name == "parquet" else {}
    if not place.is_dir():
        return {}
    files = visible(place.glob("*.parquet")) or visible((place / "data").glob("*.parquet"))
    if not files:
        with os.scandir(place) as entries:
            folders = [place / each.name for each in islice((each for each in entries if each.is_dir()), MOST)]
        for below in ("*.parquet", "*/*.parquet"):
            files = files or visible(file for each in folders for file in each.glob(below))
    sets = sorted({file.relative_to(place).parts[0] for file in files if len(file.relative_to(place).parts) > 1})
    sets = [each for each in sets if role_of(each) is None]
    if len(sets) > 1:
        raise UserError(f"{place}: Parquet files of several sets: {some(sets)}. Name one of these folders.")
    parts: dict[str, list[Path]] = {}
    for file in files:
        names = (_SHARD.sub("", file.stem), file.parent.name)
        parts.setdefault(next((name for name in names if role_of(name)), ""), []).append(file)
    order = list(ROLES.values())
    return dict(sorted(parts.items(), key=lambda part: order.index(role) if (role := role_of(part[0])) else -1))


def _name(place: Path) -> str:
    return place.stem if place.is_file() else place.resolve().name


def _tar(part: str) -> str:
    return re.sub(r"[^\w-]", "_", part) or "images"
