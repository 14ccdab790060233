"""Tensors and arrays out of pickles and torch.save's two forms, built from their bytes: no code of a file runs."""

from __future__ import annotations

import collections
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from torch import Tensor

from simsiam.weights.unpickle import Inert, InertUnpickler

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.save's older form
_SPARE = 1 << 26  # bytes that a tensor may take beyond its storage (one that was expanded)
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class DamagedError(Exception):
    """A file that contradicts itself; the text says how, in a few words."""


class Storage:
    """The numbers behind tensors: their bytes, and one flat tensor of their type."""

    def __init__(self, raw: Tensor, dtype: torch.dtype) -> None:
        whole = raw.numel() // dtype.itemsize * dtype.itemsize
        self.raw, self.flat = raw, raw[:whole].view(dtype)


class Array(Inert):
    """A numpy array as its pickle describes it."""

    def array(self) -> numpy.ndarray[Any, Any] | None:
        """The array, built from its bytes; None for arrays of objects or records, and for what does not fit."""
        parts: Any = self.args
        try:
            if len(parts) == 4:  # protocol 5
                raw, dtype, shape, order = parts
            else:
                _, shape, dtype, fortran, raw = self.state
                order = "F" if fortran else "C"
            little = numpy.dtype(str(dtype.args[0])).newbyteorder(">" if dtype.state[1:2] == (">",) else "<")
            if little.kind not in "biufc":
                return None
            content = raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw))
            built = numpy.frombuffer(content, little).reshape(shape, order=order)
            return numpy.array(built, dtype=little.newbyteorder("="))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None


def read_pickle(path: Path) -> Any:
    """A plain pickle of arrays or tensors."""
    with path.open("rb") as file:
        return InertUnpickler(_Bounded(file, path.stat().st_size), BUILDERS).load()


def read_zip(path: Path) -> Any:
    """What torch.save writes since 1.6: a zip archive of a pickle and the storages' bytes, not compressed."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        main = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
        folder = main.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise DamagedError("written by a machine with the other byte order")
        storages: dict[str, Tensor] = {}
        taken = 0

        def storage(pid: Any) -> Storage | Inert:
            nonlocal taken
            dtype, key = _dtype(pid[1]), str(pid[2])
            if dtype is None:
                return Inert()
            if key not in storages:
                part = archive.getinfo(f"{folder}data/{key}")
                taken += part.file_size
                if part.compress_type != zipfile.ZIP_STORED or taken > size:
                    raise DamagedError("its parts are larger than the file")
                storages[key] = _bytes(archive.read(part))
            return Storage(storages[key], dtype)

        if archive.getinfo(main).file_size > size:
            raise DamagedError("its parts are larger than the file")
        return InertUnpickler(io.BytesIO(archive.read(main)), BUILDERS, storage).load()


def read_legacy(file: IO[bytes], size: int) -> Any:
    """What torch.save wrote before 1.6: pickles of the facts, the content and the storages' keys, then their bytes."""
    bounded = _Bounded(file, size)

    def unpickle(storage: Callable[[Any], Any] | None = None) -> Any:
        return InertUnpickler(bounded, BUILDERS, storage).load()

    if unpickle() != _MAGIC or unpickle() != _PROTOCOL or not unpickle().get("little_endian", True):
        raise DamagedError("its first bytes are not those of torch.save")
    storages: dict[str, tuple[Tensor, torch.dtype]] = {}
    taken = 0

    def storage(pid: Any) -> Any:
        nonlocal taken
        if pid[0] == "module":  # a class with its source; the source is of no interest
            return pid[1]
        _, kind, key, _, count, view = (*pid, None)[:6]
        if (dtype := _dtype(kind)) is None:
            raise DamagedError("it holds numbers of an unknown type")
        if key not in storages:
            taken += count * dtype.itemsize
            if count < 0 or taken > size:
                raise DamagedError("its parts are larger than the file")
            storages[key] = torch.zeros(count * dtype.itemsize, dtype=torch.uint8), dtype
        raw = storages[key][0]
        if view is not None:
            raw = raw[view[1] * dtype.itemsize : (view[1] + view[2]) * dtype.itemsize]
        return Storage(raw, dtype)

    content = unpickle(storage)
    for key in unpickle():
        raw, dtype = storages[key]
        (count,) = struct.unpack("<q", bounded.read(8))
        if count * dtype.itemsize != raw.numel() or len(found := bounded.read(raw.numel())) != raw.numel():
            raise DamagedError("it ends in the middle of a tensor")
        raw.copy_(_bytes(found))
    return content


def read_legacy_file(path: Path) -> Any:
    """`read_legacy` of a file."""
    with path.open("rb") as file:
        return read_legacy(file, path.stat().st_size)


class _Bounded:
    """A file that hands out no more than it holds, and sets no more memory aside."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1, /) -> bytes:
        found = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(found)
        return found

    def readline(self) -> bytes:
        found = self._file.readline()
        self._left -= len(found)
        return found


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def _dtype(kind: object) -> torch.dtype | None:
    return _DTYPES.get(str(getattr(kind, "origin", "")).rsplit(".", 1)[-1])


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor | Inert:
    if isinstance(storage, Inert):  # of complex or quantised numbers
        return storage
    flat: Tensor = storage.flat
    for dtype in rest:
        if isinstance(dtype, torch.dtype):  # version 3 of a tensor's pickle: the storage is of bytes
            flat = Storage(storage.raw, dtype).flat
    shape: Any = size.args[0] if isinstance(size, Inert) else size
    count = 1
    for number in shape:
        count *= number
    if count * flat.itemsize > storage.raw.numel() + _SPARE:
        raise DamagedError("a tensor is larger than its bytes")
    return flat.as_strided(shape, stride, offset)  # it checks the bounds


def _parameter(data: Any, *rest: object) -> Any:
    return data


def _of_type(build: Any, kind: object, args: tuple[Any, ...], *rest: object) -> Any:
    return build(*args) if build in (_tensor, _parameter) else Inert(*args)


def _dictionary(*args: Any) -> dict[Any, Any]:
    return collections.OrderedDict(*[part for part in args if isinstance(part, list | dict)])


def _bytearray(content: Any = b"", *rest: object) -> bytearray:
    return bytearray(content.encode("latin1") if isinstance(content, str) else memoryview(content))


BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _dictionary,
    "builtins.dict": _dictionary,
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.bytearray": _bytearray,
    "_codecs.encode": lambda text, encoding="latin1": text.encode(
        "utf-8" if encoding in ("utf-8", "utf8") else "latin1"
    ),
    **{f"torch._utils._rebuild_tensor{version}": _tensor for version in ("", "_v2", "_v3")},
    **{f"torch._utils._rebuild_parameter{version}": _parameter for version in ("", "_with_state")},
    **{f"torch._tensor._rebuild_from_type{version}": _of_type for version in ("", "_v2")},
    # a storage inside a plain pickle of tensors: torch nests a whole torch.save of the older form in it
    "torch.storage._load_from_bytes": lambda data: read_legacy(io.BytesIO(data), len(data)),
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": Array for core in ("core", "_core")},
}
