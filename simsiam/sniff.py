"""What a file is by its first bytes, whatever its name says; for messages about unexpected files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAD = 512  # bytes that `sniff` looks at

Family = Literal["empty", "impostor", "archive", "image", "video", "weights", "table", "text", "other"]


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """A kind of file."""

    name: str  # one word: html, zip, jpeg
    words: str  # for a message, with its article: "a web page (HTML)"
    family: Family  # impostor: what a failed download or clone leaves in place of a file

    def __str__(self) -> str:
        return self.words


def _kind(name: str, family: Family, words: str) -> FileKind:
    return FileKind(name=name, words=words, family=family)


EMPTY = _kind("empty", "empty", "an empty file (0 bytes)")
ZEROS = _kind("zeros", "impostor", "a file of zero bytes (a download or copy that was cut off)")
TEXT = _kind("text", "text", "a text file")
LFS = _kind("lfs", "impostor", "a Git LFS pointer, not the file itself (`git lfs pull` fetches it)")
HTML = _kind("html", "impostor", "a web page (HTML), often the login or error page of a failed download")
ZIP = _kind("zip", "archive", "a zip archive (unpack it first)")
NPZ = _kind("npz", "table", "an archive of NumPy arrays (.npz)")
OFFICE = _kind("office", "table", "an office document such as .xlsx (export it as CSV)")
INDEX = _kind("index", "text", "an index of weights that lie in several files beside it (save them as one file)")
TORCH = _kind("torch", "weights", "a PyTorch checkpoint")

# (offset, bytes there, kind); the first that fits counts.
_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"\xff\xd8\xff", _kind("jpeg", "image", "a JPEG image")),
    (0, b"\x89PNG\r\n\x1a\n", _kind("png", "image", "a PNG image")),
    (0, b"GIF87a", _kind("gif", "image", "a GIF image")),
    (0, b"GIF89a", _kind("gif", "image", "a GIF image")),
    (8, b"WEBP", _kind("webp", "image", "a WebP image")),
    (8, b"AVI ", _kind("avi", "video", "a video (AVI)")),
    (8, b"WAVE", _kind("wav", "other", "a sound file (WAV)")),
    (8, b"CR\x02", _kind("raw", "image", "a camera's raw image (CR2)")),
    (0, b"FUJIFILMCCD-RAW", _kind("raw", "image", "a camera's raw image (RAF)")),
    (0, b"IIRO", _kind("raw", "image", "a camera's raw image (ORF)")),
    (0, b"IIU\0", _kind("raw", "image", "a camera's raw image (RW2)")),
    (0, b"II*\0", _kind("tiff", "image", "a TIFF image (or a camera's raw image in that form)")),
    (0, b"MM\0*", _kind("tiff", "image", "a TIFF image (or a camera's raw image in that form)")),
    (0, b"8BPS", _kind("psd", "image", "a Photoshop image")),
    (0, b"\0\0\0\x0cJXL ", _kind("jxl", "image", "a JPEG XL image")),
    (0, b"\0\0\0\x0cjP  ", _kind("jp2", "image", "a JPEG 2000 image")),
    (128, b"DICM", _kind("dicom", "image", "a DICOM image")),
    (0, b"\x1aE\xdf\xa3", _kind("mkv", "video", "a video (Matroska or WebM)")),
    (0, b"\0\0\x01\xba", _kind("mpeg", "video", "a video (MPEG)")),
    (0, b"PK\x05\x06", _kind("zip", "archive", "a zip archive with nothing in it")),
    (0, b"PK\x03\x04", ZIP),
    (0, b"\x1f\x8b", _kind("gzip", "archive", "a gzip archive (unpack it first: tar xzf, or gunzip)")),
    (0, b"BZh", _kind("bzip2", "archive", "a bzip2 archive (unpack it first)")),
    (0, b"\xfd7zXZ\0", _kind("xz", "archive", "an xz archive (unpack it first)")),
    (0, b"(\xb5/\xfd", _kind("zstd", "archive", "a zstd archive (unpack it first)")),
    (0, b"7z\xbc\xaf'\x1c", _kind("7z", "archive", "a 7z archive (unpack it first)")),
    (0, b"Rar!\x1a\x07", _kind("rar", "archive", "a RAR archive (unpack it first)")),
    (257, b"ustar", _kind("tar", "archive", "a tar archive (unpack it first: tar xf)")),
    (0, b"PAR1", _kind("parquet", "table", "a Parquet table")),
    (0, b"ARROW1", _kind("arrow", "table", "an Arrow table")),
    (0, b"SQLite format 3\0", _kind("sqlite", "table", "an SQLite database")),
    (0, b"\x89HDF", _kind("hdf5", "weights", "an HDF5 file (Keras weights, MATLAB or data)")),
    (0, b"\x93NUMPY", _kind("npy", "table", "a NumPy array")),
    (0, b"GGUF", _kind("gguf", "weights", "a GGUF file (a language model)")),
    (0, b"%PDF", _kind("pdf", "other", "a PDF document")),
    (0, b"\0\x05\x16\x07", _kind("appledouble", "impostor", "a macOS side file (`._NAME`), not the file itself")),
    (0, b"\x7fELF", _kind("program", "other", "a program or library (ELF)")),
    (0, b"MZ", _kind("program", "other", "a Windows program")),
    (0, b"ID3", _kind("mp3", "other", "a sound file (MP3)")),
)
_BRANDS = {  # of an ISO media file, at byte 8 behind `ftyp`
    b"avif": _kind("avif", "image", "an AVIF image"),
    b"avis": _kind("avif", "image", "an AVIF image"),
    b"crx ": _kind("raw", "image", "a camera's raw image (CR3)"),
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), _kind("heic", "image", "a HEIC image")
    ),
}
_VIDEO = _kind("mp4", "video", "a video (MP4 or MOV)")
_MARKUP = (
    ((b"version https://git-lfs",), LFS),
    ((b"<!doctype html", b"<html", b"<head", b"<body", b"<script"), HTML),
    ((b"<svg",), _kind("svg", "image", "an SVG drawing")),
    ((b"<?xml", b"<error", b"<"), _kind("xml", "text", "an XML text")),
    ((b"{", b"["), _kind("json", "text", "a JSON text")),
)


def sniff(content: bytes | Path) -> FileKind | None:
    """The kind of a file by its first bytes; None where they show nothing known.

    Args:
        content: the file's first bytes (`HEAD` are enough), or its path. Raises OSError where it cannot be read.
    """
    if isinstance(content, Path):
        with content.open("rb") as file:
            content = file.read(HEAD)
    head = content[:HEAD]
    if not head:
        return EMPTY
    if not head.strip(b"\0"):
        return ZEROS
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], _VIDEO)
    if head.startswith(b"PK\x03\x04"):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]  # of the first member
        if b"data.pkl" in head[30:200]:
            return TORCH
        if name.endswith(b".npy"):
            return NPZ
        if name in (b"[Content_Types].xml", b"_rels/.rels", b"mimetype"):
            return OFFICE
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return _binary(head) if b"\0" in head or not _is_text(head) else _text(head)


def looks_like(content: bytes | Path) -> str:
    """What a file is, for a message: "a web page (HTML)", "of no known kind (it begins with b'...')"."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            content = file.read(HEAD)
    kind = sniff(content)
    return kind.words if kind else f"of no known kind (it begins with {content[:8]!r})"


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a letter cut by the end of what was read
    return not any(byte < 9 or 13 < byte < 27 for byte in head)


def _text(head: bytes) -> FileKind:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b'"weight_map"' in start:
        return INDEX
    return next((kind for starts, kind in _MARKUP if start.startswith(starts)), TEXT)


def _binary(head: bytes) -> FileKind | None:
    if head[8:9] == b"{" and len(head) > 9 and not any(head[6:8]):
        return _kind("safetensors", "weights", "a safetensors file")
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return TORCH if b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" in head[:16] else _kind("pickle", "weights", "a pickle")
    if head[0] == 0x08 and 1 <= head[1] <= 20 and head[2] in (0x12, 0x3A):
        return _kind("onnx", "weights", "an ONNX model")
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return _kind("bmp", "image", "a BMP image")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _kind("text", "text", "a text file (UTF-16)")
    return None
