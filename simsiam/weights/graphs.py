"""Backbones as whole programs, weights and operations together: ONNX and torch.export."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simsiam.errors import UserError, install_extra
from simsiam.weights.load import Loaded
from simsiam.weights.targets import Reader


def _example(loaded: Loaded) -> Tensor:
    return torch.zeros(2, 3, loaded.preprocess.size, loaded.preprocess.size)


def write_onnx(loaded: Loaded, out: Path) -> Path:
    """One .onnx file: input `images` B x 3 x H x W with any B, output `features` B x C."""
    try:
        import onnx  # noqa: F401 - what torch's exporter needs
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs the onnx extra: {install_extra('onnx')}") from error
    path = out / "backbone.onnx"
    part = out / ".backbone.part.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notes to its own developers
        torch.onnx.export(
            loaded.backbone,
            (_example(loaded),),
            part,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    part.replace(path)
    return path


def read_onnx(loaded: Loaded, path: Path) -> Reader:
    """onnxruntime on the CPU."""
    del loaded
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            f"{path.name} cannot be checked here, so it is not written. That needs: {install_extra('onnx')}"
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])

    return Reader(run=run, library=f"onnxruntime {onnxruntime.__version__}")


def write_pt2(loaded: Loaded, out: Path) -> Path:
    """A torch.export program with any batch size."""
    path = out / "backbone.pt2"
    part = out / ".backbone.part.pt2"
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(loaded.backbone, (_example(loaded),), dynamic_shapes=shapes)
    torch.export.save(program, part)
    part.replace(path)
    return path


def read_pt2(loaded: Loaded, path: Path) -> Reader:
    """torch's own loading of the program."""
    del loaded
    with warnings.catch_warnings():  # torch 2.11 warns of its own reading of the file
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        module = torch.export.load(path).module()
    return Reader(run=module, library=f"torch {torch.__version__}")
