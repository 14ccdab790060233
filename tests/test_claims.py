"""Claims of folders: what is in the way, what is renewed, what is removed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from simsiam import claims
from simsiam.errors import UserError


def write(folder: Path, *names: str, text: str = "ours", **settings: Any) -> None:
    """A call of a command that writes these files."""
    with claims.claim(folder, command="predict", makes=names, **settings):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def names(folder: Path) -> list[str]:
    """Every file but the list and the lock."""
    files = [each for each in folder.rglob("*") if each.is_file() and not each.name.startswith(".simsiam")]
    return sorted(each.relative_to(folder).as_posix() for each in files)


def test_users_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("a photograph")
    with pytest.raises(UserError, match=r"a\.jpg: is there already and was not made by this command"):
        write(tmp_path, "a.jpg")
    assert (tmp_path / "a.jpg").read_text() == "a photograph"
    assert names(tmp_path) == ["a.jpg"]
    write(tmp_path, "b.jpg")  # what is in nobody's way
    with pytest.raises(UserError, match="not made by this command"):
        write(tmp_path, "a.jpg", again=True)


def test_own_files_are_renewed_and_those_left_over_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("the user's")
    write(tmp_path, "a.jpg", "masks/a.png")
    write(tmp_path, "a.jpg", "b.jpg", text="newer")
    assert names(tmp_path) == ["a.jpg", "b.jpg", "notes.txt"]
    assert not (tmp_path / "masks").exists()
    assert (tmp_path / "a.jpg").read_text() == "newer"
    assert "removed 1 file of an earlier call: masks/a.png" in capsys.readouterr().err


def test_files_that_the_command_itself_removed_are_not_said_to_be_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the checkpoints of a resumed run, of which the oldest go while it trains."""
    for numbers in ((1, 2), (3,)):
        with claims.claim(tmp_path, command="pretrain", makes=["checkpoints/*.pt"], whole=True):
            (tmp_path / "checkpoints").mkdir(exist_ok=True)
            for old in tmp_path.glob("checkpoints/*"):
                old.unlink()
            for number in numbers:
                (tmp_path / "checkpoints" / f"{number}.pt").write_text("")
    assert names(tmp_path) == ["checkpoints/3.pt"]
    assert "removed" not in capsys.readouterr().err


def test_file_that_the_user_changed_since_is_the_users(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "a.png").write_text("corrected by hand")
    for again in (False, True):
        with pytest.raises(UserError, match=r"a\.png: is there already and was changed since"):
            write(tmp_path, "a.png", again=again)
    write(tmp_path, "c.png")
    assert names(tmp_path) == ["a.png", "c.png"]  # b.png was ours and is not renewed


def test_list_says_who_made_what(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    made = json.loads((tmp_path / claims.MANIFEST).read_text())["made"]
    assert made["predict"]["version"]
    assert made["predict"]["files"] == {"a.png": hashlib.sha256(b"ours").hexdigest()}


def test_call_that_failed_leaves_its_files_to_the_next(tmp_path: Path) -> None:
    write(tmp_path, "old.png")
    with pytest.raises(FileExistsError):
        write(tmp_path, "a.png", "a.png/below")
    assert names(tmp_path) == ["a.png", "old.png"]
    write(tmp_path, "a.png")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("out", "read"),
    [("photos", "photos"), ("photos/found", "photos"), ("link", "photos"), ("photos/../photos/deep/er", "photos")],
)
def test_output_among_the_inputs_is_refused(tmp_path: Path, out: str, read: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(UserError, match="which is read"):
        write(tmp_path / out, "a.jpg", inputs=[tmp_path / read])
    assert list((tmp_path / "photos").iterdir()) == []


def test_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("a photograph")
    with pytest.raises(UserError, match="is read, and would be written over"):
        write(tmp_path, "a.jpg", inputs=[tmp_path / "a.jpg"])
    write(tmp_path / "photos-found", "a.jpg", inputs=[tmp_path / "photos"])  # beside is not among


def test_whole_folder_belongs_to_one_command(tmp_path: Path) -> None:
    with claims.claim(tmp_path, command="pretrain", makes=["result.json", "checkpoints/*.pt"], whole=True):
        (tmp_path / "checkpoints").mkdir()
        for name in ("result.json", "checkpoints/step-1.pt", "checkpoints/notes.txt"):
            (tmp_path / name).write_text("ours")
    assert claims.owner(tmp_path) == "pretrain"
    for again in (False, True):
        with (
            pytest.raises(UserError, match="holds what `simsiam pretrain` made"),
            claims.claim(tmp_path, command="evaluate", makes=["result.json"], whole=True, again=again),
        ):
            pass
    write(tmp_path, "a.jpg")  # a file of another command's has its place there
    with claims.claim(tmp_path, command="pretrain", makes=["result.json", "checkpoints/*.pt"], whole=True, again=True):
        assert names(tmp_path) == ["a.jpg", "checkpoints/notes.txt"]


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("recipe.json", {"recipe": {}, "data": {}}, "pretrain"),
        ("result.json", {"protocol": "pretrain", "schema": 1}, "pretrain"),
        ("result.json", {"protocol": "knn", "schema": 1}, "evaluate"),
        ("import.json", {"format": "timm", "sha256": ""}, "import"),
        ("metrics.jsonl", {"kind": "step", "loss": 1.5}, "evaluate"),
        ("metrics.jsonl", {"loss": 1.5}, None),
        ("result.json", {"accuracy": 1}, None),
    ],
)
def test_folders_of_versions_that_kept_no_list_are_recognised(
    tmp_path: Path, file: str, content: object, found: str | None
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    assert claims.owner(tmp_path) == found
    again = claims.claim(tmp_path, command="evaluate", makes=[file], whole=True, again=True)
    if found == "evaluate":
        with again:
            assert names(tmp_path) == []
    else:
        with pytest.raises(UserError), again:
            pass
        assert names(tmp_path) == [file]


def test_call_that_was_killed_is_known(tmp_path: Path) -> None:
    assert claims.ended(tmp_path, "predict")
    with claims.claim(tmp_path, command="predict", makes=["a.png"]):
        (tmp_path / "a.png").write_text("ours")
        assert not claims.ended(tmp_path, "predict"), "killed here, its list would stay as it is"
    assert claims.ended(tmp_path, "predict")


def test_one_place_for_two_calls_at_once_is_refused(tmp_path: Path) -> None:
    with (
        claims.claim(tmp_path, command="predict", makes=["a.jpg"]),
        pytest.raises(UserError, match="another run is writing there"),
        claims.claim(tmp_path, command="predict", makes=["b.jpg"]),
    ):
        pass
    with claims.claim(tmp_path, command="embed a.npy", makes=["a.npy"]):
        write(tmp_path, "b.jpg")  # another place in the same folder


def test_page_is_not_written_over_a_users_own(tmp_path: Path) -> None:
    write(tmp_path, "report.html")
    pages = ["report.html", "report.json"]
    claims.extend(tmp_path, pages)  # a folder that belongs to no command
    with claims.claim(tmp_path / "run", command="pretrain", makes=["report.html"], whole=True):
        (tmp_path / "run" / "report.html").write_text("ours")
    claims.extend(tmp_path / "run", pages)
    (tmp_path / "run" / "report.json").write_text("ours")
    claims.extend(tmp_path / "run", pages)
    with claims.claim(tmp_path / "other", command="pretrain", makes=["report.html"], whole=True):
        pass
    (tmp_path / "other" / "report.html").write_text("the user's")
    with pytest.raises(UserError, match=r"report\.html: not made by this program"):
        claims.extend(tmp_path / "other", pages)
