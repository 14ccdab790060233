"""The command that adds an extra is one that works for the installation at hand."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from simsiam import errors
from simsiam.errors import install_extra

ROOT = Path(errors.__file__).parents[1]


def installed_from(monkeypatch: pytest.MonkeyPatch, folder: Path, origin: dict[str, object] | None) -> None:
    """The package as pip leaves it in a site-packages folder, with the record of where it came from."""

    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"  # PEP 610
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(errors, "__file__", str(folder / "simsiam" / "errors.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())


def test_from_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install_extra("onnx") == "pip install '.[onnx]'"
    monkeypatch.chdir(tmp_path)
    assert install_extra("onnx") == f"pip install '{ROOT}[onnx]'"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'simsiam[timm]'"),
        ({"url": "file:///home/a%20b/simsiam", "dir_info": {}}, "pip install '/home/a b/simsiam[timm]'"),
        (
            {"url": "https://example.org/s.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'simsiam[timm] @ git+https://example.org/s.git'",
        ),
    ],
)
def test_from_elsewhere(
    origin: dict[str, object] | None, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_from(monkeypatch, tmp_path, origin)
    assert install_extra("timm") == command


def test_without_any_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(errors, "__file__", str(tmp_path / "simsiam" / "errors.py"))
    monkeypatch.setattr(metadata, "distribution", absent)
    assert install_extra("timm") == "pip install 'simsiam[timm]'"
