"""The small training samples of the low-shot protocol: drawn by a seed, drawn without one, or read from files."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simsiam.data.splits import ABSENT, PRESENT
from simsiam.errors import UserError
from simsiam.wording import counted, plural

if TYPE_CHECKING:
    import numpy as np


Sampling = Literal["seeded", "unseeded", "files"]

LEFT_OUT = -1  # of a sample's targets: the image does not train this class


def sample_targets(
    targets: np.ndarray, *, k: int, generator: np.random.Generator, classes: tuple[str, ...]
) -> np.ndarray:
    """One sample: for each class, k positives and (C - 1) k negatives drawn at random, all else LEFT_OUT.

    Args:
        targets: N x C, PRESENT, ABSENT or DIFFICULT (never drawn).
        k: positives a class.
        generator: of the draw.
        classes: C names, for messages.

    Raises UserError if a class has too few images of either kind.
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
