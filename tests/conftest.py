"""One thread a process: the tensors here are small, and tests run beside each other, one process a core."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the programs that tests start

import torch

torch.set_num_threads(1)
