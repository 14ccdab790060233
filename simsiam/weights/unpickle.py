"""A pickle reader that runs nothing: what it is given builders for is built, all else becomes inert data."""

from __future__ import annotations

import _compat_pickle
import builtins
import pickle
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


# The standard library's classes of plain data, which training programs keep beside the weights. Everything else of
# the standard library has no place in a weights file: a file that names it is refused.
_PLAIN = frozenset(
    """
    builtins.bool builtins.bytearray builtins.bytes builtins.complex builtins.dict builtins.float builtins.frozenset
    builtins.getattr builtins.int builtins.list builtins.object builtins.range builtins.set builtins.slice
    builtins.str builtins.tuple builtins.type builtins.property builtins.print builtins.max builtins.min builtins.sum
    builtins.abs builtins.len builtins.round builtins.sorted builtins.xrange builtins.long builtins.Ellipsis
    builtins.NotImplemented _codecs.encode argparse.Namespace copy.copy copy.deepcopy copyreg._reconstructor
    copyreg.__newobj__ copyreg.__newobj_ex__ dataclasses._MISSING_TYPE enum.Enum enum.IntEnum enum.auto
    functools.partial itertools.count logging.getLogger logging.Logger operator.itemgetter operator.attrgetter
    os.PathLike random.Random re._compile re.RegexFlag signal.Signals http.HTTPStatus time.struct_time
    types.SimpleNamespace types.MappingProxyType types.NoneType uuid.UUID uuid.SafeUUID
    zoneinfo.ZoneInfo._unpickle array._array_reconstructor
    """.split()
    + [f"builtins.{name}" for name, kind in vars(builtins).items() if _is_exception(kind)]
    + [f"_operator.{name}" for name in "add sub mul truediv floordiv mod neg lt le gt ge eq ne and_ or_".split()]
)
_PLAIN_MODULES = (
    *("abc", "cmath", "collections", "collections.abc", "datetime", "decimal", "fractions", "ipaddress", "math"),
    *("numbers", "pathlib", "statistics", "string", "typing"),
)
# What runs code or opens files in the packages that a reader of weights has installed.
_RUNS_CODE = tuple(
    """
    torch.hub. torch.load torch.save torch.jit. torch.package. torch.ops. torch.classes. torch.serialization.load
    torch.serialization._load torch.utils.cpp_extension. torch.utils.model_zoo. torch.utils.data.datapipes.
    torch._inductor. torch._dynamo. torch.fx. torch.compile torch.multiprocessing. torch.distributed.run
    torch.distributed.rpc. torch.testing. torch.utils._config_module. torch.utils._cpp numpy.load numpy.save
    numpy.fromfile numpy.memmap numpy.testing. numpy.f2py. numpy.ctypeslib. numpy.distutils. numpy.lib.
    numpy.loadtxt numpy.genfromtxt numpy.fromregex joblib. dill. cloudpickle. pip. setuptools. pkg_resources.
    IPython. requests. httpx. paramiko. fsspec. numexpr. pandas.read_ pandas.eval pandas.io. tensorflow. keras.
    nltk. jsonpickle. yaml. ray. dask. sympy. execnet. invoke. plumbum. pexpect. sh. webbrowser. distutils.
    commands. site.
    """.split()
)
_DEEPEST, _LARGEST = 100, 1_000_000  # of nested tuples: hashing one visits every leaf, shared or not
_CLASSES = 10_000  # of other programs in one file


class RefusedPickleError(Exception):
    """A pickle names code that no weights file needs; the text is its name."""


class Readable(Protocol):
    """What a pickle is read from."""

    def read(self, count: int = -1, /) -> bytes:
        """At most so many bytes."""
        ...

    def readline(self) -> bytes:
        """Up to the end of a line."""
        ...


class Inert:
    """Stands where an object of another program was: keeps what the pickle gives it, and does nothing.

    Attributes:
        args: that it was to be built with.
        state: its attributes, mostly a dictionary.
        entries: its items, of a list's or a dictionary's kind.
    """

    origin = ""  # the name of the class that it stands for
    args: tuple[object, ...]
    state: Any
    entries: dict[object, object]

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        """Take any arguments; a pickle's NEWOBJ is not followed by __init__, so it is all done here."""
        made = super().__new__(cls)
        made.args, made.state, made.entries = args, dict(kwargs), {}
        return made

    def __call__(self, *args: object, **kwargs: object) -> Inert:
        """What the call of an inert object gives: another."""
        return Inert(*args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def append(self, value: object) -> None:
        """Take a list item that the pickle adds."""
        self.entries[len(self.entries)] = value

    def extend(self, values: list[object]) -> None:
        """Take list items that the pickle adds."""
        for value in values:
            self.append(value)

    def __hash__(self) -> int:
        return id(self)


_PythonUnpickler: Any = pickle._Unpickler  # the type checker knows it by the interface of the one in C


class InertUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """Rebuilds containers and what there are builders for; every other object becomes Inert.

    It is Python's own reader in Python, since the one in C sets memory aside as a pickle asks for it. Raises
    RefusedPickleError by name for code, and whatever a damaged file leads to.

    Args:
        file: at the pickle's start; it must not hand out more than it holds.
        builders: what may be called, by module and name; each must take any arguments without harm.
        storage: gives the storage of a persistent id, as torch.save writes them.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def __init__(
        self, file: Readable, builders: Mapping[str, Callable[..., Any]], storage: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(file, encoding="latin1")  # Caffe2-era files are Python 2 pickles
        self._storage = storage
        self._builders, self._callable = builders, {id(one) for one in builders.values()}
        self._classes: dict[str, type[Inert]] = {}
        self._extent: dict[int, tuple[int, int]] = {}  # leaves and depth of each large tuple, by id
        self._kept: list[object] = []  # so that an id stays a tuple's own

    def persistent_load(self, pid: Any) -> Any:
        """A torch storage."""
        if self._storage is None:
            raise pickle.UnpicklingError("a persistent id in a plain pickle")
        return self._storage(pid)

    def find_class(self, module: str, name: str) -> Any:
        """The builder of this exact name, a torch dtype, or an inert class."""
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        whole = f"{module}.{name}"
        if whole in self._builders:
            return self._builders[whole]
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        in_library = module.split(".")[0] in sys.stdlib_module_names
        if in_library and whole not in _PLAIN and module not in _PLAIN_MODULES:
            raise RefusedPickleError(whole)
        if whole.startswith(_RUNS_CODE):
            raise RefusedPickleError(whole)
        if len(self._classes) > _CLASSES:
            raise pickle.UnpicklingError("classes without end")
        return self._classes.setdefault(whole, type(name, (Inert,), {"origin": whole}))

    def _build(self, maker: Any, args: Any, kwargs: Any = None) -> Any:
        inert = isinstance(maker, Inert) or (isinstance(maker, type) and issubclass(maker, Inert))
        if not (inert or id(maker) in self._callable):
            raise pickle.UnpicklingError("a call of something that cannot be called")
        return maker(*args, **(kwargs or {}))

    def load_reduce(self) -> None:
        """Call a builder, or make an inert object."""
        args = self.stack.pop()
        self.stack[-1] = self._build(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        """As NEWOBJ, with keyword arguments."""
        kwargs, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._build(self.stack[-1], args, kwargs)

    def _instantiate(self, klass: Any, args: Any) -> None:
        """As NEWOBJ, for the oldest protocols."""
        self.append(self._build(klass, args))

    def load_build(self) -> None:
        """Give an inert object its attributes; those of others (an OrderedDict's, a tensor's) are left."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].__setstate__(state)

    def load_bytearray8(self) -> None:
        """As many bytes as are there."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def measure(self) -> None:
        """Stop at a tuple on the stack whose hash would take for ever, or overflow the stack of C."""
        made = self.stack[-1]
        known = [self._extent.get(id(part), (1, int(isinstance(part, tuple)))) for part in made]
        leaves, depth = 1 + sum(size for size, _ in known), 1 + max((deep for _, deep in known), default=0)
        if depth > _DEEPEST or (depth > 1 and leaves > _LARGEST):
            raise pickle.UnpicklingError("tuples nested without end")
        if depth > 1 or leaves > 8:
            self._extent[id(made)] = (leaves, depth)
            self._kept.append(made)

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _measured(code: bytes) -> None:
    plain = _PythonUnpickler.dispatch[code[0]]

    def load(self: InertUnpickler) -> None:
        plain(self)
        self.measure()

    InertUnpickler.dispatch[code[0]] = load


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _measured(_code)
