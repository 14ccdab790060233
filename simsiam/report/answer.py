"""The plain answer at the top of the page: did it work, and does it beat the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from simsiam.report.collect import RunFolder

Tone = Literal["good", "warn", "bad", "wait"]

MEASURES = {"knn": "kNN accuracy", "view_recall": "view retrieval"}
TITLES = {"view retrieval": "View retrieval"}  # at the start of a sentence, where that differs


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The headline and what stands under it."""

    tone: Tone
    badge: str  # the verdict's status
    headline: str
    sentences: list[str]


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One comparison in words; a loss is said as plainly as a win."""

    outcome: Literal["better", "worse", "no clear difference"]
    text: str


def answer(run: RunFolder) -> Answer:
    """What the page says first, from the verdict and the comparisons with the random network."""
    if run.result is None:
        return _unfinished(run)
    verdict = run.detail.get("verdict") or {}
    status = str(verdict.get("status", "no verdict"))
    summary = str(verdict.get("summary", ""))
    tone, headline = _headline(status, *_against_start(run.detail.get("comparisons") or []))
    measured = [_measured(measure, rows) for measure, rows in (run.detail.get("baselines") or {}).items()]
    caveats = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in run.result.caveats]
    sentences = [sentence for sentence in [summary, *measured, *caveats, *_losses(run)] if sentence]
    return Answer(tone=tone, badge=status, headline=headline, sentences=sentences)


def compare(comparison: dict[str, Any]) -> Sentence:
    """A comparison in one sentence with its interval."""
    measure = MEASURES.get(comparison["measure"], comparison["measure"])
    low, high = signed(comparison["low"]), signed(comparison["high"])
    interval = f"95 % interval {low} to {high}"
    outcome = comparison["outcome"]
    if outcome == "no clear difference":
        text = f"no clear difference from {named(comparison['against'])}: {signed(comparison['difference'])} points"
    else:
        text = f"{abs(comparison['difference']):.1f} points {outcome} than {named(comparison['against'])}"
    return Sentence(outcome=outcome, text=f"{TITLES.get(measure, measure)}: {text} ({interval}).")


def named(baseline: str) -> str:
    """A baseline as it stands in a sentence."""
    if baseline == "random network":
        return "the same network at random start"
    kind, _, source = baseline.partition(": ")
    if source and kind == "before training":
        return f"the weights it started from ({source})"
    return source if source and kind == "compared" else baseline


def signed(value: float) -> str:
    """A difference with its sign, a true minus."""
    return f"{value:+.1f}".replace("-", "−")


BEFORE = "before training"  # what a baseline's name begins with: the weights that --init named


def _against_start(comparisons: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """What the run started from, in words, and how the trained network does beside it on each measure."""
    given = [one for one in comparisons if one["against"].startswith(BEFORE)]
    random = [one for one in comparisons if one["against"] == "random network"]
    return "the weights it started from" if given else "its own random start", [
        one["outcome"] for one in given or random
    ]


def _headline(status: str, start: str, outcomes: list[str]) -> tuple[Tone, str]:
    if status == "collapsed":
        return "bad", "It did not work: the network collapsed."
    if status == "partial collapse":
        return "warn", "It worked in part only: the representation has partly collapsed."
    if status == "worse than its start":
        return "bad", f"It did not work: the trained network is worse than {start}."
    if status == "not learning":
        return "bad", "It did not work: the network has not learnt to bring two views of one image together."
    if status in ("too early to say", "too few images to tell"):
        return "wait", f"{status.capitalize()}."
    if status != "healthy":
        return "wait", f"No verdict: {status}."
    if not outcomes:
        return "good", "It worked, as far as was measured: no sign of collapse."
    if all(outcome == "better" for outcome in outcomes):
        return "good", f"It worked: the trained network beats {start}."
    if any(outcome == "better" for outcome in outcomes):
        return "warn", f"It worked in part: the trained network beats {start} on one measure, not on all."
    return "bad", f"It did not work: no collapse, yet the trained network does not beat {start}."


def _measured(measure: str, rows: list[dict[str, Any]]) -> str:
    values = {str(row["name"]): float(row["value"]) for row in rows}
    if "trained" not in values:
        return ""
    given = [f"{value:.1f} % before training" for name, value in values.items() if name.startswith(BEFORE)]
    if "random network" in values:
        given.append(f"{values['random network']:.1f} % {'at random start' if given else 'before training'}")
    start = f" ({', '.join(given)})" if given else ""
    if measure == "knn":
        return f"It names the label of {values['trained']:.1f} % of held-out images by their nearest neighbours{start}."
    if measure == "view_recall":
        return f"It finds the other view of the same image for {values['trained']:.1f} % of held-out images{start}."
    return f"{measure}: {values['trained']:.1f}{start}."


def _losses(run: RunFolder) -> list[str]:
    """What training did not beat, apart from the random network, which the headline speaks of."""
    return [
        f"It does not beat {named(one['against'])} in {MEASURES.get(one['measure'], one['measure'])} "
        f"({signed(one['difference'])} points)."
        for one in run.detail.get("comparisons") or []
        if one["outcome"] != "better"
    ]


def _unfinished(run: RunFolder) -> Answer:
    last = run.monitor[-1] if run.monitor else None
    status = str(last.get("status", "")) if last else ""
    epochs = (run.recipe or {}).get("epochs")
    row = max(run.steps + run.monitor, key=lambda one: float(one.get("epoch", 0)), default=None)
    reached = f"It has reached epoch {float(row['epoch']):.3g}" if row else "It has written no step yet"
    sentences = [
        f"{reached}{f' of {epochs}' if epochs else ''}. It is still running, or it was interrupted: "
        f"then `{run.go_on}` resumes it.",
        "The baselines, the neighbours and the map are added when the run ends.",
    ]
    if status:
        sentences.insert(1, f"At the last check the monitor said: {status}.")
    if status == "collapsed":
        return Answer(tone="bad", badge=status, headline="The run collapsed before it finished.", sentences=sentences)
    return Answer(tone="wait", badge="not finished", headline="This run has not finished.", sentences=sentences)
