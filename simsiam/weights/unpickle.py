"""A pickle reader that runs nothing: only tensor and array builders are real, all else is refused or inert."""

from __future__ import annotations

import codecs
import collections
import io
import pickle
from typing import IO, Any

import numpy
import torch

# Classes of known training frameworks that lie beside the weights (log buffers, parsed arguments). They are
# replaced by an empty stand-in, so that nothing of theirs is imported or run.
_INERT_PACKAGES = (
    "mmengine",
    "mmcv",
    "mmselfsup",
    "mmpretrain",
    "mmcls",
    "omegaconf",
    "pytorch_lightning",
    "lightning",
)
_INERT_NAMES = {
    ("argparse", "Namespace"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("datetime", "datetime"),
    ("typing", "Any"),
    ("builtins", "getattr"),  # mmengine's log buffers pickle bound methods; the stand-in looks nothing up
    ("__builtin__", "getattr"),
}
_STORAGES = (
    "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage UntypedStorage"
)


class RefusedPickleError(Exception):
    """A pickle names something that is neither a tensor, an array nor a plain container."""


class Inert:
    """Stands where a framework's object was; takes whatever the pickle gives it and keeps nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        del args, kwargs

    def __setstate__(self, state: object) -> None:
        del state

    def __setitem__(self, key: object, value: object) -> None:
        del key, value

    def append(self, value: object) -> None:
        """Take a list item that the pickle adds."""
        del value

    def extend(self, values: object) -> None:
        """Take list items that the pickle adds."""
        del values

    def __hash__(self) -> int:
        return id(self)


class RestrictedUnpickler(pickle.Unpickler):
    """Rebuilds tensors, numpy arrays and plain containers; raises RefusedPickleError by name for anything else."""

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        super().__init__(file, **{"encoding": "latin1", **options})  # Caffe2-era files are Python 2 pickles

    def find_class(self, module: str, name: str) -> Any:
        """The allowed builder of this exact name."""
        if (module, name) in _allowed():
            return _allowed()[module, name]
        if module.split(".")[0] in _INERT_PACKAGES or (module, name) in _INERT_NAMES:
            return Inert
        raise RefusedPickleError(f"{module}.{name}")


class RestrictedPickle:
    """What `torch.load(pickle_module=...)` asks of a pickle module, with the restricted reader inside."""

    __name__ = "restricted_pickle"
    Unpickler = RestrictedUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        """Read one pickle from a file."""
        return RestrictedUnpickler(file, **options).load()

    @staticmethod
    def loads(data: bytes, **options: Any) -> Any:
        """Read one pickle from bytes."""
        return RestrictedUnpickler(io.BytesIO(data), **options).load()


def _allowed() -> dict[tuple[str, str], Any]:
    if not _table:
        _fill_table()
    return _table


_table: dict[tuple[str, str], Any] = {}


def _fill_table() -> None:
    rebuild: Any = torch._utils
    _table[("collections", "OrderedDict")] = collections.OrderedDict
    _table[("_codecs", "encode")] = codecs.encode
    for name in ("set", "frozenset", "dict", "list", "tuple", "int", "float", "str"):
        for module in ("builtins", "__builtin__"):
            _table[module, name] = getattr(__import__("builtins"), name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        _table["torch._utils", name] = getattr(rebuild, name)
    for name in _STORAGES.split():
        _table["torch", name] = getattr(torch, name)
    _table["torch.storage", "_load_from_bytes"] = _storage_from_bytes
    _table["torch", "Size"] = torch.Size
    _table["torch", "device"] = torch.device
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
        _table[module, "ndarray"] = numpy.ndarray
        _table[module, "dtype"] = numpy.dtype
    reconstruct, scalar = _numpy_builders()
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        _table[module, "_reconstruct"] = reconstruct
        _table[module, "scalar"] = scalar


def _storage_from_bytes(data: bytes) -> Any:
    """A storage inside a plain pickle of tensors: torch nests a whole torch.save in it."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _numpy_builders() -> tuple[Any, Any]:
    """numpy's own two pickle builders, taken from pickles of an array and of a scalar."""
    return numpy.zeros(1).__reduce__()[0], numpy.float64(0).__reduce__()[0]
