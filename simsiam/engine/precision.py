"""Number formats of a training: fp32, tf32, bf16 or fp16 with loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from simsiam.errors import UserError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def prepare(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    """Set what the device computes in; returns the loss scaler that fp16 needs.

    fp32 means it: convolutions on a GPU would else use TF32 by default. Raises UserError for fp16 on a CPU.
    """
    if device.type == "cuda":
        exact = precision != "tf32"
        torch.backends.cuda.matmul.allow_tf32 = not exact
        torch.backends.cudnn.allow_tf32 = not exact
        torch.backends.cudnn.benchmark = True
    if precision != "fp16":
        return None
    if device.type == "cpu":
        raise UserError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16.")
    return torch.amp.GradScaler(device.type)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    if precision in ("fp32", "tf32"):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def kept_bytes(sizes: dict[int, int]) -> AbstractContextManager[object]:
    """Notes the bytes that autograd keeps for the backward pass, each storage once, by its address."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
