"""The code in the guide on vectors runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.weights import foreign

ROOT = Path(__file__).parents[2]


def test_code_in_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    torch.save(foreign.resnet().state_dict(), "weights.pth")
    tiny.folder(tmp_path / "photos", classes=2, images=4)
    (tmp_path / "photos" / "circle" / "broken.jpg").write_text("none")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/guides/embeddings.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, {"PLACE": str(ROOT)})
    printed = capsys.readouterr().out
    assert "(2, 512)\n(4, 512)\n8 512 circle/000.jpg ['circle/broken.jpg']" in printed
    assert "(1, 64, 32, 32)\n(1, 64, 16, 16)\n(1, 128, 8, 8)\n(1, 256, 4, 4)\n(1, 512, 2, 2)" in printed
    assert "simsiam_resnet152" in printed
    assert (tmp_path / "features.npy").exists()
