"""What the recipes for a CPU reach on boxes and masks of your own, from a SimSiam backbone and from random weights.

    python benchmarks/cpu_recipes.py runs/demo --boxes EXPORT --masks DIR --out runs/cpu-recipes

EXPORT and DIR are what `detection-folder --data` and `segmentation-folder --data` take. Each task is trained from the
backbone and from the same network untrained, on the same split, and the table has AP or mIoU beside the minutes. The
recipes' lengths are halved by `--share 0.5`; the same command resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from simsiam import evaluate, protocols
from simsiam.config import Machine
from simsiam.pretraining.pace import processor
from simsiam.recipes.scaled import Wanted
from simsiam.weights.pretrained import open_subject


def recipe_of(name: str, weights: str, data: Any, share: float) -> Any:
    """The protocol's recipe for a CPU on these data, as long as asked."""
    subject, found = open_subject(weights, seed=0), protocols.find(name)
    usual: Any = found.recipe(None, Wanted(trained=subject.size, device="cpu"), data)
    if name == "detection-folder":
        usual = usual if share == 1 else usual.for_iterations(max(1, int(usual.length * share)))
        return usual.fitted(usual, subject, data)
    course = usual.segmentation.course
    steps = max(1, int(course.interval * share))
    course = replace(course, iterations=steps * (course.iterations // course.interval), evaluate_every=steps)
    return replace(usual, segmentation=replace(usual.segmentation, course=course))


def main() -> None:
    """Train each task from both starts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a run folder or weights file")
    parser.add_argument("--boxes", help="an export with boxes")
    parser.add_argument("--masks", help="a folder of images and masks")
    parser.add_argument("--share", type=float, default=1.0, help="of the recipes' lengths")
    parser.add_argument("--out", type=Path, default=Path("runs/cpu-recipes"))
    options = parser.parse_args()
    tasks = {"detection-folder": options.boxes, "segmentation-folder": options.masks}
    rows = []
    for name, place in tasks.items():
        if place is None:
            continue
        data = protocols.find(name).data.filled(name, {"data": place}).open(None)
        recipe = recipe_of(name, options.weights, data, options.share)
        for start in (options.weights, f"random:{options.weights}"):
            began = time.monotonic()
            out = options.out / name / ("random" if start.startswith("random:") else "pretrained")
            result = evaluate(name, start, recipe=recipe, machine=Machine(device="cpu", out=out), data=place)
            minutes = (time.monotonic() - began) / 60
            metrics = {
                key: result.metrics[key] for key in ("ap50", "box_ap", "mask_ap", "miou") if key in result.metrics
            }
            shown = ", ".join(f"{key} {value:.1f}" for key, value in metrics.items())
            rows.append(f"| {name} | {recipe.name} | {start} | {shown} | {minutes:.1f} |")
    print(f"\n{processor()}\n")
    print("| task | recipe | start | % on held-out images | minutes |\n|---|---|---|---|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
