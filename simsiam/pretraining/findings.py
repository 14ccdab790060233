"""The paper's findings judged on runs: which runs there are, what each showed, and the page of them all."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simsiam import published
from simsiam.config import Machine, Pretraining
from simsiam.engine import distributed
from simsiam.pretraining import estimate
from simsiam.pretraining.inputs import open_inputs
from simsiam.recipes.reproduce import BASE, Case, Expected, Finding, recipe_of
from simsiam.report import html
from simsiam.report.curves import Chart, Point, Series, draw, thin
from simsiam.results import Result, now, read_metrics, write_atomic, write_json

# The limits were set before the first table was run.
WORKS, WORSE = 0.75, 0.25  # shares of what the base gains over the untrained network
NOTICEABLE = 2.0  # points of kNN accuracy; a base that gains less has learnt nothing to compare with
SWINGS = 3.0  # times the base's mean change of the loss from one logged row to the next, in the second half
LINEAR = Path("evaluations/linear-avgpool")  # below a run's folder
FILES = ["findings.json", "report.html"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a case with a seed."""

    case: Case
    recipe: Pretraining
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "result.json").exists()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a finished run showed."""

    status: str  # of its verdict
    diverged: bool
    knn: float | None  # percent; None where the weights are no longer finite
    untrained: float | None  # percent, of the same network before the first step
    spread: float
    loss: float  # of the last logged steps
    swing: float  # mean absolute change of the loss between logged rows of the second half
    linear: float | None  # percent, where the linear protocol was run

    @property
    def gain(self) -> float:
        """Points of kNN accuracy over the untrained network; 0 where they are not known."""
        return 0.0 if self.knn is None or self.untrained is None else self.knn - self.untrained


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of a finding over its seeds; means, and deviations where there are two seeds or more."""

    name: str
    title: str
    paper: str
    expected: Expected
    found: Expected
    seeds: int
    knn: float | None
    deviation: float | None
    linear: float | None
    untrained: float | None
    spread: float
    loss: float
    swing: float

    @property
    def passed(self) -> bool:
        """Whether the runs showed what the paper found."""
        return self.found == self.expected


def runs_of(findings: Iterable[Finding], base: Pretraining, *, seeds: int, out: Path) -> list[Run]:
    """Every run once and the base always; seed by seed, so that an interruption leaves whole tables of fewer seeds."""
    cases = {case.name: case for finding in findings for case in (BASE, *finding.cases)}
    return [
        Run(case=case, recipe=recipe_of(case, base, seed=seed), folder=out / f"{case.name}-seed{seed}")
        for seed in range(seeds)
        for case in cases.values()
    ]


def seconds_of(runs: Sequence[Run], *, data: str | None, machine: Machine) -> float:
    """What the runs take in all, by the pace of a few steps of the first; checks and evaluations are not counted."""
    recipe = runs[0].recipe
    with distributed.processes(machine.device) as process:
        inputs = open_inputs(recipe, data=data, labels=None, machine=machine)
        found = estimate.of_recipe(recipe, inputs, machine, process)
    # an older network's targets are one more pass forward, a third of a step
    epochs = sum(run.recipe.epochs * (1 if run.recipe.targets == "step" else 4 / 3) for run in runs)
    return found.seconds / recipe.epochs * epochs


def measured(folder: Path) -> Measured:
    """What a finished run's folder says."""
    result = Result.read(folder / "result.json")
    losses = [float(row["loss"]) for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "step"]
    late = losses[len(losses) // 2 :]
    knn = {row["name"]: float(row["value"]) for row in result.detail["baselines"].get("knn", [])}
    linear = folder / LINEAR / "result.json"
    return Measured(
        status=result.detail["verdict"]["status"],
        diverged="diverged" in result.detail["verdict"]["summary"],
        knn=knn.get("trained"),
        untrained=knn.get("random network"),
        spread=result.metrics["spread"],
        loss=losses[-1] if losses else float("nan"),
        swing=_mean([abs(b - a) for a, b in itertools.pairwise(late)]) or 0.0,
        linear=Result.read(linear).metrics["top1"] if linear.exists() else None,
    )


def outcome(runs: Sequence[Measured], base: Sequence[Measured]) -> Expected:
    """What a case showed, over its seeds, beside the base's runs; `Case` says what the words mean."""
    half = len(runs) / 2
    if sum(run.diverged for run in runs) > half:
        return "unstable"
    if sum(run.status in ("collapsed", "partial collapse") for run in runs) > half:
        return "collapses"
    if statistics.mean(run.swing for run in runs) > SWINGS * statistics.mean(run.swing for run in base):
        return "unstable"
    gain, whole = statistics.mean(run.gain for run in runs), statistics.mean(run.gain for run in base)
    if whole < NOTICEABLE or gain < WORSE * whole:
        return "fails"
    return "works" if gain >= WORKS * whole else "worse"


def rows_of(finding: Finding, runs: Sequence[Run]) -> list[Row]:
    """A row for each case of a finding that has finished runs, once the base has some."""
    done = {name: [measured(run.folder) for run in _of(name, runs)] for name in (BASE.name, *_names(finding))}
    if not done[BASE.name]:
        return []
    return [_row(case, finding, done[case.name], done[BASE.name]) for case in finding.cases if done[case.name]]


def _row(case: Case, finding: Finding, shown: Sequence[Measured], base: Sequence[Measured]) -> Row:
    knn = [run.knn for run in shown if run.knn is not None]
    return Row(
        name=case.name,
        title=case.title,
        paper=paper_figure(case, finding),
        expected=case.expected,
        found=outcome(shown, base),
        seeds=len(shown),
        knn=_mean(knn),
        deviation=statistics.stdev(knn) if len(knn) > 1 else None,
        linear=_mean([run.linear for run in shown if run.linear is not None]),
        untrained=_mean([run.untrained for run in shown if run.untrained is not None]),
        spread=statistics.mean(run.spread for run in shown),
        loss=statistics.mean(run.loss for run in shown),
        swing=statistics.mean(run.swing for run in shown),
    )


def paper_figure(case: Case, finding: Finding) -> str:
    """The paper's linear accuracy in percent, or the word it has in its place."""
    if case.paper is None:
        return "unstable" if case.expected == "unstable" else "fails"
    (found,) = published.figures(model=case.paper, version=finding.place, source=published.PAPER)
    return f"{found.value:.1f}"


def write_report(findings: Sequence[Finding], runs: Sequence[Run], *, out: Path, about: str) -> dict[str, list[Row]]:
    """Write `findings.json` and `report.html` of what is finished so far; returns the rows by finding."""
    tables = {finding.name: rows_of(finding, runs) for finding in findings}
    facts = {name: [{**dataclasses.asdict(row), "passed": row.passed} for row in rows] for name, rows in tables.items()}
    page = html.template("findings.html").render(
        about=about,
        parts=[
            {
                "finding": finding,
                "rows": tables[finding.name],
                "charts": [{"chart": chart, "svg": draw(chart)} for chart in charts_of(finding, runs)],
            }
            for finding in findings
            if tables[finding.name]
        ],
        linear=any(row.linear is not None for rows in tables.values() for row in rows),
        untrained=_mean([row.untrained for rows in tables.values() for row in rows if row.untrained is not None]),
        meanings=MEANINGS,
        written=now(),
        style=html.style(),
        script=html.script(),
    )
    write_json(out / "findings.json", facts)
    write_atomic(out / "report.html", page)
    return tables


MEANINGS: dict[Expected, str] = {
    "works": f"gains at least {WORKS:.0%} of what the base gains over the untrained network",
    "worse": f"gains {WORSE:.0%} to {WORKS:.0%} of that",
    "fails": f"gains less, without a collapse; so does everything while the base gains under {NOTICEABLE:g} points",
    "collapses": "most seeds end as collapsed or partly collapsed by the run's own verdict",
    "unstable": f"the loss diverges, or changes from row to row {SWINGS:g} times as much as the base's",
}


def charts_of(finding: Finding, runs: Sequence[Run]) -> list[Chart]:
    """kNN accuracy, loss and spread of a finding's cases, the mean over seeds with the extremes as a band."""
    titles = {case.name: case.title for case in finding.cases}
    rows = {name: [read_metrics(run.folder / "metrics.jsonl") for run in _of(name, runs)] for name in titles}

    def chart(key: str, kind: str, title: str, unit: str, about: str, *, zero: bool = False) -> Chart:
        series = [
            _over_seeds([thin((row for row in log if row["kind"] == kind), key, titles[name]) for log in logs])
            for name, logs in rows.items()
            if logs
        ]
        return Chart(key=f"{finding.name}-{key}", title=title, unit=unit, about=about, series=series, zero=zero)

    return [
        chart("knn", "monitor", "kNN accuracy", "%", "Of held-out images; the training saw no labels."),
        chart("loss", "step", "Loss", "loss", "The least a cosine loss can be is −1; a collapse reaches it."),
        chart("spread", "step", "Spread of z", "std × √d", "1 fills the sphere; 0 is one point.", zero=True),
    ]


def _over_seeds(each: Sequence[Series]) -> Series:
    """The mean of curves with the same positions; the shortest says how many."""
    points = [
        Point(
            x=column[0].x,
            y=statistics.mean(point.y for point in column),
            low=min(point.low for point in column),
            high=max(point.high for point in column),
        )
        for column in zip(*(one.points for one in each), strict=False)
    ]
    first = next((one.first_not_finite for one in each if one.first_not_finite is not None), None)
    return Series(
        name=each[0].name, points=points, not_finite=sum(one.not_finite for one in each), first_not_finite=first
    )


def _of(name: str, runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.case.name == name and run.finished]


def _names(finding: Finding) -> list[str]:
    return [case.name for case in finding.cases]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None
