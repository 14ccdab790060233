"""The code in the guide runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.weights import foreign

GUIDE = Path(__file__).parents[2] / "docs/guides/weights.md"


def test_code_in_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    torch.save({"state_dict": foreign.prefixed(foreign.resnet(), "module.")}, "weights.pth")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})
    printed = capsys.readouterr().out
    assert "plain state dict resnet18" in printed
    assert "features differ by at most" in printed
    assert "mmselfsup-100e-v0.5.0 Apache-2.0 67.88" in printed
