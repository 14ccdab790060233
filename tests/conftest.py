"""One thread a process: the tensors here are small, and tests run beside each other, one process a core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the programs that tests start

from tests.browser import chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium for the tests of one file."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Also where the environment asks for more; here, as what only hands tests out to workers needs no torch."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that no test run before has filled, and that leaves the user's alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SIMSIAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
