"""One of several processes of a linear evaluation; test_linear starts it with torchrun's variables set."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.evaluation.classification.labelled_subjects import machine, mhead, splits, subject

if __name__ == "__main__":
    torch.set_num_threads(1)
    mhead().run(subject(), splits(), machine=machine(Path(sys.argv[1])))
