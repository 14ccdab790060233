"""Odd file names and odd terminals: no traceback, and nothing of a name is taken for a command or for a page's text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny
from tests.cases.coloured import CPU, WEIGHTS, folders, simsiam, table
from tests.processes import Forked

PROGRAM = [sys.executable, "-m", "simsiam"]


@pytest.mark.parametrize(("encoding", "lines"), [("ascii", 3), ("cp1252", 1)])
def test_ascii_terminal(tmp_path: Path, encoding: str, lines: int) -> None:
    photos = tiny.flat_folder(tmp_path / "uni", images=3)
    for number, name in enumerate(("été 日本.png", "日本 \udcff.png")):
        (photos / name).write_bytes((photos / f"photo {number:03d}.png").read_bytes())
    root = folders(tmp_path / "set", {"été": 0, "日本": 4}, images=8)
    rows = [(f"set/{name}/{n}.png", name) for name in ("été", "日本") for n in range(8)]
    plain = table(tmp_path / "plain.csv", rows)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    commands = [
        ["neighbors", WEIGHTS, str(photos), "--query", str(photos / "photo 000.png"), "--k", "4"],
        ["neighbors", WEIGHTS, str(photos), "--duplicates"],
        ["evaluate", "knn", WEIGHTS, "--train", str(plain), "--test", str(root), "--out", str(tmp_path / "日本")],
    ]
    done = subprocess.run([*PROGRAM, *commands[0], *CPU], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"?" in done.stdout
    for words in commands[1:lines]:
        forked = Forked([*words, *CPU], env=environment)
        said, _ = forked.communicate()
        assert forked.returncode == 0, said
        assert "Traceback" not in said
        assert "?" in said


def test_a_closed_output_ends_quietly() -> None:
    for words in (["recipes"], ["--help"], ["evaluate", "--help"]):
        process = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()  # as `| head -0` does
        assert process.communicate(timeout=60)[1] == b""
    nowhere = subprocess.run(["sh", "-c", f"{' '.join(PROGRAM)} recipes >&- 2>&-"], check=False)
    assert nowhere.returncode == 0


def test_newline_in_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tiny.flat_folder(tmp_path / "nl", images=3)
    for name in ("new\nline.png", "tab\tand\x1b[31mred.png"):
        (photos / name).write_bytes((photos / "photo 000.png").read_bytes())
    out, sheet = tmp_path / "d.csv", tmp_path / "d.png"
    assert simsiam("neighbors", WEIGHTS, photos, "--duplicates", "--out", sheet, "--table", out, *CPU) == 0
    said = capsys.readouterr().out
    assert "new?line.png" in said
    assert "tab?and?[31mred.png" in said
    assert "\x1b" not in said
    assert '"new\nline.png"' in out.read_text()  # a program gets the name as it is
    with Image.open(sheet) as drawn:
        assert drawn.width > 160


def test_names_are_text_in_the_report(tmp_path: Path) -> None:
    """The page of `browse` is tested with such a name in tests/test_browse_server.py."""
    hostile = "<img src=x onerror=alert(1)>"
    root = folders(tmp_path / f"{hostile} \udcff", {hostile: 0, "<b>": 4})  # and a byte that is no text
    assert (
        simsiam("evaluate", "few-labels", WEIGHTS, "--data", root, "--repeats", "1", *CPU, "--out", tmp_path / "r") == 0
    )
    page = (tmp_path / "r" / "report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
