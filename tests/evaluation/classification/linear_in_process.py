"""One process of several that train together: OUT, the kind and the batch size, as in `OUT fine_tuned 6`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.evaluation.classification import labelled_subjects
from tests.evaluation.classification.labelled_subjects import machine, splits, subject

if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = getattr(labelled_subjects, sys.argv[2])(batch_size=int(sys.argv[3]))
    recipe.run(subject(), splits(), machine=machine(Path(sys.argv[1])))
