"""The paper's findings as experiments: each case changes a field or two of one base recipe (arXiv 2011.10566).

The figures are the paper's own, linear accuracy on ImageNet after 100 epochs, as `simsiam.published` has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simsiam.config import Pretraining
from simsiam.recipes.pretrain import demo, official_b512

Expected = Literal["works", "worse", "fails", "collapses", "unstable"]
Scale = Literal["small", "paper"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of a finding: what is changed, what the paper found, and what a run of it should show.

    works: at least three quarters of what the base gains over the untrained network. worse: at least a quarter. fails:
    less, without a collapse. collapses: the run's own verdict. unstable: the loss swings, or diverges.
    """

    name: str  # of the run's folder; equal names are one run
    title: str
    expected: Expected
    paper: str | None  # its figure, by its name in `simsiam.published`; None: the paper gives a word only
    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of the recipe; model.* of its network
    times: Mapping[str, float] = field(default_factory=dict)  # number fields that are multiplied
    warmup: float = 0.0  # share of the epochs over which the rate rises


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure or table of the paper."""

    name: str
    title: str
    place: str  # in the paper, as `simsiam.published` calls it
    about: str  # what was found, a sentence or two
    cases: tuple[Case, ...]


def _case(name: str, title: str, expected: Expected, paper: str | None = None, **more: Any) -> Case:
    return Case(name=name, title=title, expected=expected, paper=paper, **more)


def _base(title: str, paper: str) -> Case:
    return _case("base", title, "works", paper)


BASE = _base("the base", "lr not decayed")
DECAYED = {"predictor_lr": "cosine"}
NO_PREDICTOR = {"model.predictor": "none"}
FIXED = {"model.predictor": "fixed"}
STOP_GRADIENT = Finding(
    name="stop-gradient",
    title="Stop-gradient",
    place="Figure 2: stop-gradient",
    about="Without the stop-gradient the loss falls to its least possible value and every image gets the same output. "
    "In the paper's pair the predictor's rate decays.",
    cases=(
        _case("predictor-lr-decayed", "with", "works", "with", changes=DECAYED),
        _case(
            "stop-gradient-off",
            "without",
            "collapses",
            "without",
            changes={**DECAYED, "model.stop_gradient": "off"},
        ),
    ),
)
PREDICTOR = Finding(
    name="predictor",
    title="Predictor",
    place="Table 1: predictor",
    about="Without a predictor the outputs collapse. One at fixed random weights does not collapse, but its loss stays "
    "high and nothing is learnt. One whose rate does not decay is the best, and the base of all that follows.",
    cases=(
        _case("predictor-lr-decayed", "rate decays", "works", "baseline, lr with cosine decay", changes=DECAYED),
        _case("predictor-none", "none", "collapses", "no predictor MLP", changes=NO_PREDICTOR),
        _case("predictor-fixed", "fixed at random weights", "fails", "fixed random initialisation", changes=FIXED),
        _base("rate does not decay", "lr not decayed"),
    ),
)
BATCH_NORM = Finding(
    name="batch-norm",
    title="BatchNorm in the heads",
    place="Table 3: batch normalisation on the heads",
    about="Without any BatchNorm the outputs do not collapse, but accuracy is low; hidden layers need it most. After "
    "the predictor's output it makes the loss swing.",
    cases=(
        _case("norm-none", "none, with a warm-up", "worse", "none", changes={"model.heads_norm": "none"}, warmup=0.1),
        _case("norm-hidden", "hidden layers", "works", "hidden only", changes={"model.heads_norm": "hidden"}),
        _base("hidden layers, projector's output", "default"),
        _case("norm-all", "all, predictor's output too", "unstable", changes={"model.heads_norm": "all"}),
    ),
)
BATCH_SIZE = Finding(
    name="batch-size",
    title="Batch size",
    place="Table 2: batch size",
    about="Batches from an eighth to four times the base's do nearly alike, at a rate that follows; at eight times "
    "plain SGD does worse. At a small scale the largest have few steps to learn in.",
    cases=(
        _case("batch-0.125x", "an eighth", "works", "64", times={"batch_size": 1 / 8}),
        _case("batch-0.25x", "a quarter", "works", "128", times={"batch_size": 1 / 4}),
        _case("batch-0.5x", "half", "works", "256", times={"batch_size": 1 / 2}),
        _base("the base's", "512"),
        _case("batch-2x", "twice, with a warm-up", "works", "1024", times={"batch_size": 2}, warmup=0.1),
        _case("batch-4x", "4 times, with a warm-up", "works", "2048", times={"batch_size": 4}, warmup=0.1),
        _case("batch-8x", "8 times, with a warm-up", "works", "4096", times={"batch_size": 8}, warmup=0.1),
    ),
)
SIMILARITY = Finding(
    name="similarity",
    title="Similarity of p and z",
    place="similarity",
    about="Cross-entropy of softmaxes in place of the cosine keeps the outputs apart as well, if less accurately.",
    cases=(
        _base("cosine", "cosine"),
        _case("cross-entropy", "cross-entropy", "works", "cross-entropy", changes={"similarity": "cross-entropy"}),
    ),
)
ONE_WAY = {"symmetric": "off"}
SYMMETRY = Finding(
    name="symmetry",
    title="Symmetrised loss",
    place="symmetrisation",
    about="One direction alone does not collapse. It makes half as many predictions; the paper makes up for that by "
    "two pairs of views an image, here by twice the epochs.",
    cases=(
        _base("both directions", "symmetric"),
        _case("asymmetric", "one direction", "works", "asymmetric", changes=ONE_WAY),
        _case(
            "asymmetric-2x",
            "one, twice the pairs",
            "works",
            "asymmetric, two pairs an image",
            changes=ONE_WAY,
            times={"epochs": 2},
        ),
    ),
)
DIMENSION = Finding(
    name="dimension",
    title="Output dimension",
    place="appendix: output dimension",
    about="Wider outputs are better, up to the base's. The predictor's hidden layer is always a quarter as wide.",
    cases=(
        *(
            _case(
                f"dimension-{by:g}x",
                title,
                "works",
                dim,
                times={"model.projector_dim": by, "model.predictor_dim": by},
            )
            for dim, by, title in (("256", 1 / 8, "an eighth"), ("512", 1 / 4, "a quarter"), ("1024", 1 / 2, "half"))
        ),
        _base("the base's", "2048"),
    ),
)
ALTERNATION = Finding(
    name="alternation",
    title="Targets by older weights",
    place="multi-step alternation",
    about="SimSiam is like an alternation of targets and weights, and the targets' weights may be kept for many steps.",
    cases=(
        _base("renewed every step", "1 step"),
        _case("targets-10-steps", "every 10 steps", "works", "10 steps", changes={"targets": "10-steps"}),
        _case("targets-100-steps", "every 100 steps", "works", "100 steps", changes={"targets": "100-steps"}),
        _case("targets-epoch", "every epoch", "works", "1 epoch", changes={"targets": "epoch"}),
    ),
)
MOVING_AVERAGE = Finding(
    name="moving-average",
    title="Moving average in place of the predictor",
    place="moving average in place of the predictor",
    about="With each image's moving average as its target no predictor is needed. Without either, everything fails.",
    cases=(
        _case(
            "moving-average",
            "moving average, no predictor",
            "works",
            "moving average",
            changes={"targets": "moving-average", **NO_PREDICTOR},
        ),
        _case("predictor-none", "neither", "collapses", changes=NO_PREDICTOR),
    ),
)
FINDINGS: dict[str, Finding] = {
    finding.name: finding
    for finding in (
        STOP_GRADIENT,
        PREDICTOR,
        BATCH_NORM,
        BATCH_SIZE,
        SIMILARITY,
        SYMMETRY,
        DIMENSION,
        ALTERNATION,
        MOVING_AVERAGE,
    )
}


def small() -> Pretraining:
    """Minutes of CIFAR-10 on a CPU: a part of the set, the demo's network at half its width."""
    base = demo()
    return dataclasses.replace(
        base,
        name="reproduce-small",
        about="the paper's findings on a CPU: 4,096 images of CIFAR-10, a small ResNet at 24 px",
        data_kind="cifar10",
        train_images=4096,
        model=dataclasses.replace(base.model, width=16, projector_hidden=256, projector_dim=256, predictor_dim=64),
        views=dataclasses.replace(base.views, size=24),
        epochs=12,
        batch_size=128,
        monitor_images=1000,
        monitor_every=3,
    )


def paper() -> Pretraining:
    """The paper's ablations: ImageNet, ResNet-50, batch 512, 100 epochs, the predictor's rate not decayed."""
    return dataclasses.replace(
        official_b512(),
        name="reproduce-paper",
        about="the paper's findings as published: ImageNet, ResNet-50, batch 512, 100 epochs",
    )


BASES: dict[Scale, Callable[[], Pretraining]] = {"small": small, "paper": paper}


def recipe_of(case: Case, base: Pretraining, *, seed: int = 0) -> Pretraining:
    """The base recipe with a case's changes."""
    changes = {**case.changes, **{name: round(_value(base, name) * by) for name, by in case.times.items()}}
    inner = {name.removeprefix("model."): value for name, value in changes.items() if name.startswith("model.")}
    outer = {name: value for name, value in changes.items() if not name.startswith("model.")}
    made = dataclasses.replace(base, model=dataclasses.replace(base.model, **inner), seed=seed, **outer)
    warmup = round(case.warmup * made.epochs)
    return dataclasses.replace(made, name=f"{base.name}-{case.name}", warmup_epochs=warmup)


def _value(base: Pretraining, name: str) -> float:
    inner = name.removeprefix("model.")
    return float(getattr(base if inner == name else base.model, inner))
