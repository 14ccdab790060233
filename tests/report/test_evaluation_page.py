"""The page of one evaluation: its figures, classes, pictures and curves, for every kind of protocol."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from simsiam.cli import main
from simsiam.commands.tables import print_table
from simsiam.errors import UserError
from simsiam.report import evaluation_page as parts
from simsiam.report.evaluation_page import has_page, write_evaluation_page
from simsiam.results import Result
from tests.browser import show
from tests.report.evaluations import VOC, Kind, make_evaluation

KINDS: tuple[Kind, ...] = ("voc", "coco", "segmentation", "classification")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    root = tmp_path_factory.mktemp("evaluations")
    return {kind: make_evaluation(root / kind, kind) for kind in KINDS}


def text_of(page: Path) -> str:
    """What a reader sees, without tags, styles and scripts."""
    found: list[str] = []

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.inside = tag

        def handle_data(self, data: str) -> None:
            if self.inside not in ("style", "script"):
                found.append(data)

    Reader().feed(page.read_text())
    return " ".join(" ".join(found).split())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_sections(folders: dict[Kind, Path], kind: Kind) -> None:
    page = write_evaluation_page(folders[kind])
    html, text = page.read_text(), text_of(page)
    assert page == folders[kind] / "report.html"
    for section in ("answer", "classes", "curves", "details"):
        assert f'id="{section}"' in html, section
    assert ('id="pictures"' in html) is (kind != "classification")
    assert ('id="sweep"' in html) is (kind == "voc")
    assert "3 boxes <cut> at the edge & kept." in text
    assert "sha256 aaaaaaaaaaaa" in text
    assert "11 h 27 min" in text
    assert "resizing.short 480, 512, 800" in text
    assert "http://" not in html
    assert "https://" not in html


def test_the_figure_stands_beside_the_published_ones(folders: dict[Kind, Path]) -> None:
    head = parts.headline(Result.read(folders["voc"] / "result.json"))
    assert (head.title, head.value) == ("AP50", 81.37)
    values = {row.value: row for row in head.rows}
    assert head.rows[0].ours
    assert {79.97, 79.80, 79.85} <= values.keys()
    assert values[79.97].source == "MMSelfSup model zoo page, v0.5.0"
    assert values[82.4].name == "SimSiam, optimal"
    assert values[82.4].source == "arXiv 2011.10566, Table 5: transfer, C4"
    assert head.remark == "Published on VOC2007+2012, the data measured here."
    assert head.comparable


def test_other_data_is_not_compared(folders: dict[Kind, Path]) -> None:
    head = parts.headline(Result.read(folders["coco"] / "result.json"))
    assert not head.comparable
    assert "this result is on my-shapes (50 images), so the rows say nothing about each other" in head.remark
    text = text_of(write_evaluation_page(folders["coco"]))
    assert head.remark in text


def test_the_papers_other_tables_are_left_out(folders: dict[Kind, Path]) -> None:
    """Its linear figures are ablations of a hundred epochs, not what this protocol is compared with."""
    result = Result.read(folders["classification"] / "result.json")
    linear = dataclasses.replace(result, protocol="linear_avgpool", main_metric="top1", metrics={"top1": 68.0})
    sources = {row.source.split(",")[0] for row in parts.headline(linear).rows[1:]}
    assert sources == {"MMSelfSup model zoo page", "facebookresearch/simsiam"}


def test_nothing_published_leaves_the_figure_alone(folders: dict[Kind, Path]) -> None:
    result = dataclasses.replace(Result.read(folders["voc"] / "result.json"), protocol="detection_folder")
    head = parts.headline(result)
    assert [row.ours for row in head.rows] == [True]
    assert head.remark == ""


def test_classes_are_ranked_by_the_main_metric(folders: dict[Kind, Path]) -> None:
    result = Result.read(folders["voc"] / "result.json")
    found = parts.classes(result)
    assert found is not None
    assert found.metrics == ["ap50", "ap50_area", "ap", "ap75"]
    values = [row.values[0] for row in found.rows]
    assert values == sorted(result.detail["per_class"]["ap50"].values(), reverse=True)
    assert {row.name for row in found.rows} == set(VOC)
    assert all(0 <= row.width <= 100 for row in found.rows)


def test_a_class_that_never_occurs_comes_last(folders: dict[Kind, Path]) -> None:
    found = parts.classes(Result.read(folders["segmentation"] / "result.json"))
    assert found is not None
    assert found.rows[-1].values == [None]
    assert found.metrics == ["IoU"]


def test_of_many_classes_the_best_and_the_worst(folders: dict[Kind, Path]) -> None:
    result = Result.read(folders["classification"] / "result.json")
    found = parts.classes(result)
    assert found is not None
    assert found.metrics == ["feature5"]
    assert (len(found.rows), found.left_out, found.split) == (40, 260, 20)
    ranked = sorted(result.detail["per_class"].values(), reverse=True)
    assert [row.values[0] for row in found.rows] == ranked[:20] + ranked[-20:]
    assert "260 classes between the best and the worst" in text_of(write_evaluation_page(folders["classification"]))


def test_a_few_more_classes_are_all_shown(folders: dict[Kind, Path]) -> None:
    result = Result.read(folders["classification"] / "result.json")
    few = dataclasses.replace(result, detail={"per_class": {f"class {number}": 1.0 * number for number in range(59)}})
    found = parts.classes(few)
    assert found is not None
    assert (len(found.rows), found.left_out) == (59, 0)


def test_curves_over_iterations_or_epochs(folders: dict[Kind, Path]) -> None:
    def of(kind: Kind) -> dict[str, Any]:
        rows = [json.loads(line) for line in (folders[kind] / "metrics.jsonl").read_text().splitlines()]
        return {chart.key: chart for chart in parts.charts(rows)}

    voc = of("voc")
    assert list(voc) == ["loss", "parts", "lr", "metrics-all"]
    assert {chart.across for chart in voc.values()} == {"iteration"}
    assert voc["loss"].series[0].points[-1].x == pytest.approx(2400)
    assert [series.name for series in voc["parts"].series] == ["loss classes", "loss boxes", "loss rpn"]
    assert [point.x for point in voc["metrics-all"].series[0].points] == [600, 1200, 1800, 2400]
    assert list(of("coco"))[-2:] == ["metrics-box_", "metrics-mask_"]
    assert {chart.across for chart in of("classification").values()} == {"epoch"}
    assert parts.charts([]) == []
    html = write_evaluation_page(folders["voc"]).read_text()
    assert ">iteration</text>" in html


def test_pictures_are_within_the_page(folders: dict[Kind, Path], tmp_path: Path) -> None:
    html = write_evaluation_page(folders["voc"]).read_text()
    assert 'src="data:image/jpeg;base64,' in html
    assert 'alt="Annotated at the left, found at the right."' in html
    folder = make_evaluation(tmp_path / "gone", "voc")
    (folder / "pictures" / "predictions.jpg").unlink()
    assert "no picture" in text_of(write_evaluation_page(folder))


def test_a_result_of_numbers_alone(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path / "bare", "segmentation", pictures=False)
    result = Result.read(folder / "result.json")
    assert has_page(folder)
    dataclasses.replace(result, detail={}).write(folder / "result.json")
    (folder / "metrics.jsonl").unlink()
    assert not has_page(folder)
    assert "62.50" in text_of(write_evaluation_page(folder))
    assert not has_page(tmp_path)
    with pytest.raises(UserError, match=r"no result\.json"):
        write_evaluation_page(tmp_path)


def test_simsiam_report_writes_it(folders: dict[Kind, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = folders["segmentation"] / "report.html"
    page.unlink(missing_ok=True)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folders["segmentation"])])
    assert ended.value.code == 0
    assert page.is_file()
    said = capsys.readouterr().out
    assert f"report: {page}" in said
    assert "62.50" in said  # the table follows


def test_an_evaluation_ends_with_its_page(folders: dict[Kind, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = folders["coco"] / "report.html"
    page.unlink(missing_ok=True)
    print_table([folders["coco"], folders["voc"]])
    assert page.is_file()
    assert f"report: {page}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_browser(folders: dict[Kind, Path], browser: Any, kind: Kind) -> None:
    page = write_evaluation_page(folders[kind])
    for width, scheme in ((1100, "light"), (360, "dark"), (360, "light")):
        show(browser, page.as_uri(), width=width, scheme=scheme)
        assert browser.get_log("browser") == []
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        wide = (
            "return [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > "
            f"{width} + 1 && !one.closest('.scroll')).map((one) => one.outerHTML.slice(0, 80))"
        )
        assert browser.execute_script(wide) == []
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        dark = max(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) < 60
        assert dark is (scheme == "dark")
    broken = "return [...document.images].filter((one) => one.complete && one.naturalWidth === 0).length"
    assert browser.execute_script(broken) == 0
