"""Published figures as data: the model zoo page in its versions, the official repository, the paper.

Protocols and metrics carry the names that our own results use, so a table can set one beside the other. Every figure
says where it comes from and how sure it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Certainty = Literal["read", "said in a thread", "from memory"]

PAGE = "MMSelfSup model zoo page"
OFFICIAL = "facebookresearch/simsiam"
PAPER = "arXiv 2011.10566"
MODEL_100E = "resnet50_8xb32-coslr-100e"
MODEL_200E = "resnet50_8xb32-coslr-200e"
PAGE_MODELS = (MODEL_100E, MODEL_200E)
PAGE_VERSION = "v0.5.0"  # the page that this project reproduces
VERSIONS = ("v0.5.0", "v0.6.0", "v0.7.0", "v0.8.0")  # those in which a SimSiam figure changed or came new

BGR_NOTE = (
    "Up to v0.6.0 images were decoded as BGR and normalised as RGB, in pre-training and in the classification "
    "benchmarks. v0.7.0 mended it and released new weights, but measured only AvgPool anew, and added Places205; the "
    "SVM, the five-stage linear, detection and segmentation figures were never run again."
)
_NOT_AGAIN = "weights trained on BGR images; not run again after the fault was mended"
_MENDED = "after the BGR fault was mended"
_ONE_LR = "one fine-tuning learning rate for all methods"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number, in percent or AP points."""

    model: str  # the row: a recipe of the page, or what the paper varied
    protocol: str  # as in Result.protocol
    metric: str  # as in Result.metrics
    data: str  # the data set it was measured on
    value: float
    version: str  # of the source: a release of the page, a table of the paper
    source: str
    certainty: Certainty
    note: str = ""


def figures(
    *,
    model: str | None = None,
    protocol: str | None = None,
    metric: str | None = None,
    version: str | None = None,
    source: str | None = None,
) -> list[Published]:
    """Every published figure that fits what is given, in the order of publication."""
    wanted = {"model": model, "protocol": protocol, "metric": metric, "version": version, "source": source}
    asked = {name: value for name, value in wanted.items() if value is not None}
    return [one for one in FIGURES if all(getattr(one, name) == value for name, value in asked.items())]


def page_figure(model: str, protocol: str, metric: str, *, version: str = PAGE_VERSION) -> Published | None:
    """What the model zoo page of a version says: the value of that release, else of the release before it.

    None where no release up to then had one.
    """
    known = figures(model=model, protocol=protocol, metric=metric, source=PAGE)
    seen = [one for one in known if VERSIONS.index(one.version) <= VERSIONS.index(version)]
    return seen[-1] if seen else None


_LOW_SHOT = ("k1", "k2", "k4", "k8", "k16", "k32", "k64", "k96")
_FEATURES = ("feature1", "feature2", "feature3", "feature4", "feature5")
_KNN = ("top1_k10", "top1_k20", "top1_k100", "top1_k200")
_COCO = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")


def _row(
    model: str,
    version: str,
    protocol: str,
    data: str,
    metrics: Sequence[str],
    values: Sequence[float],
    *,
    note: str = "",
    source: str = PAGE,
    certainty: Certainty = "read",
) -> list[Published]:
    return [
        Published(
            model=model,
            protocol=protocol,
            metric=metric,
            data=data,
            value=value,
            version=version,
            source=source,
            certainty=certainty,
            note=note,
        )
        for metric, value in zip(metrics, values, strict=True)
    ]


_PAGE_COLUMNS = {  # protocol: data, metrics, and what is to be known of its figures up to v0.6.0
    "svm_voc07": ("voc07", ("feature5",), _NOT_AGAIN),
    "low_shot_voc07": ("voc07", _LOW_SHOT, _NOT_AGAIN),
    "linear_mhead": ("imagenet", _FEATURES, _NOT_AGAIN),
    "linear_avgpool": ("imagenet", ("top1",), "BGR images"),
    "detection_voc0712": ("voc0712", ("ap50",), f"{_NOT_AGAIN}; {_ONE_LR}"),
    "detection_coco": ("coco2017", _COCO, f"{_NOT_AGAIN}; {_ONE_LR}"),
    "segmentation_voc12aug": ("voc12aug", ("miou",), f"{_NOT_AGAIN}; {_ONE_LR}"),
    "places205": ("places205", _FEATURES, ""),
    "knn": ("imagenet", _KNN, ""),
}
_PAGE: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
    (MODEL_100E, "v0.5.0"): {
        "svm_voc07": (84.21,),
        "low_shot_voc07": (39.71, 49.65, 62.79, 69.97, 74.73, 78.30, 81.06, 82.44),
        "linear_mhead": (15.85, 34.02, 46.00, 60.90, 67.92),
        "linear_avgpool": (67.88,),
        "detection_voc0712": (79.97,),
        "detection_coco": (38.3, 57.6, 41.7, 34.4, 54.8, 36.9),
        "segmentation_voc12aug": (46.11,),
    },
    (MODEL_200E, "v0.5.0"): {
        "svm_voc07": (85.20,),
        "low_shot_voc07": (39.85, 50.44, 63.73, 70.93, 75.74, 79.42, 82.02, 83.44),
        "linear_mhead": (15.57, 37.21, 47.28, 62.21, 69.85),
        "linear_avgpool": (69.80,),
        "detection_voc0712": (79.85,),
        "detection_coco": (38.8, 58.0, 42.3, 34.9, 55.3, 37.6),
        "segmentation_voc12aug": (46.27,),
    },
    (MODEL_100E, "v0.6.0"): {
        "svm_voc07": (84.64,),
        "low_shot_voc07": (39.65, 49.86, 62.48, 69.50, 74.48, 78.31, 81.06, 82.56),
        "linear_mhead": (16.27, 33.77, 45.80, 60.83, 68.21),
        "linear_avgpool": (68.20,),
        "detection_voc0712": (79.80,),
        "detection_coco": (38.6, 57.6, 42.3, 34.6, 54.8, 36.9),
        "segmentation_voc12aug": (48.35,),
    },
    (MODEL_100E, "v0.7.0"): {"linear_avgpool": (68.28,), "places205": (21.32, 35.66, 43.05, 50.79, 53.27)},
    (MODEL_200E, "v0.7.0"): {"linear_avgpool": (69.84,), "places205": (21.17, 35.85, 43.49, 50.99, 54.10)},
    (MODEL_100E, "v0.8.0"): {"knn": (57.4, 57.6, 55.8, 54.2)},
    (MODEL_200E, "v0.8.0"): {"knn": (60.2, 60.4, 58.8, 57.4)},
}


def _page() -> list[Published]:
    made = []
    for (model, version), figures_of in _PAGE.items():
        for protocol, values in figures_of.items():
            data, metrics, note = _PAGE_COLUMNS[protocol]
            mended = VERSIONS.index(version) >= VERSIONS.index("v0.7.0")
            made += _row(model, version, protocol, data, metrics, values, note=_MENDED if mended else note)
    return made


def _context() -> list[Published]:
    """Other methods on the same page and settings, to judge the two weakest columns by."""
    voc = {"DenseCL": 69.47, "MoCo v2": 67.55, "BYOL": 67.16, "NPID": 65.45, "RotPred": 64.31, "SimCLR": 64.03}
    voc |= {"SwAV": 63.73, "RelLoc": 63.49, "DeepCluster": 59.69, "ODC": 54.76}
    coco = {"BYOL": (40.9, 36.8), "MoCo v2": (40.2, 36.1), "SwAV": (40.2, 36.3)}
    rows = []
    for method, miou in voc.items():
        rows += _row(method, "v0.5.0", "segmentation_voc12aug", "voc12aug", ("miou",), (miou,), note=_ONE_LR)
    for method, pair in coco.items():
        rows += _row(method, "v0.5.0", "detection_coco", "coco2017", ("box_ap", "mask_ap"), pair, note=_ONE_LR)
    return rows


def _official() -> list[Published]:
    rows: dict[str, tuple[float, Certainty]] = {
        "100 epochs, batch 512": (68.1, "read"),
        "100 epochs, batch 256": (68.3, "read"),
        "200 epochs, batch 256": (69.8, "said in a thread"),
    }
    where = ("README", "linear_avgpool", "imagenet", ("top1",))
    made = [_row(model, *where, (value,), source=OFFICIAL, certainty=sure) for model, (value, sure) in rows.items()]
    return [one for row in made for one in row]


_PAPER_LINEAR = {
    "Figure 2: stop-gradient": {"with": 67.7, "without": 0.1},
    "Table 1: predictor": {"baseline, lr with cosine decay": 67.7, "no predictor MLP": 0.1}
    | {"fixed random initialisation": 1.5, "lr not decayed": 68.1},
    "Table 2: batch size": {
        "64": 66.1,
        "128": 67.3,
        "256": 68.1,
        "512": 68.1,
        "1024": 68.0,
        "2048": 67.9,
        "4096": 64.0,
    },
    "Table 3: batch normalisation on the heads": {"none": 34.6, "hidden only": 67.4, "default": 68.1},
    "similarity": {"cosine": 68.1, "cross-entropy": 63.2},
    "symmetrisation": {"symmetric": 68.1, "asymmetric": 64.8, "asymmetric, two pairs an image": 67.3},
    "appendix: output dimension": {"256": 65.3, "512": 67.2, "1024": 67.5, "2048": 68.1},
    "multi-step alternation": {"1 step": 68.1, "10 steps": 68.7, "100 steps": 68.9, "1 epoch": 67.0},
    "moving average in place of the predictor": {"moving average": 55.0},
}
_PAPER_EPOCHS = {  # Table 4, ImageNet linear after 100, 200, 400, 800 epochs
    "SimCLR, batch 4096": (66.5, 68.3, 69.8, 70.4),
    "MoCo v2, batch 256": (67.4, 69.9, 71.0, 72.2),
    "BYOL, batch 4096": (66.5, 70.6, 73.2, 74.3),
    "SwAV without multi-crop, batch 4096": (66.5, 69.1, 70.7, 71.8),
    "SimSiam, batch 256": (68.1, 70.0, 70.8, 71.3),
}
_PAPER_TRANSFER = {  # Table 5: AP50, AP, AP75 on VOC07, VOC07+12, COCO boxes, COCO masks
    "scratch": (35.9, 16.8, 13.0, 60.2, 33.8, 33.1, 44.0, 26.4, 27.8, 46.9, 29.3, 30.8),
    "ImageNet supervised": (74.4, 42.4, 42.7, 81.3, 53.5, 58.8, 58.2, 38.2, 41.2, 54.7, 33.3, 35.2),
    "SimCLR": (75.9, 46.8, 50.1, 81.8, 55.5, 61.4, 57.7, 37.9, 40.9, 54.6, 33.3, 35.3),
    "MoCo v2": (77.1, 48.5, 52.5, 82.3, 57.0, 63.3, 58.8, 39.2, 42.5, 55.5, 34.3, 36.6),
    "BYOL": (77.1, 47.0, 49.9, 81.4, 55.3, 61.1, 57.8, 37.9, 40.9, 54.3, 33.2, 35.0),
    "SwAV": (75.5, 46.5, 49.6, 81.5, 55.4, 61.4, 57.6, 37.6, 40.3, 54.2, 33.1, 35.1),
    "SimSiam, base": (75.5, 47.0, 50.2, 82.0, 56.4, 62.8, 57.5, 37.9, 40.9, 54.2, 33.2, 35.2),
    "SimSiam, optimal": (77.3, 48.5, 52.5, 82.4, 57.0, 63.7, 59.3, 39.2, 42.1, 56.0, 34.4, 36.7),
}


def _paper() -> list[Published]:
    made: list[Published] = []

    def add(model: str, place: str, protocol: str, data: str, metrics: Sequence[str], values: Sequence[float]) -> None:
        made.extend(_row(model, place, protocol, data, metrics, values, source=PAPER))

    for place, cases in _PAPER_LINEAR.items():
        for case, value in cases.items():
            add(case, place, "linear_avgpool", "imagenet", ("top1",), (value,))
    for method, values in _PAPER_EPOCHS.items():
        for epochs, value in zip((100, 200, 400, 800), values, strict=True):
            add(f"{method}, {epochs} epochs", "Table 4: epochs", "linear_avgpool", "imagenet", ("top1",), (value,))
    for method, aps_of in _PAPER_TRANSFER.items():
        place, aps = "Table 5: transfer, C4", ("ap50", "ap", "ap75")
        # Detectron2, which these were measured with, takes the 11-point rule on VOC2007 at every overlap.
        eleven = ("ap50", "ap_11point", "ap75_11point")
        add(method, place, "detection_voc07", "voc07", eleven, aps_of[:3])
        add(method, place, "detection_voc0712", "voc0712", eleven, aps_of[3:6])
        coco = [f"{part}_{ap}" for part in ("box", "mask") for ap in aps]
        add(method, place, "detection_coco_c4", "coco2017", coco, aps_of[6:])
    for method, value in {"SimSiam, ResNet-18": 91.8, "SimCLR, ResNet-18": 91.1}.items():
        add(method, "appendix D: CIFAR-10", "linear_probe", "cifar10", ("top1",), (value,))
    return made


FIGURES: tuple[Published, ...] = (*_page(), *_context(), *_official(), *_paper())
