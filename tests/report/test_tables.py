"""Tables from result files in all four formats."""

from __future__ import annotations

import csv
import io
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest

from simsiam.errors import UserError
from simsiam.published import MODEL_100E
from simsiam.report.collect import collect
from simsiam.report.formats import EMPTY, Format, lines, report
from simsiam.report.layout import IMAGENET, PAGE_LAYOUTS, VOC07
from simsiam.report.tables import Table, build
from tests.report.measured import add, make_pretrained, make_result, shots, stages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of a small run on CIFAR-10, and one run of the page's recipe on the page's data."""
    for seed in (0, 1, 2):
        run = make_pretrained(tmp_path / f"demo-{seed}", "demo", seed=seed)
        add(run, "linear_mhead", stages(10.0 + seed), data="cifar10-train", seed=seed)
        add(run, "linear_avgpool", {"top1": 61.0 + seed, "top5": 91.0}, data="cifar10-train", seed=seed)
    run = make_pretrained(tmp_path / "r50", MODEL_100E)
    add(run, "svm_voc07", stages(31.0) | {"best": 81.0}, data="voc07", detail={"best_layer": "feature5"})
    spread = {"std": dict.fromkeys(shots(0), 1.25), "cost_selection": "train cross-validation"}
    add(run, "low_shot_voc07", shots(38.0), data="voc07", detail=spread)
    return tmp_path


def _table(folder: Path, key: str) -> Table:
    return next(table for table in build(collect([folder])) if table.key == key)


def test_ours_beside_the_published_row(folder: Path) -> None:
    table = _table(folder, "svm")
    assert [column.heading for column in table.columns][:4] == ["Best Layer", "SVM", "k=1", "k=2"]
    body = lines(table)
    assert body[0][:6] == [MODEL_100E, "published, v0.5.0", "VOC2007", "feature5", "84.21", "39.71"]
    assert body[1][:6] == [MODEL_100E, "published, v0.6.0", "VOC2007", "feature5", "84.64", "39.65"]
    assert body[2][:6] == [MODEL_100E, "ours", "voc07", "feature5", "81.00", "38.00 ± 1.25"]
    assert len(body) == 4, "the 200-epoch row has one version only"
    said = " ".join(table.notes)
    assert "protocol low_shot_voc07" in said
    assert "± is the standard deviation over the samples" in said
    assert "cost chosen on train cross-validation" in said


def test_our_rows_alone(folder: Path) -> None:
    both = {table.key: table for table in build(collect([folder]))}
    for table in build(collect([folder]), which="ours"):
        assert {row.origin for row in table.rows} == {"ours"}
        assert lines(table) == [line for line in lines(both.pop(table.key)) if line[1].startswith("ours")]
    assert not both, "no table is lost"
    text = report([folder], which="ours")
    assert not re.search("published, v|Published:|No version of the page", text)


def test_seeds_are_averaged_and_other_data_is_marked(folder: Path) -> None:
    table = _table(folder, "imagenet")
    row = next(row for row in table.rows if row.origin == "ours")
    assert row.results == 3
    assert row.marked_data == "cifar10-train †"
    assert row.cells[5].value == pytest.approx(62.0)
    assert row.cells[5].spread == pytest.approx(statistics.stdev([61.0, 62.0, 63.0]))
    assert lines(table)[-1][-1] == "62.00 ± 1.00"
    assert table.notes[0] == "† not ImageNet-1k, so not comparable with the published figures."
    assert any("seeds 0, 1, 2" in note and "mean ± standard deviation of 3 results" in note for note in table.notes)


def test_published_versions(folder: Path) -> None:
    body = lines(_table(folder, "imagenet"))
    assert body[1] == [
        *(MODEL_100E, "published, v0.7.0", "ImageNet-1k"),
        *("16.27", "33.77", "45.80", "60.83", "68.21", "68.28"),
    ]


def test_a_missing_protocol_leaves_marked_cells(folder: Path) -> None:
    run = make_pretrained(folder / "other", "other")
    add(run, "linear_avgpool", {"top1": 50.0}, data="imagenet")
    row = next(line for line in lines(_table(folder, "imagenet")) if line[0] == "other")
    assert row == ["other", "ours", "imagenet", EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, "50.00"]
    assert f"{EMPTY}: not measured here" in report([folder])


def test_other_settings_are_not_averaged(folder: Path) -> None:
    run = make_pretrained(folder / "again", "demo", seed=5)
    add(run, "linear_avgpool", {"top1": 20.0}, data="cifar10-train", seed=5, recipe={"name": "quick"})
    shown = [line[3:] for line in lines(_table(folder, "imagenet")) if line[0] == "demo"]
    assert [line[-1] for line in shown] == ["62.00 ± 1.00", "20.00"]
    assert shown[1][:5] == [EMPTY] * 5


def test_other_pretraining_under_the_same_name_is_told_apart(folder: Path) -> None:
    run = make_pretrained(folder / "longer", "demo", seed=6)
    text = (run / "recipe.json").read_text().replace('"epochs": 3', '"epochs": 99')
    (run / "recipe.json").write_text(text)
    add(run, "linear_avgpool", {"top1": 70.0}, data="cifar10-train", seed=6)
    names = {line[0]: line[-1] for line in lines(_table(folder, "imagenet")) if line[0].startswith("demo")}
    assert names["demo (longer)"] == "70.00"
    assert names["demo (demo-0)"] == "62.00 ± 1.00"
    assert len(names) == 2


def test_the_newest_of_a_repeated_result_counts(folder: Path) -> None:
    path = folder / "demo-0" / "again" / "result.json"
    source = str(folder / "demo-0")
    newer = make_result(
        *("linear_avgpool", {"top1": 11.0}),
        data="cifar10-train",
        source=source,
        weights="a0",
        created="2030-01-01T00:00:00+00:00",
    )
    newer.write(path)
    row = next(row for row in _table(folder, "imagenet").rows if row.origin == "ours")
    assert row.cells[5].value == pytest.approx((11.0 + 62.0 + 63.0) / 3)


def test_a_random_network_is_not_the_run_it_lies_in(folder: Path) -> None:
    result = make_result("knn", {"top1_k20": 3.0}, data="cifar10-train", source="random")
    result.write(folder / "demo-0" / "random" / "result.json")
    assert {line[0] for line in lines(_table(folder, "knn"))} >= {"untrained"}


def test_seeds_of_an_untrained_network_are_one_row(tmp_path: Path) -> None:
    for seed, weights, source in (
        (0, "aa", "random:resnet10"),
        (1, "bb", "random:resnet10"),
        (0, "cc", "random:resnet8"),
    ):
        figures = {"top1_k20": 3.0 + seed, "top1_k5": 1.0 + 2 * seed}
        result = make_result("knn", figures, data="x", source=source, weights=weights, seed=seed)
        result.write(tmp_path / f"{weights}" / "result.json")
    table = _table(tmp_path, "knn")
    notes = [note for note in table.notes if "top1_k5" in note]  # no column of the table
    assert sorted(note.rpartition("; also ")[2] for note in notes) == ["top1_k5 1.0.", "top1_k5 2.0 ± 1.4."]
    rows = [row for row in table.rows if row.origin == "ours"]
    assert sorted((row.model, row.results) for row in rows) == [("resnet10, untrained", 2), ("resnet8, untrained", 1)]


def test_a_moved_run_is_known_by_its_name(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "here" / "run-7", "demo")
    make_result("knn", {"top1_k20": 3.0}, data="x", source="elsewhere/run-7").write(run / "knn" / "result.json")
    assert [one.model for one in collect([run / "knn"])] == ["demo"]


def test_a_protocol_without_a_layout_still_gets_a_table(tmp_path: Path) -> None:
    make_result("new_protocol", {"a": 1.0, "b": 2.0}, data="x", source="w.pth").write(tmp_path / "result.json")
    (table,) = build(collect([tmp_path]))
    assert lines(table) == [["w.pth", "ours", "x", "1.00", "2.00"]]


def test_all_tables_of_the_page(folder: Path) -> None:
    keys = [table.key for table in build(collect([folder]), which="all")]
    assert keys[: len(PAGE_LAYOUTS)] == [layout.key for layout in PAGE_LAYOUTS]
    assert "No version of the page has a figure here." in report([folder], which="all")
    assert "Cityscapes" not in report([folder])


@pytest.mark.parametrize(
    ("data", "name", "images", "matches"),
    [
        (VOC07, "VOC2007", 9963, True),
        (VOC07, "voc2007-test", 4952, True),
        (VOC07, "voc07", 40, False),
        (IMAGENET, "train", 1331167, True),
        (IMAGENET, "cifar10-train", 50000, False),
        (IMAGENET, "imagenet-val", 50000, True),
    ],
)
def test_published_sets_are_known_by_their_size(data: object, name: str, images: int, matches: bool) -> None:
    assert data.matches(name, images) is matches  # type: ignore[attr-defined]


def test_markdown(folder: Path) -> None:
    text = report([folder])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for line in rows:
        assert len(re.findall(r"(?<!\\)\|", line)) in (7, 10, 14, 9)
    assert f"| {MODEL_100E} | published, v0.5.0 | VOC2007 | feature5 | 84.21 |" in text


class Cells(HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.tags: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_html_holds_the_same_cells(folder: Path) -> None:
    parsed = Cells(report([folder], format="html")).rows
    for table in build(collect([folder])):
        for line in lines(table):
            assert line in parsed


def test_csv_has_a_line_for_each_figure(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(report([folder], format="csv"))))
    ours = [row for row in rows if row["figures"] == "ours" and row["protocol"] == "linear_avgpool"]
    assert [(row["value"], row["std"], row["results"], row["comparable"]) for row in ours] == [
        ("62.0", "1.0", "3", "no")
    ]
    page = [
        row for row in rows if row["figures"] == "published" and row["metric"] == "k96" and row["version"] == "v0.5.0"
    ]
    assert [row["value"] for row in page] == ["82.44", "83.44"]


def test_a_figure_is_never_quoted_without_its_caveat(tmp_path: Path) -> None:
    run = make_pretrained(tmp_path / "run", "demo")
    caveat = "12 of 12 test images are among the training images: the figures say in part how well those are remembered"
    add(run, "knn", {"top1_k10": 100.0}, data="lab", notes=[caveat, "another note"])
    for form in get_args(Format):
        text = report([tmp_path], format=form)
        assert caveat in text, form
        assert "another note" not in text


def test_latex_escapes(tmp_path: Path) -> None:
    source = "my_run & 50% #1 {x} $y$ ~^\\"
    make_result("clustering", {"nmi": 0.5, "ari": 0.25}, data="a_b", source=source).write(tmp_path / "result.json")
    text = report([tmp_path], format="latex")
    row = next(line for line in text.splitlines() if line.startswith("my"))
    assert row == (
        r"my\_run \& 50\% \#1 \{x\} \$y\$ \textasciitilde{}\textasciicircum{}\textbackslash{} & ours & a\_b & "
        r"0.500 & 0.250 \\"
    )
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1


def test_hostile_names(tmp_path: Path) -> None:
    attack = "<script>alert(1)<|script>| `x`\n## head"
    make_result("clustering", {"nmi": 0.5}, data=attack, source="w").write(tmp_path / "result.json")
    assert "script" not in Cells(report([tmp_path], format="html")).tags
    markdown = report([tmp_path])
    assert "<script>" not in markdown.replace("\\<", "")
    assert markdown.count("\n## ") == 0, "the name opens no heading, and the first one is the table's"
    (row,) = csv.DictReader(io.StringIO(report([tmp_path], format="csv")))
    assert row["data"] == attack


def test_the_text_is_written(folder: Path) -> None:
    out = folder / "new" / "tables.md"
    assert report([folder], out=out) == out.read_text()


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        report([tmp_path / "gone"])
    with pytest.raises(UserError, match=r"no result\.json in it"):
        report([tmp_path])
    (tmp_path / "result.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="not a result of schema 1"):
        report([tmp_path])
    make_result("knn", {"top1_k20": 1.0}, data="x", source="w").write(tmp_path / "result.json")
    with pytest.raises(UserError, match=r"--format word: unknown\. Choose one of markdown, html, csv, latex"):
        report([tmp_path], format="word")  # type: ignore[arg-type]
