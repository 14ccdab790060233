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


def _table(key: str, title: str, columns: tuple[Column, ...], data: DataSet | None = None, digits: int = 2) -> Layout:
    return Layout(key=key, title=title, columns=columns, digits=digits, data=data)


SVM = _table(
    "svm",
    "VOC SVM / Low-shot SVM",
    (
        Column(heading="Best Layer", protocol="svm_voc07", metric="best", kind="best layer"),
        Column(heading="SVM", protocol="svm_voc07", metric="best", published="feature5"),
        *_columns("low_shot_voc07", **{f"k{k}": f"k={k}" for k in (1, 2, 4, 8, 16, 32, 64, 96)}),
    ),
    VOC07,
)
_COCO = {
    f"{of}_{ap}": f"{name}({of.title()})"
    for of in ("box", "mask")
    for ap, name in (("ap", "mAP"), ("ap50", "AP50"), ("ap75", "AP75"))
}
_KNN = {f"top1_k{k}": f"k={k}" for k in (10, 20, 100, 200)}
_LINEAR = (*features("linear_mhead"), Column(heading="AvgPool", protocol="linear_avgpool", metric="top1"))
_TOP = {"top1": "Top-1", "top5": "Top-5"}

PAGE_LAYOUTS: tuple[Layout, ...] = (
    SVM,
    _table("imagenet", "ImageNet Linear Evaluation", _LINEAR, IMAGENET),
    _table("places205", "Places205 Linear Evaluation", features("places205"), PLACES205),
    _table("inaturalist2018", "iNaturalist2018 Linear Evaluation", features("inaturalist2018"), INATURALIST),
    _table("knn", "ImageNet Nearest-Neighbor Classification", _columns("knn", **_KNN), IMAGENET, 1),
    _table("voc0712", "Pascal VOC 2007 + 2012 Detection", _columns("detection_voc0712", ap50="AP50"), VOC0712),
    _table("coco", "COCO2017 Detection", _columns("detection_coco", **_COCO), COCO2017, 1),
    _table("voc12aug", "Pascal VOC 2012 + Aug Segmentation", _columns("segmentation_voc12aug", miou="mIOU"), VOC12AUG),
    _table("cityscapes", "Cityscapes Segmentation", _columns("segmentation_cityscapes", miou="mIOU"), CITYSCAPES),
)
_POOLED = Column(heading="Pooled", protocol="svm_voc07", metric="pooled")
_RECALL = {f"recall_at_{k}": f"Recall@{k}" for k in (1, 5, 10)}
_RUN = {"knn": "kNN", "view_recall": "View retrieval", "spread": "Spread of z"}
OWN_LAYOUTS: tuple[Layout, ...] = (
    _table("svm_layers", "VOC SVM by Layer", (*features("svm_voc07"), _POOLED)),
    _table("semi_supervised", "Semi-Supervised Fine-Tuning", _columns("semi_supervised", **_TOP)),
    _table("linear_probe", "Fast Linear Probe", _columns("linear_probe", **_TOP)),
    _table("few_labels", "Few Labels", _columns("few_labels", **_TOP)),
    _table("clustering", "Clustering", _columns("clustering", nmi="NMI", ari="ARI"), digits=3),
    _table("retrieval", "Retrieval", _columns("retrieval", **_RECALL)),
    _table("pretrain", "Pre-Training Runs", _columns("pretrain", **_RUN)),
)
