"""What accuracy a few labels give: cross-validated, with an interval over the images, on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from simsiam.config import Machine
from simsiam.data.splits import copies_in
from simsiam.errors import UserError
from simsiam.evaluation.classification.settings import PooledFeatures, normalised
from simsiam.evaluation.intervals import wilson_interval
from simsiam.evaluation.protocol import Measured, Protocol
from simsiam.limits import Count, Folds, Positive
from simsiam.weights.pretrained import PretrainedBackbone
from simsiam.wording import counted, plural

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from simsiam.data.sources import Source

NEVER = -1e9  # the score of a class that no image was labelled with
INNER_FOLDS = 5  # at most, to choose the regularisation inside a training fold
SMALL = 4_000_000  # numbers in a feature matrix, below which one thread is faster than several


@dataclass(frozen=True, kw_only=True)
class FewLabels(Protocol["Source"]):
    """Repeated stratified cross-validation of a simple classifier on all labelled images there are."""

    protocol: ClassVar[str] = "few_labels"
    main_metric: ClassVar[str] = "top1"  # accuracy
    everyday: ClassVar[tuple[str, ...]] = ("classifier", "folds", "repeats")
    features: PooledFeatures
    classifier: Literal["logistic", "knn"]  # Logistic regression, or nearest neighbours.
    costs: tuple[Positive, ...]  # Logistic: inverse strengths of regularisation to choose from.
    k: Count  # Nearest neighbours: how many vote.
    temperature: Positive  # Nearest neighbours: a vote weighs exp(cosine / temperature).
    folds: Folds  # Folds of the cross-validation; fewer where a class has fewer images.
    repeats: Count  # How often the cross-validation is repeated with other folds.

    def data_notes(self, data: Source) -> list[str]:
        """On images that occur twice: a classifier may have seen the very image that it is asked for."""
        copies = copies_in(data)
        if not copies:
            return []
        return [
            f"{copies:,} of {counted(len(data), 'image')} {plural(copies, 'is an exact copy', 'are exact copies')} of "
            "another: the figure is too high where one is learnt from and the other asked for"
        ]

    def score(self, subject: PretrainedBackbone, data: Source, *, machine: Machine) -> Measured:
        """top1, its 95 % interval (top1_low, top1_high) and that of always naming the commonest class; percent."""
        import numpy as np

        from simsiam.data.classification.loader import labels_of

        labels_of(data)
        features = self.features.extract(subject, data, machine)
        labels = features.labels(data)
        names = data.classes or tuple(str(number) for number in range(int(labels.max()) + 1))
        folds = _usable_folds(labels, names, self.folds, data.name)
        rows = normalised(features.pooled)
        guesses = np.stack(
            [self._guess(rows, labels, folds, subject.seed + repeat) for repeat in range(self.repeats)]
        )  # repeats x N
        if self.classifier == "logistic" and machine.out is not None:
            self._keep(subject, rows, labels, names, machine.out)
        hits = guesses == labels
        share = hits.mean(0)  # of each image, over the repeats
        interval = wilson_interval(float(share.sum()), len(share))
        commonest = 100 * float(np.bincount(labels).max()) / len(labels)
        return Measured(
            metrics={
                "top1": 100 * float(share.mean()),
                "top1_low": 100 * interval.low,
                "top1_high": 100 * interval.high,
                "commonest_class": commonest,
            },
            detail=_detail(guesses, labels, names, folds, hits),
            notes=[
                f"{counted(len(labels), 'labelled image')}, each guessed by classifiers that did not see it "
                f"({folds} folds, {counted(self.repeats, 'repeat')}); the interval is over the images",
                *features.skipped(data),
            ],
        )

    def _guess(self, rows: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
        """Each image's class by a classifier trained on the other folds, N."""
        import numpy as np
        from sklearn.model_selection import StratifiedKFold
        from threadpoolctl import threadpool_limits  # scikit-learn brings it

        guesses = np.empty_like(labels)
        guess = self._logistic if self.classifier == "logistic" else self._knn
        # hundreds of small fits: several threads would wait for each other longer than they work
        with threadpool_limits(1 if rows.size < SMALL else None):  # type: ignore[no-untyped-call]
            for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels):
                guesses[test] = guess(rows[train], labels[train], rows[test], seed)
        return guesses

    def _logistic(self, train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        return self._fitted(train, labels, seed).guess(test)

    def _keep(
        self, subject: PretrainedBackbone, rows: np.ndarray, labels: np.ndarray, names: tuple[str, ...], out: Path
    ) -> None:
        """The classifier on all labelled images, standardisation folded into its weights, for `simsiam predict`."""
        import numpy as np
        import torch

        from simsiam.evaluation.classification.inference import TrainedClassifier, save_classifier

        fitted = self._fitted(rows, labels, subject.seed)
        scaler, logistic = fitted.scaler, fitted.logistic
        one_sided = len(logistic.coef_) == 1  # of two classes scikit-learn keeps the second's scores alone
        slopes, offsets = (
            np.concatenate([np.zeros_like(part), part]) if one_sided else part
            for part in (logistic.coef_ / scaler.scale_, logistic.intercept_)
        )
        weight, bias = np.zeros((len(names), rows.shape[1])), np.full(len(names), NEVER)
        weight[logistic.classes_], bias[logistic.classes_] = slopes, offsets - slopes @ scaler.mean_
        trained = TrainedClassifier(
            backbone=subject.backbone,
            weight=torch.from_numpy(weight).float(),
            bias=torch.from_numpy(bias).float(),
            classes=names,
            preprocess=self.features.preprocess(subject),
            unit=True,
        )
        save_classifier(out, trained)

    def _fitted(self, train: np.ndarray, labels: np.ndarray, seed: int) -> _Fitted:
        """With the cost that is right most often on average over inner folds, the first of equals.

        As scikit-learn's GridSearchCV would choose, which takes twice the time on a few images.
        """
        import numpy as np
        from sklearn.model_selection import StratifiedKFold

        inner = min(INNER_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
        if inner >= 2 and len(self.costs) > 1:
            right = np.zeros((len(self.costs), inner))
            division = StratifiedKFold(inner, shuffle=True, random_state=seed)
            for fold, (rows, held) in enumerate(division.split(train, labels)):
                models = _fits(train[rows], labels[rows], self.costs)
                right[:, fold] = [np.mean(model.guess(train[held]) == labels[held]) for model in models]
            cost = self.costs[int(right.mean(1).argmax())]
        else:  # one image of a class: nothing to choose by, so the middle of the list
            cost = sorted(self.costs)[len(self.costs) // 2]
        return _fits(train, labels, (cost,))[0]

    def _knn(self, train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        import torch

        from simsiam.features.neighbours import nearest, vote

        k = min(self.k, len(train))
        neighbours = nearest(test, train, k=k, device="cpu")
        scores = vote(
            neighbours, torch.from_numpy(labels), k=k, temperature=self.temperature, classes=int(labels.max()) + 1
        )
        guessed: np.ndarray = scores.argmax(1).numpy()
        return guessed


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """scikit-learn's StandardScaler and LogisticRegression, fitted."""

    scaler: Any
    logistic: Any

    def guess(self, rows: np.ndarray) -> np.ndarray:
        """Their classes, N."""
        found: np.ndarray = self.logistic.predict(self.scaler.transform(rows))
        return found


def _fits(rows: np.ndarray, labels: np.ndarray, costs: tuple[float, ...]) -> list[_Fitted]:
    """One for each cost."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(rows)
    scaled = scaler.transform(rows)
    return [
        _Fitted(scaler=scaler, logistic=LogisticRegression(C=cost, max_iter=5000).fit(scaled, labels)) for cost in costs
    ]


def _usable_folds(labels: np.ndarray, names: tuple[str, ...], folds: int, source: str) -> int:
    import numpy as np

    counts = np.bincount(labels, minlength=len(names))
    shown = counts[counts > 0]
    lone = [names[number] for number in np.flatnonzero(counts == 1)]
    if lone:
        raise UserError(
            f"{source}: one labelled image only of {', '.join(lone[:5])} "
            f"({counted(len(lone), 'such class', 'such classes')}); each class "
            "needs at least two, one to learn from and one to test."
        )
    if len(shown) < 2:
        raise UserError(
            f"{source}: {counted(len(shown), 'class', 'classes')} among the readable images; at least two are needed."
        )
    return min(folds, int(shown.min()))


def _detail(
    guesses: np.ndarray, labels: np.ndarray, names: tuple[str, ...], folds: int, hits: np.ndarray
) -> dict[str, Any]:
    import numpy as np
    from sklearn.metrics import confusion_matrix

    shown = np.unique(labels)
    detail: dict[str, Any] = {
        "images": len(labels),
        "folds": folds,
        "per_class": {names[label]: 100 * float(hits[:, labels == label].mean()) for label in shown},
        "by_repeat": (100 * hits.mean(1)).tolist(),
    }
    if len(names) <= 100:
        confusion = confusion_matrix(labels, guesses[0], labels=range(len(names)))  # of the first repeat
        detail |= {"classes": list(names), "confusion": confusion.tolist()}
    return detail
