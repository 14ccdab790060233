"""Linear SVMs on each of the five feature maps: the "SVM" column of the model zoo page, and the same on other data.

Source: Goyal et al. 2019, section 4 and its released protocol: features of a squashed 224 x 224 image, pooled to about
9,000 numbers and divided by their norm; one LinearSVC for each class, with positives weighing twice; the cost chosen
by 3-fold cross-validation; average precision on the test set. Difficult images are negatives in training and are left
out of the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simsiam.config import Machine
from simsiam.data.splits import ABSENT, DIFFICULT, PRESENT
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import SvmFeatures
from simsiam.evaluation.intervals import area_average_precision
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Folds, Positive
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from simsiam.data.classification.voc import MultiLabelSplits


@dataclass(frozen=True, kw_only=True)
class Svm(Protocol["MultiLabelSplits"]):
    """One against rest on each layer, the cost of each class by cross-validation."""

    protocol: ClassVar[str] = "svm_voc07"
    main_metric: ClassVar[str] = "best"  # the mAP of the best layer
    everyday: ClassVar[tuple[str, ...]] = ("costs",)
    features: SvmFeatures
    costs: tuple[Positive, ...]  # Costs C of the SVM to choose from by cross-validation, for each class.
    positive_weight: Positive  # How much a positive image weighs against a negative one.
    folds: Folds  # Folds of the cross-validation, stratified.

    def score(self, subject: PretrainedBackbone, data: MultiLabelSplits, *, machine: Machine) -> Measured:
        """The mAP of every layer (feature1 ... feature5) and of the best one; percent."""
        train = self.features.extract(subject, data.train, machine)
        test = self.features.extract(subject, data.test, machine)
        targets, test_targets = data.train.targets[train.indices], data.test.targets[test.indices]
        layers = {
            layer: svm_layer(
                rows,
                targets,
                test.arrays[layer],
                test_targets,
                classes=data.train.classes,
                costs=self.costs,
                positive_weight=self.positive_weight,
                folds=self.folds,
                device=machine.device,
            )
            for layer, rows in train.arrays.items()
        }
        accuracy = max(scored.accuracy for scored in layers.values())
        maps = {layer: scored.mean for layer, scored in layers.items()}
        best = max(maps, key=lambda layer: maps[layer])
        return Measured(
            metrics={**maps, "best": maps[best]},
            detail={
                "best_layer": best,
                "classes": list(data.train.classes),
                "per_class": {layer: scored.per_class for layer, scored in layers.items()},
                "costs": {layer: scored.costs for layer, scored in layers.items()},
                "cross_validation": {layer: scored.cross_validation for layer, scored in layers.items()},
                "solver_accuracy": accuracy,
            },
            notes=[
                *train.notes,
                *train.skipped(data.train.source),
                *test.skipped(data.test.source),
                *unsolved_notes(accuracy),
            ],
        )


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """The SVMs of one layer."""

    per_class: dict[str, float]  # average precision, percent
    costs: dict[str, float]  # chosen
    cross_validation: dict[str, float]  # the mean fold AP at the chosen cost, percent
    accuracy: float  # of the solver: relative error of the weights

    @property
    def mean(self) -> float:
        """mAP, percent."""
        import numpy as np

        return float(np.mean(list(self.per_class.values())))


def svm_layer(
    train: np.ndarray,
    train_targets: np.ndarray,
    test: np.ndarray,
    test_targets: np.ndarray,
    *,
    classes: tuple[str, ...],
    costs: tuple[float, ...],
    positive_weight: float,
    folds: int,
    device: str = "cpu",
) -> LayerScore:
    """Choose a cost for each class by cross-validation, train on all of `train`, score on `test`.

    Args:
        train: n x d features, not yet normalised.
        train_targets: n x C, PRESENT, ABSENT or DIFFICULT.
        test: m x d.
        test_targets: m x C.
        classes: C names.
        costs: to choose from; of equal ones the first in this order.
        positive_weight: of positives against negatives.
        folds: of the cross-validation.
        device: auto, cpu, cuda; MPS has no float64, so the CPU stands in.

    Raises UserError if a class has fewer training positives than folds, or a feature is not finite.
    """
    import numpy as np
    import torch

    from simsiam.evaluation.classification.svm_kernel import decide, kernel_of
    from simsiam.evaluation.classification.svm_solver import solve_path

    kernel = kernel_of(train, device)
    positive = train_targets == PRESENT  # difficult ones are negatives here
    in_training = fold_masks(positive, folds, classes)  # n x C x (1 + folds); the first trains on all
    rows, count = positive.shape
    targets = torch.where(torch.from_numpy(positive), 1.0, -1.0).double()
    weights = torch.where(targets > 0, positive_weight, 1.0)
    columns = (rows, count * (1 + folds))
    y = targets[:, :, None].expand(rows, count, 1 + folds).reshape(columns).to(kernel.device)
    c = (weights[:, :, None] * torch.from_numpy(in_training)).reshape(columns).to(kernel.device)

    ascending = sorted(costs)
    validation = np.empty((len(costs), count))
    whole: dict[float, Tensor] = {}  # by cost: the weights of the SVMs trained on everything, (d + 1) x C
    accuracy = 0.0
    for cost, solution in zip(ascending, solve_path(kernel, y, c, ascending), strict=True):
        decisions = solution.decisions.reshape(rows, count, 1 + folds).cpu().numpy()
        validation[costs.index(cost)] = _fold_means(decisions, positive, in_training)
        whole[cost] = kernel.weights(solution.combinations.reshape(rows, count, 1 + folds)[:, :, 0]).cpu()
        accuracy = max(accuracy, solution.accuracy)
    chosen = [costs[row] for row in validation.argmax(0)]
    best = torch.stack([whole[cost][:, column] for column, cost in enumerate(chosen)], 1).numpy()
    return LayerScore(
        per_class=average_precisions(decide(test, best), test_targets, classes),
        costs=dict(zip(classes, chosen, strict=True)),
        cross_validation=dict(zip(classes, (100 * validation.max(0)).tolist(), strict=True)),
        accuracy=accuracy,
    )


def unsolved_notes(accuracy: float) -> list[str]:
    """A note if the solver gave up before its accuracy."""
    from simsiam.evaluation.classification.svm_solver import ACCURACY

    if accuracy <= ACCURACY:
        return []
    return [f"the SVM solver stopped with weights within {accuracy:.0e} of the solution, not {ACCURACY:.0e}"]


def fold_masks(positive: np.ndarray, folds: int, classes: tuple[str, ...]) -> np.ndarray:
    """n x C x (1 + folds) bool: which rows train in each fold of each class; the first column is all of them."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    few = [name for name, count in zip(classes, positive.sum(0), strict=True) if count < folds]
    if few:
        raise UserError(
            f"{', '.join(few[:5])}: fewer than {folds} positive training images (of "
            f"{counted(len(few), 'class', 'classes')}), so "
            f"{folds}-fold cross-validation cannot choose a cost. Add images or leave these classes out."
        )
    masks = np.ones((*positive.shape, 1 + folds), bool)
    for column, members in enumerate(positive.T):
        for fold, (_, held_out) in enumerate(StratifiedKFold(folds).split(np.zeros(len(members)), members), 1):
            masks[held_out, column, fold] = False
    return masks


def _fold_means(decisions: np.ndarray, positive: np.ndarray, in_training: np.ndarray) -> np.ndarray:
    """Scikit-learn's average precision on each class's held-out rows, the mean over its folds; C."""
    import numpy as np
    from sklearn.metrics import average_precision_score

    means = np.empty(positive.shape[1])
    for column in range(positive.shape[1]):
        scores = []
        for fold in range(1, in_training.shape[2]):
            out = ~in_training[:, column, fold]
            scores.append(average_precision_score(positive[out, column], decisions[out, column, fold]))
        means[column] = np.mean(scores)
    return means


def average_precisions(scores: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Area AP of each class in percent, difficult images left out."""
    found = {}
    for column, name in enumerate(classes):
        counted = targets[:, column] != DIFFICULT
        members = targets[counted, column]
        if not (members == PRESENT).any() or not (members == ABSENT).any():
            raise UserError(f"{name}: the readable test images are all of one kind; no average precision exists.")
        found[name] = 100 * area_average_precision(scores[counted, column], members == PRESENT)
    return found
