"""What an evaluation prints when it is done: the figure and what to compare it with, then the tables."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simsiam.errors import UserError
from simsiam.evaluation.intervals import Interval, wilson_interval
from simsiam.report.collect import RESULT_FILE
from simsiam.results import Result
from simsiam.wording import counted

NAMES = {"best": "mAP of the best map", "miou": "mIoU", "nmi": "NMI", "ap50": "AP50", "box_ap": "AP of boxes"}
NO_PERCENT = ("nmi",)
RANDOM = "random"
UNTRAINED = "an untrained network"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One result: where it lies, and whether it was there before."""

    place: Path
    result: Result
    read: bool  # from an earlier measurement, of the same settings, weights, data and seed


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """The figures with what they should be compared with, the tables, and where the rest is."""
    for outcome in outcomes:
        print("\n".join(answer(outcome)))
    print()
    print_table([outcome.place for outcome in outcomes])


def answer(outcome: Outcome) -> list[str]:
    """The figure with its interval and images; then chance, an untrained network and the last result on these data."""
    result = outcome.result
    when = f"read from the result of {_day(result)}; --again measures it again" if outcome.read else "measured now"
    interval = interval_of(result)
    said = [
        f"95 % interval {interval.low:.1f} to {interval.high:.1f}" if interval is not None else "",
        f"{counted(images, 'test image')}" if (images := _test_images(result)) else "",
    ]
    aside = f" ({', '.join(each for each in said if each)})" if any(said) else ""
    lines = [f"{result.weights.source} on {result.data.name}: {metric_name(result)} {_figure(result)}{aside}, {when}"]
    if (chance := chance_of(result)) is not None:
        lines.append(f"  always naming the commonest class: {chance:.1f} %")
    known = others(outcome.place, result)
    if not result.weights.source.startswith(RANDOM) and not any(what == UNTRAINED for what, _ in known):
        lines.append(f"  {UNTRAINED}: not measured on these data; add --from random:{result.weights.source}")
    return [*lines, *(f"  {what}: {_figure(other)} ({_of(other)})" for what, other in known)]


def metric_name(result: Result) -> str:
    """The main metric as a person says it."""
    name = result.main_metric
    if (found := re.fullmatch(r"top1_k(\d+)", name)) is not None:
        return f"top-1 accuracy at k {found[1]}"
    if (found := re.fullmatch(r"recall_at_(\d+)", name)) is not None:
        return f"recall at {found[1]}"
    if (found := re.fullmatch(r"feature(\d)", name)) is not None:
        return f"top-1 accuracy on Feature{found[1]}"
    if result.protocol == "low_shot_voc07":
        return f"mAP from {name.removeprefix('k')} images a class"
    return "top-1 accuracy" if name == "top1" else NAMES.get(name, name.replace("_", " "))


def interval_of(result: Result) -> Interval | None:
    """The 95 % interval of the main metric, percent: the result's own, or Wilson's where it is a share of images."""
    low, high = (result.metrics.get(f"{result.main_metric}_{end}") for end in ("low", "high"))
    if low is not None and high is not None:
        return Interval(low=low, high=high)
    images = _test_images(result)
    if not images or not re.match(r"top1|recall_at_|feature\d", result.main_metric):
        return None
    found = wilson_interval(round(result.metrics[result.main_metric] * images / 100), images)
    return Interval(low=100 * found.low, high=100 * found.high)


def chance_of(result: Result) -> float | None:
    """What always naming the commonest class of the test images would score, percent."""
    if (known := result.metrics.get("commonest_class")) is not None:
        return known
    if not (rows := result.detail.get("confusion")) or not result.main_metric.startswith(("top1", "feature")):
        return None
    counts = [sum(row) for row in rows]
    return float(100 * max(counts) / max(1, sum(counts)))


def others(place: Path, result: Result) -> list[tuple[str, Result]]:
    """The newest results of the same protocol on the same data: of an untrained network, and of other weights.

    Looked for beside the result and in `runs`.
    """
    files = {*place.parent.glob(f"*/{RESULT_FILE}"), *Path("runs").glob(f"*/{RESULT_FILE}")}
    files |= {*Path("runs").glob(f"*/evaluations/*/{RESULT_FILE}")}
    found = []
    for file in files:
        try:
            other = Result.read(file)
        except (UserError, OSError):
            continue
        same = (other.protocol, other.main_metric, other.data.sha256)
        if same == (result.protocol, result.main_metric, result.data.sha256) and other.weights != result.weights:
            found.append(other)
    found.sort(key=lambda other: other.created)
    untrained = [other for other in found if other.weights.source.startswith(RANDOM)]
    trained = [other for other in found if not other.weights.source.startswith(RANDOM)]
    return [
        *((UNTRAINED, other) for other in untrained[-1:]),
        *(("the last result on these data", other) for other in trained[-1:]),
    ]


def _test_images(result: Result) -> int | None:
    """How many images the figure is over, where the result says it."""
    detail = result.detail
    return (
        detail.get("test_images")
        or detail.get("queries")
        or (detail.get("images") if result.protocol in ("few_labels", "clustering") else None)
    )


def _figure(result: Result) -> str:
    value = result.metrics[result.main_metric]
    return f"{value:.3f}" if result.main_metric in NO_PERCENT else f"{value:.2f} %"


def _of(result: Result) -> str:
    return f"{result.weights.source}, {result.recipe.get('name', result.protocol)}, {_day(result)}"


def _day(result: Result) -> str:
    return result.created[:10]


def print_table(places: Sequence[Path]) -> None:
    """The tables of the results, what was noted on each, and a page for each that has more to show."""
    from simsiam.report.evaluation_page import has_page
    from simsiam.report.formats import markdown_text, report

    tables = report(places, which="fitting")
    print(tables)
    notes = [note for place in places for note in Result.read(place / RESULT_FILE).notes]
    for note in dict.fromkeys(notes):
        if markdown_text(note) not in tables:  # a caveat stands there already
            print(f"note: {note}")
    for place in places:
        print(f"result: {place / RESULT_FILE}")
        segments = Result.read(place / RESULT_FILE).protocol.startswith("segmentation")
        if segments or any((place / f"{model}.safetensors").exists() for model in ("classifier", "detector")):
            print(f"on photos: simsiam predict {place} PHOTOS")
        if has_page(place) and (page := _page(place)).exists():
            print(f"report: {page}")


def _page(place: Path) -> Path:
    """An evaluation's page, written anew; on a place that only reads, the one that is there."""
    from simsiam.report.evaluation_page import PAGE_FILE, write_evaluation_page

    try:
        return write_evaluation_page(place)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return place / PAGE_FILE
