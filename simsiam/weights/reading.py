"""Opening a weights file, whatever wrote it, without running any code that the file carries."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simsiam.errors import UserError
from simsiam.weights.unpickle import RefusedPickleError, RestrictedPickle
from simsiam.wording import counted

_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the magic number that opens an old torch.save file
_AGAIN = "Fetch the file again and compare its size or checksum with the source's."


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file held, before anybody says what it means."""

    path: Path
    raw: Any  # nested containers with tensors or arrays
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file


def read(path: Path) -> Content:
    """Read a torch, safetensors or pickle file on the CPU.

    Raises:
        UserError: the file is missing, empty, truncated, a web page, a Git LFS pointer or of no known kind, or
            names code that would be run on loading.
    """
    head = _first_bytes(path)
    _refuse_impostors(path, head)
    if head[:4] == b"PK\x03\x04":
        return Content(path=path, raw=_read_zip(path))
    if _is_safetensors(path, head):
        return _read_safetensors(path)
    if head.startswith(_TORCH_LEGACY):
        return Content(path=path, raw=_read_torch(path))
    if head[:1] == b"\x80":
        return Content(path=path, raw=_read_pickle(path))
    if head.startswith(b"\x89HDF"):
        raise UserError(f"{path}: an HDF5 file (Keras); this program reads PyTorch weights only.")
    raise UserError(
        f"{path}: not a weights file that this program knows (it begins with {head[:8]!r}). "
        "Known: torch (.pth, .pt, .pth.tar, .ckpt), safetensors, detectron2 pickles (.pkl)."
    )


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a weights file, and no run folder (it has no recipe.json).")
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder. Check the path.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _refuse_impostors(path: Path, head: bytes) -> None:
    """Files that downloads leave behind in place of weights."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise UserError(f"{path}: empty (0 bytes); the download or copy did not happen. {_AGAIN}")
    if b"\0" in head:
        return  # binary; a safetensors header length may begin with any byte, a brace too
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a Git LFS pointer, not the weights. Run `git lfs pull` where it was cloned.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        raise UserError(f"{path}: a web page saved under this name (often a login or error page). {_AGAIN}")
    if text.startswith((b"{", b"[")):
        raise UserError(f"{path}: JSON text, not weights (often an error answer of a server). {_AGAIN}")


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
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    """weights_only first; then, for what frameworks put beside the weights, the restricted reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notes on its own old formats
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass
        except Exception as error:
            raise _damaged(path, error) from error
        try:
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=RestrictedPickle())
        except RefusedPickleError as error:
            raise _refused(path, error) from error
        except Exception as error:
            raise _damaged(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return RestrictedPickle.load(file)
    except RefusedPickleError as error:
        raise _refused(path, error) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _is_safetensors(path: Path, head: bytes) -> bool:
    if path.suffix == ".safetensors":
        return True
    size = struct.unpack("<Q", head[:8])[0] if len(head) > 8 else 0
    return head[8:9] == b"{" and 0 < size <= path.stat().st_size


def _read_safetensors(path: Path) -> Content:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            raw = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return Content(path=path, raw=raw, metadata=dict(file.metadata() or {}))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error


def _refused(path: Path, error: RefusedPickleError) -> UserError:
    return UserError(
        f"{path}: refused. Loading it as a pickle would call {error}, which no weights file needs. "
        "Do not open it with other tools; if you trust its author, ask for a plain state dict or safetensors."
    )


def _damaged(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path}: damaged or truncated ({counted(path.stat().st_size, 'byte')}; {reason}). {_AGAIN}")
