"""How good is the verdict? Its rates on the corpus of `verdict_corpus.py`, judged by the code as it stands now.

    python benchmarks/verdict_table.py corpus.jsonl --half fit|report [--runs]

Thresholds are set on the half `fit`; the half `report` is for the rates that are quoted. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verdict_corpus import Case

from simsiam.evaluation.intervals import wilson_interval
from simsiam.pretraining.verdict import Check, Verdict, judge

ALARMS = ("collapsed", "partial collapse", "worse than its start", "not learning")
SEVERE = ("collapsed", "partial collapse")
CAUSES = {  # a word of the cause that belongs to each fault
    "no stop-gradient": "stop-gradient",
    "no predictor": "no predictor",
    "no BatchNorm in the heads": "BatchNorm in",
    "no stop-gradient, no BatchNorm in the heads": "stop-gradient",
    "weight decay": "weight decay",
    "rate": "rate",
    "rate for good weights": "rate",
    "batch 4": "batch 4",
    "small network": "small",
    "augmentation off": "views",
    "crop only": "views",
    "constant images": "blank",
    "duplicated images": "blank",
    "noise images": "blank",
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A run with the verdict after each of its checks."""

    row: dict[str, Any]
    verdicts: list[Verdict]
    shares: list[float]  # of the training that was done at each verdict

    @property
    def fault(self) -> str | None:
        """What was done to make it fail."""
        found: str | None = self.row["case"]["fault"]
        return found

    @property
    def label(self) -> str:
        """What it is from outside."""
        return str(self.row["outside"]["label"])

    @property
    def last(self) -> Verdict:
        """The verdict at its end."""
        return self.verdicts[-1]

    def first(self, statuses: tuple[str, ...]) -> float | None:
        """The share of training after which one of these was said first."""
        return next((s for v, s in zip(self.verdicts, self.shares, strict=True) if v.status in statuses), None)


def judged(row: dict[str, Any]) -> Judged:
    """Each check judged with those before it, as in a run."""
    recipe, checks = Case(**row["case"]).settings(), [Check(**check) for check in row["checks"]]
    start = "the weights it started from" if row["case"]["init"] else "the untrained network"
    said, shares = [], []
    for upto in range(2, len(checks) + 1):
        said.append(judge(checks[:upto], recipe, images=row["images"], start=start))
        shares.append(checks[upto - 1].step / row["steps"])
    if row["diverged"] is not None:
        said.append(judge(checks, recipe, diverged=row["diverged"]["why"], images=row["images"], start=start))
        shares.append(row["diverged"]["step"] / row["steps"])
    return Judged(row=row, verdicts=said, shares=shares)


def rate(hits: int, total: int) -> str:
    """hits of total in percent, with its interval."""
    if not total:
        return "none"
    found = wilson_interval(hits, total)
    return f"{hits} of {total}: {100 * hits / total:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def table(runs: list[Judged]) -> str:
    """The rates, as Markdown."""
    sound = [run for run in runs if run.label == "sound" and run.fault is None]
    unhurt = [run for run in runs if run.label == "sound" and run.fault is not None]
    full = [run for run in runs if run.label == "collapsed"]
    partial = [run for run in runs if run.label == "partial"]
    idle = [run for run in runs if run.label == "idle"]
    named = [run for run in runs if run.fault and run.label != "sound" and run.last.status in ALARMS]
    right = [run for run in named if CAUSES[run.fault or ""] in run.last.causes[0].cause]
    among = [run for run in named if any(CAUSES[run.fault or ""] in cause.cause for cause in run.last.causes[:3])]

    def said(group: list[Judged], statuses: tuple[str, ...], by: float = 1.0) -> str:
        return rate(sum((first := run.first(statuses)) is not None and first <= by for run in group), len(group))

    def ends(group: list[Judged], statuses: tuple[str, ...]) -> str:
        return rate(sum(run.last.status in statuses for run in group), len(group))

    lines = [
        ("sound runs, not made to fail: stopped (collapsed at any check)", said(sound, ("collapsed",))),
        ("... with an alarm at their end", ends(sound, ALARMS)),
        ("... with an alarm at any check", said(sound, ALARMS)),
        ("runs made to fail whose probe rose all the same: stopped", said(unhurt, ("collapsed",))),
        ("... with an alarm at their end", ends(unhurt, ALARMS)),
        ("full collapses found", said(full, SEVERE)),
        ("... within the first 20 % of training", said(full, SEVERE, 0.205)),
        ("... and called collapsed at their end", ends(full, ("collapsed",))),
        ("runs worse than their start with an alarm at their end", ends(partial, ALARMS)),
        ("runs made to fail, neither better nor worse, with an alarm", ends(idle, ALARMS)),
        ("cause named rightly in the first place, where there was an alarm", rate(len(right), len(named))),
        ("cause among the first three", rate(len(among), len(named))),
    ]
    return "\n".join(["| what | runs, % (95 % interval) |", "|---|---|", *(f"| {a} | {b} |" for a, b in lines)])


def line(run: Judged) -> str:
    """A run in a row: what it is, what was said, when."""
    outside = run.row["outside"]
    early = {status: first for status in ALARMS if (first := run.first((status,))) is not None}
    when = ", ".join(f"{status} at {share:.0%}" for status, share in sorted(early.items(), key=lambda item: item[1]))
    cause = run.last.causes[0].cause[:60] if run.last.causes else ""
    probe = f"{outside['probe_start']:.1f} to {outside['probe_end']:.1f}"
    return f"| {run.row['name']} | {outside['label']} ({probe}) | {run.last.status} | {when} | {cause} |"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="what verdict_corpus.py wrote")
    parser.add_argument("--half", choices=("fit", "report"), required=True)
    parser.add_argument("--runs", action="store_true", help="a row for every run, too")
    given = parser.parse_args()
    rows = [json.loads(text) for text in given.corpus.read_text().splitlines()]
    runs = [judged(row) for row in rows if row["half"] == given.half]
    print(table(runs))
    if given.runs:
        print(
            "\n| run | from outside (probe, start to end) | at its end | first said | first cause |\n"
            + 5 * "|---"
            + "|"
        )
        print("\n".join(line(run) for run in sorted(runs, key=lambda run: (run.label, run.row["name"]))))


if __name__ == "__main__":
    main()
