"""What `--help` says of every verb and evaluation: words for people, at the width of a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsiam import cli
from simsiam.commands import zoo
from simsiam.commands.reading import read
from simsiam.commands.verbs import VERBS
from simsiam.protocols import PROTOCOLS

LINES = [[verb] for verb in VERBS if verb != "evaluate"]
LINES += [["zoo", action] for action in zoo.ACTIONS]
LINES += [["evaluate", name] for name in (*PROTOCOLS, "all")]


def help_of(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_help_says_neither_none_nor_an_empty_default(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = help_of(words, capsys, monkeypatch)
    assert "usage: simsiam" in said
    wrong = [line for line in said.splitlines() if "None" in line or "(default: )" in line or "[[" in line]
    assert wrong == []


def test_what_a_flag_takes_and_does_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = help_of(["zoo", "page"], capsys, monkeypatch)
    assert "usage: simsiam zoo page [-h] [RUN ...] [--out FILE.md|FILE.html]" in page
    assert "The page; without it, Markdown to the terminal." in page
    said = help_of(["export"], capsys, monkeypatch)
    assert "--stem {imagenet,small,small-stride2}" in said
    assert "--width INT" in said
    said = help_of(["predict"], capsys, monkeypatch)
    assert "FOLDER IMAGE ..." in said
    assert "(default: 20)" in said
    said = help_of(["evaluate", "segmentation-folder"], capsys, monkeypatch)
    assert "--from STR" in said
    assert "(repeatable)" in said
    assert "one result for each: --seeds 0 1 2. (default: 0)" in said
    assert "(required)" in help_of(["zoo", "add"], capsys, monkeypatch)


def test_a_record_reads_the_same_however_often() -> None:
    for _ in range(2):
        found = read(zoo.Page, ["a", "b", "--out", "c.md"], prog="simsiam zoo page")
        assert (found.results, found.out) == ((Path("a"), Path("b")), Path("c.md"))
    assert read(zoo.Page, [], prog="simsiam zoo page").out is None
