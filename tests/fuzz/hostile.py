"""Pickles made to do harm: each must be refused (or left inert where it lies beside weights), and run nothing."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
from pathlib import Path

from tests.fuzz.harness import Outcome
from tests.fuzz.weights import Files, give, zipped

_MARK = "SIMSIAM_FUZZ_RAN"
_SHELL = f"touch {_MARK}"
_PYTHON = f"__import__('os').system('{_SHELL}')"

# What a pickle may call to run code, open files or reach other machines: module, name, arguments.
CALLS: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("os", "system", (_SHELL,)),
    ("posix", "system", (_SHELL,)),
    ("nt", "system", (_SHELL,)),
    ("os", "popen", (_SHELL,)),
    ("os", "execvp", ("touch", ["touch", _MARK])),
    ("os", "spawnlp", (0, "touch", "touch", _MARK)),
    ("os", "remove", (_MARK,)),
    ("os", "putenv", (_MARK, "1")),
    ("subprocess", "Popen", (["touch", _MARK],)),
    ("subprocess", "run", (["touch", _MARK],)),
    ("subprocess", "check_output", (["touch", _MARK],)),
    ("subprocess", "getoutput", (_SHELL,)),
    ("commands", "getoutput", (_SHELL,)),
    ("builtins", "eval", (_PYTHON,)),
    ("builtins", "exec", (_PYTHON,)),
    ("__builtin__", "eval", (_PYTHON,)),
    ("__builtin__", "execfile", (_MARK,)),
    ("__builtin__", "apply", ("x",)),
    ("builtins", "compile", (_PYTHON, "a", "exec")),
    ("builtins", "__import__", ("antigravity",)),
    ("builtins", "open", (_MARK, "w")),
    ("builtins", "setattr", ("a", "b", "c")),
    ("builtins", "globals", ()),
    ("builtins", "breakpoint", ()),
    ("builtins", "input", ()),
    ("io", "open", (_MARK, "w")),
    ("_io", "FileIO", (_MARK, "w")),
    ("codecs", "open", (_MARK, "w")),
    ("importlib", "import_module", ("antigravity",)),
    ("importlib.machinery", "SourceFileLoader", ("a", _MARK)),
    ("runpy", "run_path", (_MARK,)),
    ("runpy", "_run_code", (_PYTHON, {})),
    ("code", "interact", ()),
    ("codeop", "compile_command", (_PYTHON,)),
    ("timeit", "timeit", (_PYTHON,)),
    ("cProfile", "run", (_PYTHON,)),
    ("profile", "run", (_PYTHON,)),
    ("trace", "Trace", ()),
    ("pdb", "run", (_PYTHON,)),
    ("bdb", "Bdb", ()),
    ("doctest", "debug_script", (_PYTHON,)),
    ("pydoc", "pipepager", ("a", _SHELL)),
    ("pty", "spawn", (["touch", _MARK],)),
    ("asyncio", "create_subprocess_shell", (_SHELL,)),
    ("asyncio.base_subprocess", "BaseSubprocessTransport", ()),
    ("multiprocessing", "Process", ()),
    ("threading", "Thread", ()),
    ("concurrent.futures", "ThreadPoolExecutor", ()),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("ctypes.util", "find_library", ("c",)),
    ("marshal", "loads", (b"a",)),
    ("types", "CodeType", ()),
    ("types", "FunctionType", ()),
    ("pickle", "loads", (b"cos\nsystem\n.",)),
    ("_pickle", "loads", (b"cos\nsystem\n.",)),
    ("cPickle", "loads", (b"cos\nsystem\n.",)),
    ("shelve", "open", (_MARK,)),
    ("dbm", "open", (_MARK, "n")),
    ("sqlite3", "connect", (_MARK,)),
    ("shutil", "rmtree", ("nothing-here",)),
    ("shutil", "copy", ("a", _MARK)),
    ("tempfile", "mkdtemp", ()),
    ("zipfile", "ZipFile", (_MARK, "w")),
    ("tarfile", "open", (_MARK, "w")),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("http://127.0.0.1:9/",)),
    ("urllib2", "urlopen", ("http://127.0.0.1:9/",)),
    ("http.client", "HTTPConnection", ("127.0.0.1",)),
    ("ftplib", "FTP", ("127.0.0.1",)),
    ("smtplib", "SMTP", ("127.0.0.1",)),
    ("webbrowser", "open", ("http://127.0.0.1:9/",)),
    ("signal", "alarm", (1,)),
    ("sys", "exit", (1,)),
    ("sys", "setrecursionlimit", (3,)),
    ("gc", "get_objects", ()),
    ("inspect", "getsource", ()),
    ("operator", "methodcaller", ("system", _SHELL)),
    ("functools", "reduce", ()),
    ("itertools", "starmap", ()),
    ("logging.config", "listen", ()),
    ("logging", "FileHandler", (_MARK,)),
    ("ensurepip", "_run_pip", ()),
    ("venv", "create", (_MARK,)),
    ("lib2to3.pgen2.grammar", "Grammar", ()),
    ("idlelib.pyshell", "ModifiedInterpreter", ()),
    ("copyreg", "add_extension", ("os", "system", 1)),
    ("torch", "load", (_MARK,)),
    ("torch.hub", "load", ("a", "b")),
    ("torch.hub", "load_state_dict_from_url", ("http://127.0.0.1:9/",)),
    ("torch.serialization", "load", (_MARK,)),
    ("torch.jit", "load", (_MARK,)),
    ("torch.utils.cpp_extension", "load_inline", ("a", "b")),
    ("torch.ops", "load_library", ("a",)),
    ("torch.package", "PackageImporter", (_MARK,)),
    ("torch.utils.model_zoo", "load_url", ("http://127.0.0.1:9/",)),
    ("torch.fx", "Graph", ()),
    ("torch._inductor.codecache", "PyCodeCache", ()),
    ("numpy", "load", (_MARK,)),
    ("numpy", "fromfile", (_MARK,)),
    ("numpy", "memmap", (_MARK,)),
    ("numpy.testing._private.utils", "runstring", (_PYTHON, {})),
    ("numpy.f2py.crackfortran", "getlincoef", (_PYTHON, {})),
    ("numpy.lib.npyio", "load", (_MARK,)),
    ("joblib", "load", (_MARK,)),
    ("dill", "loads", (b"a",)),
    ("cloudpickle.cloudpickle", "_make_function", ()),
    ("pip", "main", (["install", "nothing"],)),
    ("setuptools", "setup", ()),
    ("pandas", "read_pickle", (_MARK,)),
    ("IPython", "embed", ()),
    ("requests", "get", ("http://127.0.0.1:9/",)),
    ("yaml", "unsafe_load", (_PYTHON,)),
)


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _value(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]  # without PROTO and STOP; it leaves a single value


def _call(module: str, name: str, args: tuple[object, ...]) -> bytes:
    return _global(module, name) + _value(args) + b"R"


def _named_late(module: str, name: str, args: tuple[object, ...]) -> bytes:
    return _value(module) + _value(name) + b"\x93" + _value(args) + b"R"


def _old_instance(module: str, name: str, args: tuple[object, ...]) -> bytes:
    return b"(" + b"".join(_value(arg) for arg in args) + b"i" + module.encode() + b"\n" + name.encode() + b"\n"


def _old_object(module: str, name: str, args: tuple[object, ...]) -> bytes:
    return b"(" + _global(module, name) + b"".join(_value(arg) for arg in args) + b"o"


def _new_object(module: str, name: str, args: tuple[object, ...]) -> bytes:
    return _global(module, name) + _value(args) + b"\x81"


_SYSTEM = ("os", "system", (_SHELL,))
_NEST = b"".join((b"N\x85", b"2\x86" * 40))  # a tuple of twice itself, forty times: 2 ** 40 leaves
_ODD = (
    b"".join((_value("a"), _value("os"), b"\x93")),  # a name that is no string's
    _global("collections", "OrderedDict") + b")R}" + _value("__class__") + _global("os", "system") + b"sb",
    _global("builtins", "getattr") + b"(" + _global("os", "path") + _value("system") + b"tR" + _value((_SHELL,)) + b"R",
    _global("torch._utils", "_rebuild_tensor_v2") + b"}" + _value("__code__") + b"Nsb",
    _value("torch._utils") + _value("_rebuild_tensor_v2.__globals__") + b"\x93",
    _value("collections") + _value("OrderedDict.__init__.__globals__") + b"\x93" + b")R",
    _global("torch._utils", "_rebuild_tensor_v2") + b")R",
    _global("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + _global("os", "system")
    + b"N"
    + _value((_SHELL,))
    + b"NtR",
    _global("torch.storage", "_load_from_bytes") + _value((pickle.dumps(_SYSTEM),)) + b"R",
    _global("_codecs", "encode") + _value((_SHELL, "rot13")) + b"R" + b"R",
    b"}" + _NEST + b"Ns",  # hashed as a key
    b"\x8f(" + _NEST + b"\x90",  # hashed in a set
    b"}" + b")\x85" + b"\x85" * 200_000 + b"Ns",  # a hash as deep as this overflows the stack of C
    b"](" + b"(" * 300_000,  # marks on marks
    b"]" * 300_000 + b"a" * 299_999,  # lists in lists
    b"]q\x00" + b"h\x00a" * 50_000,  # a list that holds itself
    b"]2a" * 20,
    b"r" + b"\xff" * 4,  # the memo's number four thousand million
    b"Nr" + b"\xfe\xff\xff\x7f",
    b"j" + b"\xff" * 4,
    b"\x8e" + struct.pack("<Q", 1 << 40) + b"abc",  # bytes of a tebibyte
    b"\x8d" + struct.pack("<Q", 1 << 62) + b"abc",
    b"\x96" + struct.pack("<Q", 1 << 36) + b"abc",
    b"\x95" + struct.pack("<Q", 1 << 40) + b"N",  # a frame of a tebibyte
    b"\x8b" + struct.pack("<i", 1 << 30) + b"\x01",  # a number of a gibibyte
    b"L" + b"9" * 400_000 + b"L\n",  # a number in decimal digits, which take the square of their count
    b"T" + struct.pack("<i", -5) + b"abc",
    _global("builtins", "bytearray") + _value((1 << 40,)) + b"R",
    _global("builtins", "range") + _value((1 << 60,)) + b"R" + b"0" + _global("builtins", "list") + b")R",
    _global("builtins", "str") + _value((["a"],)) + b"R",
    _global("numpy.core.multiarray", "_reconstruct") + _value((1, (1 << 40,), b"b")) + b"R",
    _global("numpy", "dtype") + _value((f"V{1 << 40}",)) + b"R",
    _global("numpy", "zeros") + _value(((1 << 40,),)) + b"R",
    _global("torch", "zeros") + _value((1 << 40,)) + b"R",
    b"\x80\xff",
    b"\x82\x01",  # an extension's number
    b"\x97",  # a buffer out of band
    b"\x98",
    _value("a") + b"Q",  # a persistent id
    b"Pabc\n",
    _value(("storage", "FloatStorage", "../../etc/passwd", "cpu", 4)) + b"Q",
    b"R" * 50,
    b"0" * 50,
    b"b" * 50,
    b"\x81" * 50,
    b"e" * 50,
)
_FORMS = (_call, _named_late, _old_instance, _old_object, _new_object)


class Corpus(Files):
    """Each call in each way to make it, and odd pickles: alone, and before weights in both of torch's forms."""

    @functools.cached_property
    def cases(self) -> dict[bytes, bool]:
        """The files, and whether each must be refused; the odd ones need not be where they leave the weights whole."""
        alone = [(form(*call), True) for call in CALLS for form in _FORMS]
        bodies = [(_call(*call), True) for call in CALLS] + [(odd, False) for odd in _ODD]
        zip_sample, _, legacy_sample = self.samples[:3]
        start = legacy_sample.rindex(
            b"\x80\x02", 0, legacy_sample.index(b"state_dict")
        )  # where the main pickle of the older form begins
        made = {b"\x80\x04" + body + b".": must for body, must in alone + bodies}
        for body, must in bodies:
            made[_in_zip(zip_sample, body)] = must
            made[legacy_sample[: start + 2] + body + b"0" + legacy_sample[start + 2 :]] = must
        return made

    def make(self, seed: int) -> bytes:
        """The case of this number."""
        return list(self.cases)[seed]

    def check(self, content: bytes, folder: Path) -> Outcome:
        """As `load_backbone` does; nothing may be left of what was to be run."""
        outcome = give(content, folder)
        assert not Path(_MARK).exists(), "it ran"
        assert outcome == "refused" or not self.cases.get(content, False), "a hostile pickle was read"
        return outcome


def _in_zip(sample: bytes, body: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(sample)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    main = next(name for name in parts if name.endswith("data.pkl"))
    parts[main] = parts[main][:2] + body + b"0" + parts[main][2:]  # made, taken off the stack, then the weights
    return zipped(parts)
