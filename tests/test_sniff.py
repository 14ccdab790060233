"""Files are named by what they hold: checked on files that their own writers made."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from simsiam.sniff import looks_like, sniff


def image(form: str) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (20, 30), (200, 10, 10)).save(made, form)
    return made.getvalue()


def archive(form: str) -> bytes:
    made = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(made, "w") as file:
            file.writestr("a.txt", "hello")
    else:
        with tarfile.open(fileobj=made, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.txt"))
    return made.getvalue()


def saved(*, zipped: bool) -> bytes:
    made = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, made, _use_new_zipfile_serialization=zipped)
    return made.getvalue()


def array() -> bytes:
    made = io.BytesIO()
    numpy.save(made, numpy.zeros(3))
    return made.getvalue()


WRITTEN = {
    **{
        form.lower(): (lambda form=form: image(form))
        for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PDF")
    },
    "zip": lambda: archive("zip"),
    "tar": lambda: archive("tar"),
    "gzip": lambda: gzip.compress(b"x"),
    "bzip2": lambda: bz2.compress(b"x"),
    "xz": lambda: lzma.compress(b"x"),
    "npy": array,
    "safetensors": lambda: save({"a": torch.zeros(3)}),
    "pickle": lambda: pickle.dumps({"a": 1}, protocol=4),
    "json": lambda: json.dumps({"error": "rate limit"}).encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_writers_write(name: str) -> None:
    kind = sniff(WRITTEN[name]())
    assert kind is not None
    assert kind.name == name


@pytest.mark.parametrize("zipped", [True, False])
def test_both_forms_of_torch_save(zipped: bool) -> None:
    kind = sniff(saved(zipped=zipped))
    assert kind is not None
    assert kind.name == "torch"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty"),
        (bytes(4096), "zeros"),
        (b"\n<!DOCTYPE html><html><body>404", "html"),
        (b"\xef\xbb\xbf<HTML>", "html"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "xml"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "lfs"),
        (b"PAR1\x15\x04", "parquet"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "mp4"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "appledouble"),
        (b"file,label\na.jpg,cat\n", "text"),
        ("Füße, naïve, 狐\n".encode() * 60, "text"),
        ("file;label".encode("utf-16"), "text"),
        (b"\x08\x08\x12\x07pytorch\x1a\x032.9:\x00", "onnx"),
    ],
)
def test_what_downloads_leave(content: bytes, name: str) -> None:
    kind = sniff(content)
    assert kind is not None
    assert kind.name == name


def test_noise_is_shown_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\xfa\xde\xad\xbe\xef\x01\x02" * 9)
    assert sniff(path) is None
    assert looks_like(path) == r"of no known kind (it begins with b'\x00\xfa\xde\xad\xbe\xef\x01\x02')"


def test_a_database_by_path(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "a.db")
    base.execute("create table t (x)")
    base.commit()
    base.close()
    assert looks_like(tmp_path / "a.db") == "an SQLite database"
