"""The model zoo page of this project: the published page's tables, filled from result files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simsiam import published
from simsiam.report import formats
from simsiam.report.collect import Found
from simsiam.report.html import style, template
from simsiam.report.layout import PAGE_LAYOUTS, Layout
from simsiam.report.tables import Cell, Row, Table, build
from simsiam.results import write_atomic
from simsiam.wording import counted

NOT_MEASURED = "not measured here"
TITLE = "Model zoo"
_HEAD = ("Self-Supervised Config", "By", "Epochs", "Batch", "Licence", "Weights")
TRAINING = "Not trained here; these commands do it (eight GPUs; see docs/guides/reproduce.md for SLURM and one GPU):"
FILLING = "Not measured here yet; these commands fill the cells:"
FURTHER = "Further measurements"
ABOUT = (
    "SimSiam (Chen and He, arXiv 2011.10566) with the sections and tables of MMSelfSup's model zoo page. Published "
    "figures stand beside those measured by this program; whatever has not been measured is marked, and the command "
    "that fills it stands below its table. All models are pre-trained on ImageNet-1k unless a row says otherwise."
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A line of the page's first table: a published model, or a run of ours."""

    name: str
    by: str
    epochs: str
    batch_size: str
    licence: str
    weights: str  # where they are, or that they are not


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table with what it measures and the commands that fill its empty cells."""

    table: Table
    about: str
    commands: list[str]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with its tables."""

    title: str
    about: str
    parts: list[Part]


@dataclass(frozen=True, kw_only=True)
class ZooPage:
    """The whole page, ready to be written."""

    models: list[Model]
    training: list[str]  # commands that train what was not trained here
    sections: list[Section]
    further: list[Table]  # results that belong to no table of the page
    closing: list[str]


_DATA = {  # the folder that the command of a protocol names
    **dict.fromkeys(("svm_voc07", "low_shot_voc07", "detection_voc0712", "segmentation_voc12aug"), "data/VOCdevkit"),
    **dict.fromkeys(("linear_mhead", "linear_avgpool", "knn"), "data/imagenet"),
    "inaturalist2018": "data/iNaturalist2018",
    "places205": "data/Places205",
    "detection_coco": "data/coco",
    "segmentation_cityscapes": "data/cityscapes",
}
_ABOUT = {  # how a protocol of the page is run here
    "svm_voc07": "Linear SVMs on VOC2007 trainval, tested on test (mAP, %). Best Layer says which feature map the SVM "
    "figure comes from: Feature1 is the stem, Feature2 to Feature5 the four stages.",
    "low_shot_voc07": "k=1 to k=96 is the number of positive images a class in the low-shot SVM (mean of five "
    "samples).",
    "linear_mhead": "Feature1 to Feature5: the maps are pooled to about 9,000 numbers, without global pooling, and "
    "classified by a linear layer (resnet50_mhead_8xb32-steplr-90e, top-1 %).",
    "linear_avgpool": "AvgPool: a linear layer on globally pooled features (resnet50_8xb512-coslr-90e_in1k).",
    "inaturalist2018": "Feature1 to Feature5 on iNaturalist 2018 (8,142 species, top-1 %).",
    "places205": "Feature1 to Feature5 on Places205 (top-1 %).",
    "knn": "Weighted vote of the k nearest training images on pooled features (top-1 %).",
    "detection_voc0712": "Faster R-CNN, C4, trained on VOC2007+2012 trainval, tested on VOC2007 test (11-point AP50; "
    "faster_rcnn_r50_c4_mstrain_24k_voc0712).",
    "detection_coco": "Mask R-CNN with FPN, 1x schedule, train2017 and val2017 (mask_rcnn_r50_fpn_mstrain_1x_coco).",
    "segmentation_voc12aug": "FCN with output stride 8, 20k iterations, train_aug and val "
    "(fcn_r50-d8_512x512_20k_voc12aug).",
    "segmentation_cityscapes": "FCN with output stride 8, 40k iterations, train and val "
    "(fcn_r50-d8_769x769_40k_cityscapes).",
}
_IMAGENET = 1_200_000  # images; a run that saw more is one on ImageNet-1k's 1,281,167, less what its monitor held out
_SECTIONS = {  # the page's headings, what it says below each, and the keys of the tables
    "Classification": (
        "Four data sets: VOC, ImageNet, iNaturalist2018 and Places205. Results are top-1 (%) unless said otherwise.",
        ("svm", "imagenet", "inaturalist2018", "places205", "knn"),
    ),
    "Detection": ("Pascal VOC 2007+2012 and COCO2017, with the protocols that MoCo set up.", ("voc0712", "coco")),
    "Segmentation": (
        "Pascal VOC 2012 + Aug and Cityscapes, with the protocols of MMSegmentation.",
        ("voc12aug", "cityscapes"),
    ),
}


def zoo_page(models: Sequence[Model], found: Sequence[Found]) -> ZooPage:
    """The page for these results.

    Args:
        models: published ones; runs of ours are added from the results.
        found: of any protocols; what fits no table of the page comes at its end.
    """
    tables = {table.key: table for table in build(found, which="all")}
    layouts = {layout.key: layout for layout in PAGE_LAYOUTS}
    sections = [
        Section(title=title, about=about, parts=[_part(layouts[key], tables.pop(key)) for key in keys])
        for title, (about, keys) in _SECTIONS.items()
    ]
    own = [one for one in found if one.result.protocol == "pretrain"]
    trained = {one.model for one in own if one.result.data.images > _IMAGENET}
    return ZooPage(
        models=[*models, *(_own_model(one) for one in own)],
        training=[training_command(name) for name in published.PAGE_MODELS if name not in trained],
        sections=sections,
        further=list(tables.values()),
        closing=formats.closing_notes([part.table for section in sections for part in section.parts]),
    )


def training_command(model: str) -> str:
    """The command that trains a row of the page, on eight GPUs."""
    return f"torchrun --nproc-per-node 8 -m simsiam pretrain data/imagenet --recipe {model} --out {run_folder(model)}"


def evaluation_command(model: str, protocol: str) -> str:
    """The command that fills a protocol's cells in the row of a model."""
    name = protocol.replace("_", "-")
    return f"simsiam evaluate {name} {run_folder(model)} --data {_DATA[protocol]}"


def run_folder(model: str) -> str:
    """Where the commands of the page keep a run."""
    return f"runs/{model}"


def _own_model(one: Found) -> Model:
    recipe, verdict = one.result.recipe, one.result.detail.get("verdict") or {}
    return Model(
        name=one.model,
        by=f"this program, on {one.result.data.name} ({counted(one.result.data.images, 'image')})",
        epochs=str(recipe.get("epochs", "")),
        batch_size=str(recipe.get("batch_size", "")),
        licence="yours",
        weights=", ".join(filter(None, (one.path.parent.name, verdict.get("status")))),
    )


def _part(layout: Layout, table: Table) -> Part:
    rows: list[Row] = []
    commands: list[str] = []
    nothing = Cell(word=NOT_MEASURED)
    for model in published.PAGE_MODELS:
        theirs = [row for row in table.rows if row.origin == "published" and row.model == model]
        ours = [row for row in table.rows if row.origin == "ours" and row.comparable]
        ours = [row for row in ours if row.model == model or row.model.startswith(f"{model} (")]  # an aside in brackets
        shown = [
            dataclasses.replace(row, cells=[cell if cell.filled else nothing for cell in row.cells]) for row in ours
        ]
        if not ours:
            assert layout.data is not None
            shown = [Row(model=model, origin="ours", data=layout.data.title, cells=[nothing for _ in layout.columns])]
        rows += theirs + shown
        for protocol in layout.protocols:
            mine = [index for index, column in enumerate(layout.columns) if column.protocol == protocol]
            if not any(all(row.cells[index].filled for index in mine) for row in ours):
                commands.append(evaluation_command(model, protocol))
    known = {(row.model, row.origin) for row in rows}
    rows += [row for row in table.rows if (row.model, row.origin) not in known or not row.comparable]
    about = " ".join(_ABOUT[protocol] for protocol in layout.protocols)
    return Part(table=dataclasses.replace(table, rows=rows), about=about, commands=commands)


def write(page: ZooPage, out: Path | None) -> str:
    """The page as text, HTML where `out` ends so, else Markdown; written to `out` as well where it is given."""
    text = html(page) if out is not None and out.suffix in (".html", ".htm") else markdown(page)
    if out is not None:
        write_atomic(out, text)
    return text


def markdown(page: ZooPage) -> str:
    """GitHub's Markdown."""
    lines = [f"# {TITLE}", "", ABOUT, "", "## Models", ""]
    lines += formats.markdown_table(_HEAD, [_cells(model) for model in page.models], numbers=0)
    lines += ["", *_commands(TRAINING, page.training)]
    for section in page.sections:
        lines += [f"## {section.title}", "", section.about, ""]
        for part in section.parts:
            lines += [f"### {part.table.title}", "", *_markdown_part(part)]
    if page.further:
        lines += [f"## {FURTHER}", ""]
    for table in page.further:
        part = Part(table=table, about="", commands=[])
        lines += [f"### {table.title}", "", *_markdown_part(part)]
    lines += [line for note in page.closing for line in (formats.markdown_text(note), "")]
    return "\n".join(lines).rstrip() + "\n"


def html(page: ZooPage) -> str:
    """A whole page that needs no network."""
    return template("zoo_page.html").render(
        page=page,
        title=TITLE,
        about=ABOUT,
        training=TRAINING,
        filling=FILLING,
        further=FURTHER,
        model_head=_HEAD,
        models=[_cells(model) for model in page.models],
        shown=formats.shown,
        leading=len(formats.LEADING),
        style=style(),
    )


def _cells(model: Model) -> list[str]:
    return [str(getattr(model, field.name)) for field in dataclasses.fields(model)]


def _markdown_part(part: Part) -> list[str]:
    table = part.table
    lines = [formats.markdown_text(part.about), ""] if part.about else []
    lines += formats.markdown_table(formats.headings(table), formats.lines(table), numbers=len(table.columns))
    lines += ["", *(f"- {formats.markdown_text(note)}" for note in table.notes), ""]
    return lines + _commands(FILLING, part.commands)


def _commands(said: str, commands: list[str]) -> list[str]:
    return [said, "", "```sh", *commands, "```", ""] if commands else []
