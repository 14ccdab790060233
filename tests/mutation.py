"""Would the tests notice? Small faults are planted one by one, and the module's own unit tests are run on each.

    python -m tests.mutation                     every fault of every module below (an hour on one core)
    python -m tests.mutation --most 40 verdict   a seeded sample of 40 faults of the modules whose path holds "verdict"

One process at a time. A fault is planted in a forked child that has torch loaded already; nothing on disk changes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
SECONDS = 120  # of the processor: a fault that makes the tests run for so long has been noticed
SVM = "tests/evaluation/classification/test_svm.py"
TARGETS = {
    "simsiam/model.py": ["tests/test_model.py"],
    "simsiam/engine/optimizers.py": ["tests/engine/test_schedules_and_optimizers.py", "tests/engine/test_fit.py"],
    "simsiam/engine/checkpoints.py": ["tests/engine/test_checkpoints.py"],
    "simsiam/data/two_views/draws.py": ["tests/data/two_views/test_views.py"],
    "simsiam/data/two_views/batch.py": ["tests/data/two_views/test_engines.py"],
    "simsiam/pretraining/verdict.py": ["tests/pretraining/test_verdict.py"],
    "simsiam/pretraining/monitor.py": ["tests/pretraining/test_check.py", "tests/pretraining/test_monitor.py"],
    "simsiam/pretraining/measures.py": ["tests/pretraining/test_check.py", "tests/pretraining/test_monitor.py"],
    "simsiam/evaluation/intervals.py": [
        "tests/evaluation/test_intervals.py",
        f"{SVM}::test_area_average_precision_by_hand",
    ],
    "simsiam/evaluation/segmentation/metrics.py": ["tests/evaluation/segmentation/test_metrics.py"],
}
OTHERS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
LEFT_OUT = {"detach", "eval", "sqrt", "exp", "log", "double", "clamp_min"}  # x.detach() becomes x


def faults(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """Every fault: what and where, and the tree with it."""
    places = list(_places(tree))
    for number in range(len(places)):
        faulty = copy.deepcopy(tree)
        parent, field, index = list(_places(faulty))[number]
        node = getattr(parent, field) if index is None else getattr(parent, field)[index]
        for name, other in _versions(node):
            holder = copy.deepcopy(faulty)
            parent, field, index = list(_places(holder))[number]
            if index is None:
                setattr(parent, field, other)
            else:
                getattr(parent, field)[index] = other
            line = getattr(node, "lineno", getattr(parent, "lineno", 0))
            yield f"line {line}: {name}", ast.fix_missing_locations(holder)


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Every node but annotations, decorators and the parts of texts, as where it hangs."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list") or isinstance(tree, ast.JoinedStr):
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, ast.AST):
                yield tree, field, index if isinstance(value, list) else None
                yield from _places(child)


def _versions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if type(node) in OTHERS:
        yield f"{type(node).__name__} to {OTHERS[type(node)].__name__}", OTHERS[type(node)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"{type(node.op).__name__} left out", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} to {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        other = node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0
        yield f"{node.value} to {other}", ast.Constant(other)
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", ast.IfExp(test=node.test, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"left out: {ast.unparse(node)[:60]}", ast.Pass()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEFT_OUT:
        yield f".{node.func.attr}() left out", node.func.value


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a tree in memory."""

    def __init__(self, name: str, tree: ast.Module, file: Path) -> None:
        self.name, self.tree, self.file = name, tree, file

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.file, loader=self)

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.file), "exec"), module.__dict__)


def noticed(file: str, tree: ast.Module, tests: list[str]) -> bool:
    """Whether the tests fail on a module of this tree."""
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # a busy machine is no fault: its clock does not count
        signal.alarm(30 * SECONDS)  # but tests that wait for ever are
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, _Planted(file.removesuffix(".py").replace("/", "."), tree, ROOT / file))
        import pytest

        # The verdict's tests by training take minutes and are left to the suite.
        code = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not trained_networks", *tests]
        )
        os._exit(0 if code == 0 else 1)
    return os.waitpid(child, 0)[1] != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="pieces of the paths; without them all")
    parser.add_argument("--most", type=int, default=10**6, help="faults of each module at most, drawn at random")
    words = parser.parse_args()
    import sklearn.metrics
    import torchvision.transforms.v2  # loaded once here rather than in every child

    assert "simsiam.model" not in sys.modules, (sklearn, torchvision)
    planted = killed = 0
    for file, tests in TARGETS.items():
        if words.modules and not any(piece in file for piece in words.modules):
            continue
        tree = ast.parse((ROOT / file).read_text())
        assert not noticed(file, tree, tests), f"{file}: its tests fail without any fault"
        found = list(faults(tree))
        chosen = random.Random(0).sample(found, words.most) if len(found) > words.most else found
        survivors = [name for name, faulty in chosen if not noticed(file, faulty, tests)]
        planted, killed = planted + len(chosen), killed + len(chosen) - len(survivors)
        print(f"{file}: {len(chosen) - len(survivors)} of {len(chosen)} noticed", flush=True)
        for name in survivors:
            print(f"  survived: {name}", flush=True)
    print(f"{killed} of {planted} noticed, {100 * killed / max(planted, 1):.1f} %")


if __name__ == "__main__":
    main()
