"""The model zoo page: the published sections, result files in their rows, and commands that the program takes."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from simsiam import cli
from simsiam.commands.zoo import published_models
from simsiam.published import FIGURES, MODEL_100E, MODEL_200E, PAGE, PAGE_MODELS
from simsiam.report.collect import collect
from simsiam.report.zoo_page import (
    NOT_MEASURED,
    ZooPage,
    evaluation_command,
    html,
    markdown,
    training_command,
    write,
    zoo_page,
)
from simsiam.results import Result
from tests import commands
from tests.report.measured import add, make_pretrained, make_result, shots, stages

HEADINGS = [
    "Models",
    "Classification",
    "VOC SVM / Low-shot SVM",
    "ImageNet Linear Evaluation",
    "iNaturalist2018 Linear Evaluation",
    "Places205 Linear Evaluation",
    "ImageNet Nearest-Neighbor Classification",
    "Detection",
    "Pascal VOC 2007 + 2012 Detection",
    "COCO2017 Detection",
    "Segmentation",
    "Pascal VOC 2012 + Aug Segmentation",
    "Cityscapes Segmentation",
]


@pytest.fixture(scope="module")
def empty() -> ZooPage:
    return zoo_page(published_models(), [])


@pytest.fixture
def measured(tmp_path: Path) -> ZooPage:
    """A run of the page's recipe with half of a table, a zoo model, and a run on another set."""
    run = make_pretrained(tmp_path / "r50", MODEL_100E)
    add(run, "svm_voc07", stages(31.0) | {"best": 81.25}, data="voc07", detail={"best_layer": "feature5"})
    add(run, "linear_mhead", stages(10.0), data="imagenet")
    result = make_result("knn", {"top1_k20": 57.5}, data="imagenet", source="mmselfsup-100e-v0.7.0", weights="bb")
    result.write(tmp_path / "zoo" / "result.json")
    small = make_pretrained(tmp_path / "demo", "demo")
    result = Result.read(small / "result.json")
    dataclasses.replace(result, detail={"verdict": {"status": "healthy"}}).write(small / "result.json")
    add(small, "low_shot_voc07", shots(30.0), data="photos")
    add(small, "clustering", {"nmi": 0.5, "ari": 0.25}, data="photos")
    return zoo_page(published_models(), collect([tmp_path]))


def section(text: str, title: str) -> str:
    return re.split(r"^#+ ", text.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_sections_are_the_published_pages(empty: ZooPage) -> None:
    assert re.findall(r"^###? (.*)$", markdown(empty), re.MULTILINE) == HEADINGS


def test_every_figure_of_the_first_and_the_last_page_is_there(empty: ZooPage) -> None:
    text = markdown(empty)
    for one in FIGURES:
        if one.source == PAGE and one.model in PAGE_MODELS and one.version != "v0.6.0":
            assert re.search(rf"\| {one.model} \| published, [^|]*\|.*\| ({one.value:.2f}|{one.value:.1f}) ", text), one


def test_the_empty_page_gives_a_command_for_every_cell(empty: ZooPage) -> None:
    parts = [part for one in empty.sections for part in one.parts]
    for part in parts:
        ours = [row for row in part.table.rows if row.origin == "ours"]
        assert [row.model for row in ours] == list(PAGE_MODELS)
        assert {cell.word for row in ours for cell in row.cells} == {NOT_MEASURED}
        protocols = {column.protocol for column in part.table.columns}
        assert set(part.commands) == {evaluation_command(m, p) for m in PAGE_MODELS for p in protocols}
    assert empty.training == [training_command(model) for model in PAGE_MODELS]
    assert sum(len(part.commands) for part in parts) == 2 * 11


def test_every_command_is_taken_by_the_program(empty: ZooPage) -> None:
    printed = [*empty.training, *(line for one in empty.sections for part in one.parts for line in part.commands)]
    assert {line: why for line in printed if (why := commands.refuse(line))} == {}


def test_measured_rows_take_the_place_of_the_marks(measured: ZooPage) -> None:
    text = markdown(measured)
    svm = section(text, "VOC SVM / Low-shot SVM")
    row = next(line for line in svm.splitlines() if line.startswith(f"| {MODEL_100E} | ours"))
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["feature5", "81.25", NOT_MEASURED]
    lines = re.findall(r"^simsiam evaluate (\S+) runs/(\S+)", svm, re.MULTILINE)
    assert lines == [("low-shot-voc07", MODEL_100E), ("svm-voc07", MODEL_200E), ("low-shot-voc07", MODEL_200E)]
    assert "| demo | ours | photos † |" in svm
    imagenet = section(text, "ImageNet Linear Evaluation")
    assert f"simsiam evaluate linear-mhead runs/{MODEL_100E}" not in imagenet
    assert f"simsiam evaluate linear-avgpool runs/{MODEL_100E}" in imagenet


def test_our_figures_for_published_weights_have_a_row_of_their_own(measured: ZooPage) -> None:
    knn = section(markdown(measured), "ImageNet Nearest-Neighbor Classification")
    assert "| mmselfsup-100e-v0.7.0 | ours | imagenet | – | 57.5 | – | – |" in knn
    assert f"simsiam evaluate knn runs/{MODEL_100E} " in knn, "that row does not measure our own run"


def test_what_the_page_has_no_table_for_is_not_lost(measured: ZooPage) -> None:
    assert "| demo | ours | photos | 0.500 | 0.250 |" in section(markdown(measured), "Clustering")
    models = section(markdown(measured), "Models")
    assert "| demo | this program, on cifar10-train (60,000 images) | 3 |  | yours | demo, healthy |" in models


class Shown(HTMLParser):
    """Headings, cells and commands as a browser would take them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, value in attrs if value and "://" in value}, "nothing is fetched"
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))


def test_html_says_the_same(measured: ZooPage) -> None:
    shown = Shown()
    shown.feed(html(measured))
    assert not shown.open
    assert [text for tag, text in shown.texts if tag in ("h2", "h3")][: len(HEADINGS)] == HEADINGS
    cells = {text for tag, text in shown.texts if tag == "td"}
    assert {"81.25", "84.21", "57.5", NOT_MEASURED} <= cells
    said = [line for tag, text in shown.texts if tag == "pre" for line in text.splitlines()]
    assert f"simsiam evaluate low-shot-voc07 runs/{MODEL_100E} --data data/VOCdevkit" in said


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def zoo(*words: str) -> int:
        with pytest.raises(SystemExit) as end:
            cli.main(["zoo", "page", *words])
        return int(end.value.code or 0)

    run = make_pretrained(tmp_path / "r50", MODEL_100E)
    add(run, "linear_avgpool", {"top1": 68.125}, data="imagenet")
    assert zoo(str(tmp_path)) == 0
    assert "| 68.12 |" in capsys.readouterr().out
    for name in ("zoo.md", "zoo.html"):
        assert zoo(str(tmp_path), "--out", str(tmp_path / name)) == 0
        assert "68.12" in (tmp_path / name).read_text()
    assert zoo("--out", str(tmp_path / "zoo.pdf")) == 2
    assert "end it in .md or .html" in capsys.readouterr().err
    assert zoo(str(tmp_path / "nowhere")) == 2


def test_the_page_in_the_documents_is_up_to_date(empty: ZooPage) -> None:
    page = Path(__file__).parents[2] / "docs/model_zoo.md"
    assert page.read_text() == write(empty, None), "write it anew: simsiam zoo page --out docs/model_zoo.md"
