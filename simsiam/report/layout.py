"""The tables of the model zoo page and those this project adds: titles, columns and the sets they were published on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set, recognised by how many images it has."""

    title: str
    whole: tuple[int, ...]  # images of training and test set together
    test: tuple[int, ...]  # of the test set alone: counts only with one of `names` in the data's name
    names: tuple[str, ...]

    def matches(self, name: str, images: int) -> bool:
        """Whether data of this name and size is the published set."""
        plain = "".join(letter for letter in name.lower() if letter.isalnum())
        return images in self.whole or (images in self.test and any(one in plain for one in self.names))


VOC07 = DataSet(title="VOC2007", whole=(9963,), test=(4952,), names=("voc07", "voc2007"))
IMAGENET = DataSet(title="ImageNet-1k", whole=(1331167,), test=(50000,), names=("imagenet", "in1k"))
PLACES205 = DataSet(title="Places205", whole=(2469373,), test=(20500,), names=("places205",))
INATURALIST = DataSet(title="iNaturalist2018", whole=(461939,), test=(24426,), names=("inaturalist2018", "inat18"))
VOC0712 = DataSet(title="VOC2007+2012", whole=(21503,), test=(4952,), names=("voc",))
COCO2017 = DataSet(title="COCO2017", whole=(123287, 122266), test=(5000, 4952), names=("coco",))
VOC12AUG = DataSet(title="VOC2012+Aug", whole=(12031,), test=(1449,), names=("voc",))
CITYSCAPES = DataSet(title="Cityscapes", whole=(3475,), test=(500,), names=("cityscapes",))


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of numbers, or the name of the best layer."""

    heading: str
    protocol: str
    metric: str
    published: str | None = None  # the published figure's metric where it has another name
    kind: Literal["number", "best layer"] = "number"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One table."""

    key: str
    title: str
    columns: tuple[Column, ...]
    digits: int  # after the point, as on the page
    data: DataSet | None  # None: no figure was ever published for this table

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols whose results fill the table."""
        return tuple(dict.fromkeys(column.protocol for column in self.columns))


def _columns(protocol: str, **headings: str) -> tuple[Column, ...]:
    """Columns from metric=heading."""
    return tuple(Column(heading=heading, protocol=protocol, metric=metric) for metric, heading in headings.items())


def features(protocol: str) -> tuple[Column, ...]:
    """The five stage columns of a protocol."""
    return _columns(protocol, **{f"feature{stage}": f"Feature{stage}" for stage in range(1, 6)})


SVM = Layout(
    key="svm",
    title="VOC SVM / Low-shot SVM",
    columns=(
        Column(heading="Best Layer", protocol="svm_voc07", metric="best", kind="best layer"),
        Column(heading="SVM", protocol="svm_voc07", metric="best", published="feature5"),
        *_columns("low_shot_voc07", **{f"k{k}": f"k={k}" for k in (1, 2, 4, 8, 16, 32, 64, 96)}),
    ),
    digits=2,
    data=VOC07,
)
COCO = _columns(
    "detection_coco",
    box_ap="mAP(Box)",
    box_ap50="AP50(Box)",
    box_ap75="AP75(Box)",
    mask_ap="mAP(Mask)",
    mask_ap50="AP50(Mask)",
    mask_ap75="AP75(Mask)",
)
KNN = _columns("knn", **{f"top1_k{k}": f"k={k}" for k in (10, 20, 100, 200)})
LINEAR = (*features("linear_mhead"), Column(heading="AvgPool", protocol="linear_avgpool", metric="top1"))

PAGE_LAYOUTS: tuple[Layout, ...] = (
    SVM,
    Layout(key="imagenet", title="ImageNet Linear Evaluation", columns=LINEAR, digits=2, data=IMAGENET),
    Layout(
        key="places205", title="Places205 Linear Evaluation", columns=features("places205"), digits=2, data=PLACES205
    ),
    Layout(
        key="inaturalist2018",
        title="iNaturalist2018 Linear Evaluation",
        columns=features("inaturalist2018"),
        digits=2,
        data=INATURALIST,
    ),
    Layout(key="knn", title="ImageNet Nearest-Neighbor Classification", columns=KNN, digits=1, data=IMAGENET),
    Layout(
        key="voc0712",
        title="Pascal VOC 2007 + 2012 Detection",
        columns=_columns("detection_voc0712", ap50="AP50"),
        digits=2,
        data=VOC0712,
    ),
    Layout(key="coco", title="COCO2017 Detection", columns=COCO, digits=1, data=COCO2017),
    Layout(
        key="voc12aug",
        title="Pascal VOC 2012 + Aug Segmentation",
        columns=_columns("segmentation_voc12aug", miou="mIOU"),
        digits=2,
        data=VOC12AUG,
    ),
    Layout(
        key="cityscapes",
        title="Cityscapes Segmentation",
        columns=_columns("segmentation_cityscapes", miou="mIOU"),
        digits=2,
        data=CITYSCAPES,
    ),
)
OWN_LAYOUTS: tuple[Layout, ...] = (
    Layout(
        key="svm_layers",
        title="VOC SVM by Layer",
        columns=(*features("svm_voc07"), Column(heading="Pooled", protocol="svm_voc07", metric="pooled")),
        digits=2,
        data=None,
    ),
    Layout(
        key="semi_supervised",
        title="Semi-Supervised Fine-Tuning",
        columns=_columns("semi_supervised", top1="Top-1", top5="Top-5"),
        digits=2,
        data=None,
    ),
    Layout(
        key="linear_probe",
        title="Fast Linear Probe",
        columns=_columns("linear_probe", top1="Top-1", top5="Top-5"),
        digits=2,
        data=None,
    ),
    Layout(
        key="few_labels",
        title="Few Labels",
        columns=_columns("few_labels", top1="Top-1", top5="Top-5"),
        digits=2,
        data=None,
    ),
    Layout(
        key="clustering",
        title="Clustering",
        columns=_columns("clustering", nmi="NMI", ari="ARI"),
        digits=3,
        data=None,
    ),
    Layout(
        key="retrieval",
        title="Retrieval",
        columns=_columns("retrieval", **{f"recall_at_{k}": f"Recall@{k}" for k in (1, 5, 10)}),
        digits=2,
        data=None,
    ),
    Layout(
        key="pretrain",
        title="Pre-Training Runs",
        columns=_columns("pretrain", knn="kNN", view_recall="View retrieval", spread="Spread of z"),
        digits=2,
        data=None,
    ),
)
