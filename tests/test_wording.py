"""Counts in sentences, and that messages have none that is put together by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simsiam import wording
from simsiam.data.classification.labels import labelled_source
from simsiam.errors import UserError
from simsiam.features.neighbours import nearest
from simsiam.recipes.segmentation import fcn_r50_d8_512x512_20k_voc12aug
from simsiam.wording import duration
from tests import tiny

ROOT = Path(wording.__file__).parent


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 images are"), (1, "1 image is"), (2, "2 images are"), (1234, "1,234 images are")]
)
def test_number_and_words_agree(number: int, said: str) -> None:
    assert wording.counted(number, "image is", "images are") == said


def test_the_plural_is_usually_an_s() -> None:
    assert wording.counted(1, "mask") == "1 mask"
    assert wording.counted(3, "mask") == "3 masks"
    assert wording.plural(2, "has", "have") == "have"
    assert wording.left_out(1, "test image") == "1 test image could not be read and was left out"
    assert wording.left_out(2, "test image") == "2 test images could not be read and were left out"


def test_one_missing_image_is_told_as_one(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "a", images=2)
    rows = ["a/circle/000.jpg,x", "a/circle/nothing.jpg,y"]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"1 of 2 images is not there, the first .a/circle/nothing\.jpg."):
        labelled_source(tmp_path / "labels.csv")


def test_no_message_leaves_the_number_open() -> None:
    """`image(s)` says that nobody counted."""
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for path in sorted(ROOT.rglob("*.py"))
        for match in re.findall(r"\w+\(s\)(?= |,|\")", path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_message_takes_many_for_granted() -> None:
    """`{len(files)} files` and `{classes} classes` are wrong for one; `counted` is right."""
    never_one = "epochs|features|parameters|folds"  # of published trainings, of networks, of a cross-validation
    by_hand = (
        r"(?<!of )\{(?:len|sum|int)\([^{}]*\)(?::,)?\} (?:[a-z]+ )?[a-z]+s\b",
        rf"(?<!of )\{{(?:\w+\.)*(?!{never_one})(\w+)(?::,)?\}} \1\b",
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in sorted(ROOT.rglob("*.py"))
        for pattern in by_hand
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_one_is_told_as_one() -> None:
    row = np.ones((1, 8), np.float32)
    with pytest.raises(UserError, match=r"k = 1 neighbour was asked of 0 references\. Use"):
        nearest(row, row, k=1, device="cpu", own_row="skip")
    with pytest.raises(UserError, match=r"k = 2 neighbours were asked of 1 reference\. Use"):
        nearest(row, row, k=2, device="cpu")
    settings = fcn_r50_d8_512x512_20k_voc12aug().segmentation
    once = replace(settings, course=replace(settings.course, iterations=1))
    assert once.notes == ["1 iteration; the published protocol has 20,000"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (200, "3 min 20 s"), (18_720, "5 h 12 min"), (187_200, "2 d 4 h")]
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_words_that_read_as_translated() -> None:
    """An interrupted command resumes, a problem is reported: nothing in help, messages, guides goes on or is told."""
    root = ROOT.parent
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "scripts").iterdir(), *ROOT.rglob("*.py")]
    odd = re.compile(r"\b(?:goes|going) on\b|\btold\b|\blikewise\b", re.IGNORECASE)
    found = {str(page): words for page in pages if (words := odd.findall(page.read_text(encoding="utf-8")))}
    assert found == {}
