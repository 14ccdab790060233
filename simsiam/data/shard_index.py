"""Where each sample lies inside the tar shards: made by one pass over the headers, then kept."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simsiam.data.images import IMAGE_SUFFIXES
from simsiam.data.source import UNKNOWN
from simsiam.errors import UserError
from simsiam.results import write_atomic

_SIDECARS = ("cls", "json", "txt")  # of an image: its label, its description
_LAYOUT = 2  # of the index file
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """N samples in the order of shards and members."""

    shards: np.ndarray  # N int32, ascending: which shard
    offsets: np.ndarray  # N int64: the image's first byte
    sizes: np.ndarray  # N int64: its bytes
    labels: np.ndarray  # N int64, -1: none
    names: bytes  # all members' names, one after the other
    ends: np.ndarray  # N int64: where each name ends
    left_out: dict[str, int]  # members that are no images, by suffix; "" for second images of a sample

    def member(self, index: int) -> str:
        """The image member's name."""
        start = int(self.ends[index - 1]) if index > 0 else 0
        return self.names[start : int(self.ends[index])].decode("utf-8", "surrogateescape")


@dataclass(frozen=True, kw_only=True)
class _Sample:
    name: str
    offset: int
    size: int
    label: int


def load_or_build(shards: list[Path], *, cache: Path | None) -> ShardIndex:
    """The index kept for these very files (by name, size and time), else a new one, kept where that is allowed."""
    identity = json.dumps([_LAYOUT, *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in shards)])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    beside = shards[0].parent / f".simsiam-index-{_pattern_key(shards)}.npz"
    elsewhere = None if cache is None else cache / "shards" / f"{digest[:24]}.npz"
    for place in (beside, elsewhere):
        kept = None if place is None else _load(place, digest)
        if kept is not None:
            return kept
    index = _build(shards)
    content = _pack(index, digest)
    for place in (beside, elsewhere):
        if place is not None:
            try:
                write_atomic(place, content)
                break
            except OSError:  # a read-only folder or a full disk: the next place, or none, and it is built again
                continue
    return index


def _build(shards: list[Path]) -> ShardIndex:
    samples: list[_Sample] = []
    counts = []
    left_out: Counter[str] = Counter()
    for path in shards:
        before = len(samples)
        samples.extend(_samples(path, left_out))
        counts.append(len(samples) - before)
    names = [sample.name.encode("utf-8", "surrogateescape") for sample in samples]
    return ShardIndex(
        shards=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        offsets=np.array([sample.offset for sample in samples], np.int64),
        sizes=np.array([sample.size for sample in samples], np.int64),
        labels=np.array([sample.label for sample in samples], np.int64),
        names=b"".join(names),
        ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        left_out=dict(left_out),
    )


def _samples(path: Path, left_out: Counter[str]) -> Iterator[_Sample]:
    """The image members of one shard in order, each with the label that its neighbours of the same key give.

    Of a sample with a plain image (0001.jpg) only that one is used: 0001.seg.png beside it is its mask. A sample
    without one (0001.input.jpg, 0001.output.jpg) gives every image that it has. What is not used is counted.
    """
    _refuse_packed(path)
    plain: dict[str, _Sample] = {}
    others: dict[str, list[_Sample]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                key, suffix = _split(member.name)
                kind = f".{suffix.rpartition('.')[2]}"
                if not member.isreg() or member.name.rpartition("/")[2].startswith("."):  # ._NAME: of macOS
                    continue
                if kind in IMAGE_SUFFIXES:
                    found = _Sample(name=member.name, offset=member.offset_data, size=member.size, label=UNKNOWN)
                    if "." not in suffix and key not in plain:
                        plain[key] = found
                    else:
                        others.setdefault(key, []).append(found)
                elif suffix in ("cls", "json"):
                    content = tar.extractfile(member)
                    label = None if content is None else _label(content.read(), suffix)
                    if label is not None:
                        labels.setdefault(key, label)
                elif kind[1:] not in _SIDECARS:
                    left_out[kind] += 1
            if not has_end_mark(path, tar.offset):
                raise tarfile.ReadError("its end mark is missing")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{path}: not a whole tar file ({error}). It may have been cut short while copying: fetch it again."
        ) from error
    left_out[""] += sum(len(images) for key, images in others.items() if key in plain)
    used = [(key, [sample]) for key, sample in plain.items()]
    used += [(key, images) for key, images in others.items() if key not in plain]
    samples = [replace(sample, label=labels.get(key, UNKNOWN)) for key, images in used for sample in images]
    yield from sorted(samples, key=lambda sample: sample.offset)


def _refuse_packed(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            raise UserError(
                f"{path}: compressed by {kind}, so single images cannot be reached. Decompress the shards first."
            )
    if not head:
        raise UserError(f"{path}: an empty file, not a tar shard. Fetch it again.")


def has_end_mark(path: Path, offset: int) -> bool:
    """Whether a block of zeros follows the last member; tarfile itself takes a cut between members for the end."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _split(name: str) -> tuple[str, str]:
    """Key and lower-case suffix as WebDataset has them: the suffix starts at the first dot of the base name."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}/{stem}", suffix.lower()


def _label(content: bytes, suffix: str) -> int | None:
    try:
        if suffix == "cls":
            return int(content.decode().strip())
        raw = json.loads(content)
        found = raw.get("label", raw.get("cls")) if isinstance(raw, dict) else None
        return found if isinstance(found, int) and not isinstance(found, bool) else None
    except ValueError:
        return None


def _pattern_key(shards: list[Path]) -> str:
    return hashlib.sha256("\n".join(path.name for path in shards).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _pack(index: ShardIndex, digest: str) -> bytes:
    content = io.BytesIO()
    np.savez(
        content,
        digest=np.frombuffer(digest.encode(), np.uint8),
        shards=index.shards,
        offsets=index.offsets,
        sizes=index.sizes,
        labels=index.labels,
        names=np.frombuffer(index.names, np.uint8),
        ends=index.ends,
        left_out=np.frombuffer(json.dumps(index.left_out).encode(), np.uint8),
    )
    return content.getvalue()


def _load(place: Path, digest: str) -> ShardIndex | None:
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as kept:
            if kept["digest"].tobytes().decode() != digest:
                return None
            return ShardIndex(
                shards=kept["shards"],
                offsets=kept["offsets"],
                sizes=kept["sizes"],
                labels=kept["labels"],
                names=kept["names"].tobytes(),
                ends=kept["ends"],
                left_out=json.loads(kept["left_out"].tobytes()),
            )
    except Exception:  # absent, half-written by an older version, or damaged: whatever it is, the index is made again
        return None
