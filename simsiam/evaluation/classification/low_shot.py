"""Low-shot SVMs: k positive images a class, five samples of them, and the spread over the samples.

Source: Goyal et al. 2019, section 4 (low-shot image classification on VOC07). The published scripts draw the samples
without a seed and quote, for each k, the cost that is best on the test set; `selection` says which rule a number
follows.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from simsiam.config import Machine
from simsiam.data.splits import ABSENT, DIFFICULT, PRESENT
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import SvmFeatures
from simsiam.evaluation.intervals import area_average_precision
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count, Positive
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, plural

if TYPE_CHECKING:
    import numpy as np

    from simsiam.data.classification.voc import MultiLabelSplits
    from simsiam.evaluation.classification.svm_kernel import Kernel

Sampling = Literal["seeded", "unseeded", "files"]

LEFT_OUT = -1  # of a sample's targets: the image does not train this class
# test: the best mean mAP on the test set, as published. unused: the best mean mAP on the training images that the
# sample left out; no test image is seen, but more labels than k are.
Selection = Literal["test", "unused"]
SELECTION_WORDS = {"test": "test", "unused": "unused training images"}
SELECTION_NOTES = {
    "test": "the cost of each k was chosen on the test set, as in the published scripts: an optimistic figure",
    "unused": "the cost of each k was chosen on the training images that the samples left out; their labels were used "
    "for that choice alone, and no test image was",
}


@dataclass(frozen=True, kw_only=True)
class LowShot(Protocol["MultiLabelSplits"]):
    """One against rest on a few images of one layer."""

    protocol: ClassVar[str] = "low_shot_voc07"
    everyday: ClassVar[tuple[str, ...]] = ("k", "samples", "selection")
    features: SvmFeatures
    layer: str  # The map that is used: feature1 to feature5, or pooled.
    k: tuple[Count, ...]  # Positive images a class; (classes - 1) times as many negatives are drawn.
    samples: Count  # How many samples are drawn for each k.
    sampling: Sampling  # How samples are drawn: by the seed, without one as published, or read from --sample-files.
    sample_files: Path | None  # Folder of train_targets_sample1_k1.npy and so on, for --sampling files.
    selection: Selection  # What a cost is chosen on: the test set, as published, or the training images left unused.
    costs: tuple[Positive, ...]  # Costs C of the SVM to choose from.
    positive_weight: Positive  # How much a positive image weighs against a negative one.

    @property
    def main_metric(self) -> str:
        """The mean mAP at the largest k."""
        return f"k{max(self.k)}"

    def fitted(self, recipe: Self, subject: PretrainedBackbone, data: MultiLabelSplits) -> Self:
        """On the backbone's last map."""
        if self.features.layers != "stages" or self.layer != recipe.layer:
            return self
        return replace(self, layer=f"feature{len(subject.backbone.stage_channels)}")

    def score(self, subject: PretrainedBackbone, data: MultiLabelSplits, *, machine: Machine) -> Measured:
        """kK for every K: the mean over the samples of the mAP, percent; their spread is in the detail."""
        import numpy as np

        from simsiam.evaluation.classification.svm_kernel import kernel_of

        train = self.features.extract(subject, data.train, machine)
        test = self.features.extract(subject, data.test, machine)
        if self.layer not in train.arrays:
            raise UserError(f"{self.name}: no layer {self.layer!r}; this backbone gives {', '.join(train.arrays)}.")
        ground = _Ground(
            kernel=kernel_of(train.arrays[self.layer], machine.device),
            all_targets=data.train.targets,
            readable=train.indices,
            test=test.arrays[self.layer],
            test_targets=data.test.targets[test.indices],
            classes=data.train.classes,
        )
        left_out = [*train.skipped(data.train.source), *test.skipped(data.test.source)]
        shots = {k: self._shot(ground, k, subject.seed) for k in self.k}
        return Measured(
            metrics={f"k{k}": float(np.mean(shot.maps)) for k, shot in shots.items()},
            detail={
                "cost_selection": SELECTION_WORDS[self.selection],
                "sampling": self.sampling,
                "samples": self.samples,
                "layer": self.layer,
                **{
                    name: {f"k{k}": float(function(shot.maps)) for k, shot in shots.items()}
                    for name, function in (("std", np.std), ("min", np.min), ("max", np.max))
                },
                "cost": {f"k{k}": shot.cost for k, shot in shots.items()},
                "by_sample": {f"k{k}": shot.maps for k, shot in shots.items()},
            },
            notes=[*train.notes, *left_out, SELECTION_NOTES[self.selection]],
        )

    def _shot(self, ground: _Ground, k: int, seed: int) -> _Shot:
        import numpy as np

        by_sample = [
            _sample_maps(
                ground,
                self._sample(ground, k, number, seed),
                costs=self.costs,
                positive_weight=self.positive_weight,
                selection=self.selection,
            )
            for number in range(1, self.samples + 1)
        ]
        best = int(np.mean([maps.judged for maps in by_sample], 0).argmax())  # one cost for all samples
        return _Shot(maps=[float(maps.test[best]) for maps in by_sample], cost=self.costs[best])

    def _sample(self, ground: _Ground, k: int, number: int, seed: int) -> np.ndarray:
        """One sample's targets of the readable training images."""
        if self.sampling != "files":
            generator = generator_of(self.sampling, seed=seed, k=k, number=number)
            return sample_targets(ground.targets, k=k, generator=generator, classes=ground.classes)
        if self.sample_files is None:
            raise UserError(f"{self.name}: sampling is 'files' but no folder of sample files is given.")
        sample = read_sample(self.sample_files, ground.all_targets, k=k, number=number, classes=ground.classes)
        chosen: np.ndarray = sample[ground.readable]
        return chosen


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What every sample is drawn from and scored on."""

    kernel: Kernel  # of the readable training images
    all_targets: np.ndarray  # of all training images, N x C
    readable: np.ndarray  # rows of them
    test: np.ndarray  # m x d
    test_targets: np.ndarray  # m x C
    classes: tuple[str, ...]

    @property
    def targets(self) -> np.ndarray:
        """Of the readable training images, n x C."""
        chosen: np.ndarray = self.all_targets[self.readable]
        return chosen


@dataclass(frozen=True, kw_only=True)
class _Shot:
    maps: list[float]  # of each sample at the chosen cost, percent
    cost: float


@dataclass(frozen=True, kw_only=True)
class _Maps:
    test: np.ndarray  # mAP for each cost, percent
    judged: np.ndarray  # the mAP that the cost is chosen by


def _sample_maps(
    ground: _Ground, sample: np.ndarray, *, costs: tuple[float, ...], positive_weight: float, selection: Selection
) -> _Maps:
    """Train each class on its own few rows at every cost, and score."""
    import numpy as np

    from simsiam.evaluation.classification.svm_kernel import decide

    shape = (ground.test_targets.shape[1], len(costs))
    weights = class_weights(ground.kernel, sample, costs=costs, positive_weight=positive_weight)
    columns = weights.reshape(len(weights), -1)  # (d + 1) x (C costs)
    scores = decide(ground.test, columns).reshape(-1, *shape)
    scored = _mean_precisions(scores, ground.test_targets, np.ones(ground.test_targets.shape, bool))
    if selection == "test":
        return _Maps(test=scored, judged=scored)
    seen = ground.kernel.decisions(columns).reshape(-1, *shape)
    return _Maps(test=scored, judged=_mean_precisions(seen, ground.targets, sample == LEFT_OUT))


def class_weights(
    kernel: Kernel, sample: np.ndarray, *, costs: tuple[float, ...], positive_weight: float
) -> np.ndarray:
    """The SVM of each class and cost, trained on the rows that the sample gives the class; (d + 1) x C x costs."""
    import numpy as np
    import torch

    from simsiam.engine.distributed import core_threads
    from simsiam.evaluation.classification.svm_solver import solve_path

    ascending = sorted(costs)
    order = [ascending.index(cost) for cost in costs]

    def solve_class(column: int) -> np.ndarray:
        rows = torch.from_numpy(np.flatnonzero(sample[:, column] != LEFT_OUT)).to(kernel.device)
        part = kernel.among(rows)
        marks = torch.from_numpy(sample[:, column]).to(kernel.device)[rows][:, None]
        y = torch.where(marks == PRESENT, 1.0, -1.0)
        c = torch.where(y > 0, positive_weight, 1.0)
        path = [solution.combinations for solution in solve_path(part, y, c, ascending)]
        weights: np.ndarray = part.weights(torch.cat(path, 1)[:, order]).cpu().numpy()  # (d + 1) x costs
        return weights

    with core_threads(kernel.device, most=sample.shape[1]) as threads:
        return np.stack(threads.map(solve_class, range(sample.shape[1])), 1)


def _mean_precisions(values: np.ndarray, targets: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Mean over classes of the area AP at each cost, percent; N x C x costs -> costs.

    A class whose judged images are all of one kind is left out of the mean.
    """
    import numpy as np

    rows = []
    for column in range(targets.shape[1]):
        chosen = judged[:, column] & (targets[:, column] != DIFFICULT)
        positive = targets[chosen, column] == PRESENT
        if positive.any() and not positive.all():
            rows.append([area_average_precision(scores, positive) for scores in values[chosen, column].T])
    if not rows:
        raise UserError(
            "no class has positive and negative images left to judge the costs by; choose them on the test."
        )
    mean: np.ndarray = 100 * np.mean(rows, 0)
    return mean


def sample_targets(
    targets: np.ndarray, *, k: int, generator: np.random.Generator, classes: tuple[str, ...]
) -> np.ndarray:
    """One sample of the targets (N x C): for each class, k positives and (C - 1) k negatives, all else LEFT_OUT.

    A DIFFICULT image is never drawn. Raises UserError if a class has too few images of either kind.
    """
    import numpy as np

    sample = np.full(targets.shape, LEFT_OUT, np.int8)
    for column, name in enumerate(classes):
        for mark, count in ((PRESENT, k), (ABSENT, (len(classes) - 1) * k)):
            rows = np.flatnonzero(targets[:, column] == mark)
            if len(rows) < count:
                kind = "positive" if mark == PRESENT else "negative"
                raise UserError(
                    f"low-shot, k = {k}: class {name} has {counted(len(rows), f'{kind} training image')} and {count} "
                    f"{plural(count, 'is', 'are')} to be drawn. Leave this k out of the list."
                )
            sample[generator.choice(rows, count, replace=False), column] = mark
    return sample


def generator_of(sampling: Sampling, *, seed: int, k: int, number: int) -> np.random.Generator:
    """The generator of sample `number`; without a seed no two runs draw alike, as in the published scripts."""
    import numpy as np

    return np.random.default_rng([seed, k, number] if sampling == "seeded" else secrets.randbits(128))


def read_sample(folder: Path, targets: np.ndarray, *, k: int, number: int, classes: tuple[str, ...]) -> np.ndarray:
    """Sample `number` (from 1) from `train_targets_sample{number}_k{k}.npy`, N x C of 1, 0 and -1 (left out).

    Rows are the training images sorted by name, as in the files that the FAIR benchmark ships for VOC2007. Raises
    UserError if the file is missing or does not belong to these images.
    """
    import numpy as np

    file = folder / f"train_targets_sample{number}_k{k}.npy"
    if not file.is_file():
        raise UserError(f"{file}: no such sample file. Samples are named train_targets_sample1_k1.npy and so on.")
    try:
        sample = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{file}: not a plain .npy array ({error}).") from error
    if sample.shape != targets.shape or not np.isin(sample, (PRESENT, ABSENT, LEFT_OUT)).all():
        raise UserError(
            f"{file}: an array of {sample.shape}; expected {targets.shape} (training images x classes) of 1, 0 and -1."
        )
    sample = np.asarray(sample, np.int8)
    wrong = (sample != LEFT_OUT) & (sample != targets)
    if wrong.any():
        count = int(wrong.sum())
        raise UserError(
            f"{file}: {count:,} of its labels {plural(count, 'differs', 'differ')} from those of these images, so "
            "its rows are other images or are in another order (expected: sorted by name)."
        )
    for mark, count in ((PRESENT, k), (ABSENT, (len(classes) - 1) * k)):
        counts = (sample == mark).sum(0)
        if (counts != count).any():
            column = int((counts != count).argmax())
            raise UserError(
                f"{file}: class {classes[column]} has {counted(int(counts[column]), 'label')} of {mark}; "
                f"expected {count}."
            )
    return sample
