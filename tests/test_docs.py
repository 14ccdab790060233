"""What the documents show: marked Python runs as it stands, and every command line is one that the program takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from simsiam.backbones import build_backbone
from simsiam.cli import VERBS
from simsiam.weights.save import write_backbone
from tests import commands
from tests.weights import foreign

ROOT = Path(__file__).parent.parent
PAGES = {str(page.relative_to(ROOT)): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "console")
PLACEHOLDER = re.compile(r"\.\.\.|\bVERB\b|\bACTION\b|\bsimsiam$")  # a pattern, not a command


def blocks(page: Path, *infos: str) -> list[str]:
    return [body for info, body in FENCE.findall(page.read_text()) if info.strip() in infos]


def shown_commands(page: Path) -> list[str]:
    """Lines of shell blocks, and whole command lines set as code within the text."""
    text = page.read_text()
    lines = [
        line.strip().removeprefix("$ ")
        for body in blocks(page, *SHELL)
        for line in body.replace("\\\n", " ").splitlines()
    ]
    lines += re.findall(r"`((?:simsiam|torchrun) [^`]*)`", FENCE.sub("", text))
    found = [line for line in lines if re.search(r"(^|\s|/)simsiam ", line)]
    return [line.replace("evaluate NAME", "evaluate knn") for line in found if not PLACEHOLDER.search(line)]


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if shown_commands(page)])
def test_every_command_line_is_taken(name: str) -> None:
    assert {line: why for line in shown_commands(PAGES[name]) if (why := commands.refuse(line))} == {}


def test_there_are_commands_of_every_verb() -> None:
    used = {
        word for page in PAGES.values() for line in shown_commands(page) for word in re.findall(r"simsiam (\w+)", line)
    }
    assert set(VERBS) <= used


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if blocks(page, "python runnable")])
def test_marked_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that holds a run, runs/demo, and another program's file, weights.pth."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    torch.save({"state_dict": foreign.prefixed(foreign.resnet(), "module.")}, "weights.pth")
    (tmp_path / "runs/demo").mkdir(parents=True)
    write_backbone(tmp_path / "runs/demo", build_backbone("resnet10", width=8, stem="small"), recipe=None)
    for block in blocks(PAGES[name], "python runnable"):
        exec(compile(block, name, "exec"), {})


def test_what_the_weights_guide_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test_marked_python_runs("docs/guides/weights.md", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "plain state dict resnet18" in printed
    assert "features differ by at most" in printed
    assert "mmselfsup-100e-v0.5.0 Apache-2.0 67.88" in printed


@pytest.mark.parametrize(
    "guide",
    [
        "getting_started",
        "photos",
        "reproduce",
        "migrating",
        "weights",
        "collapse",
        "faq",
        "roboflow",
        "cvat",
        "label_studio",
        "labelme",
        "ultralytics",
        "phone",
        "which_recipe",
    ],
)
def test_the_readme_leads_to_every_guide(guide: str) -> None:
    assert f"docs/guides/{guide}.md" in (ROOT / "README.md").read_text()
