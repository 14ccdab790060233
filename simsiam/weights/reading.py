"""Opening a weights file, whatever wrote it, without running any code that the file carries."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from simsiam.backbones import BLOCKS, build_backbone
from simsiam.errors import UserError, install_extra
from simsiam.sniff import HEAD, looks_like, sniff
from simsiam.weights import tensors
from simsiam.weights.unpickle import RefusedPickleError
from simsiam.wording import counted

ONNX = "ONNX"  # the format in the metadata of a graph
_AGAIN = "Fetch the file again and compare its size or checksum with the source's."


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file held, before anybody says what it means."""

    path: Path
    raw: Any  # nested containers with tensors or arrays
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file or an ONNX graph


def read(path: Path) -> Content:
    """Read a torch, safetensors, ONNX or pickle file on the CPU.

    Raises:
        UserError: the file is missing, empty, truncated, a web page, a Git LFS pointer or of no known kind, or
            names code that would be run on loading.
    """
    head = _first_bytes(path)
    kind = sniff(head)
    name = kind.name if kind else ""
    if (path.suffix == ".safetensors" and name not in ("html", "lfs", "empty", "zeros")) or name == "safetensors":
        return _read_safetensors(path)
    if name in ("zip", "torch") and head.startswith(b"PK\x03\x04"):
        return Content(path=path, raw=_guarded(path, _read_zip))
    if name == "torch":
        return Content(path=path, raw=_guarded(path, tensors.read_legacy_file))
    if name == "onnx" or (kind is None and path.suffix == ".onnx"):
        state, facts = _guarded(path, read_onnx_weights)
        return Content(path=path, raw=state, metadata={"format": ONNX, **facts})
    if name == "pickle":
        return Content(path=path, raw=_guarded(path, tensors.read_pickle))
    again = f" {_AGAIN}" if kind and (kind.family in ("impostor", "empty") or name in ("json", "xml")) else ""
    raise UserError(
        f"{path}: not a weights file that this program knows; it is {looks_like(head)}.{again} "
        "Known: torch (.pth, .pt, .pth.tar, .ckpt), safetensors, ONNX, pickles of arrays (.pkl)."
    )


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a weights file, and no run folder (it has no recipe.json).")
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder. Check the path.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_zip(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: truncated, the archive has no end ({counted(path.stat().st_size, 'byte')}). {_AGAIN}")
    with zipfile.ZipFile(path) as archive:
        names = [name.rsplit("/", 1)[-1] for name in archive.namelist()]
    if "constants.pkl" in names:
        raise UserError(f"{path}: a TorchScript program, which holds code. Give the state dict it was made from.")
    if "data.pkl" not in names:
        raise UserError(
            f"{path}: a zip archive, but not one that torch.save writes. Unpack it and give the file inside."
        )
    return tensors.read_zip(path)


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    """Whatever a reader stumbles over is damage, but for what it refuses."""
    try:
        return read(path)
    except UserError:
        raise
    except RefusedPickleError as error:
        raise UserError(
            f"{path}: refused. It names {error}, which runs code or opens files, and which no weights file needs. "
            "Nothing was run. Do not open it with other tools; if you trust its author, ask for safetensors."
        ) from error
    except Exception as error:  # readers raise many kinds on damaged input
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> Content:
    from safetensors import safe_open

    def read(path: Path) -> Content:
        with safe_open(path, framework="pt", device="cpu") as file:
            raw = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return Content(path=path, raw=raw, metadata=dict(file.metadata() or {}))

    found: Content = _guarded(path, read)
    return found


def _damaged(path: Path, error: Exception) -> UserError:
    """The file's size, and what is wrong where that is said in words that a person can use."""
    reason = ""
    if isinstance(error, tensors.DamagedError):
        reason = f", {error}"
    elif isinstance(error, zipfile.BadZipFile) and "CRC" in str(error):
        reason = ", a part does not have its checksum"
    return UserError(f"{path}: damaged or truncated ({counted(path.stat().st_size, 'byte')}{reason}). {_AGAIN}")


def read_onnx_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a graph, and the stem where the graph shows it; raises UserError where it is no ResNet's."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError(f"{path}: an ONNX model; reading it needs {install_extra('onnx')}") from error
    graph = onnx.load(str(path), load_external_data=False).graph
    if any(part.data_location == onnx.TensorProto.EXTERNAL for part in graph.initializer):
        raise UserError(f"{path}: an ONNX model whose weights lie in another file. Export it as one file.")
    numbers = {part.name: torch.from_numpy(numpy.array(numpy_helper.to_array(part))) for part in graph.initializer}
    if any(name.endswith("bn1.running_mean") for name in numbers):
        return numbers, {}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    folded = [(numbers.get(node.input[1]), numbers.get((*node.input, "", "")[2])) for node in convolutions]
    weights = [weight for weight, _ in folded if weight is not None]
    name = _network(weights) if len(weights) == len(folded) else None
    if name is None:
        kinds = ", ".join(sorted({node.op_type for node in graph.node})[:12])
        raise UserError(f"{path}: an ONNX model that is none of {', '.join(BLOCKS)} (its operations: {kinds}).")
    said = {one.name: list(one.ints) for one in convolutions[0].attribute}
    strided = said.get("strides", [1])[0] == 2
    stem = {"stem": "small-stride2" if strided else "small"} if said.get("kernel_shape", [7])[0] == 3 else {}
    return _unfolded(name, folded), stem


def _order(name: str, width: int) -> list[tuple[str, str, nn.Conv2d]]:
    """Convolutions with the BatchNorm behind each, in the order of a forward pass: a block's shortcut comes last."""
    with torch.device("meta"):
        network = build_backbone(name, width=width)
    found = [(conv, part) for conv, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    return [(conv, conv.replace("downsample.0", "downsample.1").replace("conv", "bn"), part) for conv, part in found]


def _network(weights: list[Tensor]) -> str | None:
    """The ResNet whose convolutions have these shapes in this order."""
    if not weights or weights[0].ndim != 4 or len(weights[0]) > 4096:
        return None
    for name in BLOCKS:
        expected = [tuple(part.weight.shape) for _, _, part in _order(name, len(weights[0]))]
        shapes = [tuple(weight.shape) for weight in weights]
        if shapes[1:] == expected[1:] and shapes[0][:2] == expected[0][:2]:
            return name
    return None


def _unfolded(name: str, folded: list[tuple[Tensor | None, Tensor | None]]) -> dict[str, Tensor]:
    """A folded bias as that of a BatchNorm which does nothing else: exact in evaluation mode."""
    state: dict[str, Tensor] = {}
    first = folded[0][0]
    assert first is not None
    for (conv, norm, part), (weight, bias) in zip(_order(name, len(first)), folded, strict=True):
        assert weight is not None
        channels = part.out_channels
        state[f"{conv}.weight"] = weight
        state[f"{norm}.weight"] = torch.ones(channels)
        state[f"{norm}.bias"] = torch.zeros(channels) if bias is None else bias
        state[f"{norm}.running_mean"] = torch.zeros(channels)
        state[f"{norm}.running_var"] = torch.full((channels,), 1 - 1e-5)  # with torch's epsilon: 1
    return state
